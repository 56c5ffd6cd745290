"""Authlib as a client of ours: `with_authlib.py WORLD`. Each scenario registers a client of its own at instance two."""

import time

from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError

from clients.registered import Registered, answer, metadata
from lib.scenario import play
from lib.world import World


def discovery(world: World) -> None:
    document = metadata(world)
    assert document["code_challenge_methods_supported"] == ["S256"], document
    assert document["authorization_response_iss_parameter_supported"] is True, document


def code_flow_and_call(world: World) -> None:
    client = Registered.new(world)
    session = client.session()
    token = client.linked(session, generate_token(64))
    assert token["token_type"] == "Bearer" and token["scope"] == "p2pi reports", token.keys()
    called = session.get(f"{world.two.public_url}/p2pi/orders?x=1")
    assert called.status_code == 200, called.text
    seen = called.json()
    assert seen["target"] == "/orders?x=1", seen
    assert seen["headers"]["p2pi-client"] == client.client_id, seen
    assert seen["headers"]["p2pi-subject"] == world.login, seen
    assert "authorization" not in seen["headers"], "the application sees the token"


def secret_in_the_form(world: World) -> None:
    client = Registered.new(world)
    session = client.session("client_secret_post")
    client.linked(session)
    session.refresh_token()
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200


def awkward_secret(world: World) -> None:
    """This library sends the halves of Basic as they are, not form-encoded as RFC 6749 §2.3.1 wants it."""
    client = Registered.new(world)
    awkward = "per%20cent+plus/=:colon&amp"
    world.two.runs("ib", "update", client.name, "--client-secret-stdin", line=awkward)
    for method in ("client_secret_basic", "client_secret_post"):
        client.linked(client.session(method, secret=awkward))


def refresh_with_rotation(world: World) -> None:
    client = Registered.new(world)
    session = client.session()
    seen = [client.linked(session)]
    for _ in range(2):
        seen.append(session.refresh_token())
        assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200
    assert len({token["refresh_token"] for token in seen}) == 3, "the refresh token rotates"
    assert len({token["access_token"] for token in seen}) == 3


def lost_answer(world: World) -> None:
    """The old refresh token presented again inside the window gets the same successor."""
    client = Registered.new(world)
    session = client.session()
    first = client.linked(session)["refresh_token"]
    once = session.refresh_token(refresh_token=first)
    again = session.refresh_token(refresh_token=first)
    assert once["refresh_token"] == again["refresh_token"], "the successor is another one"
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200


def narrower_scope(world: World) -> None:
    client = Registered.new(world)
    session = client.session()
    client.linked(session)
    narrow = session.refresh_token(scope="p2pi")
    assert narrow["scope"] == "p2pi", narrow["scope"]
    refused = session.get(f"{world.two.public_url}/reports/")
    assert refused.status_code == 403 and 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"], refused.headers
    whole = session.refresh_token()
    assert whole["scope"] == "p2pi reports", "the new refresh token keeps the whole scope"
    assert session.get(f"{world.two.public_url}/reports/").status_code == 200


def automatic_refresh(world: World) -> None:
    """The library refreshes by itself before it sends a token that has run out."""
    client = Registered.new(world, "--access-ttl", "2s")
    renewed = []
    session = client.session(leeway=0, update_token=lambda token, **_: renewed.append(token))
    client.linked(session)
    for _ in range(2):
        time.sleep(2.2)
        assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200
    assert len(renewed) == 2, len(renewed)


def introspection(world: World) -> None:
    client = Registered.new(world)
    session = client.session()
    token = client.linked(session)
    endpoint = client.endpoints["introspection_endpoint"]
    about = session.introspect_token(endpoint, token=token["access_token"], token_type_hint="access_token").json()
    assert about["active"] is True and about["client_id"] == client.client_id and about["scope"] == "p2pi reports", about
    assert about["sub"] == world.login and about["iss"] == world.two.public_url and about["exp"] > time.time(), about
    stranger = Registered.new(world).session()
    assert stranger.introspect_token(endpoint, token=token["access_token"]).json() == {"active": False}


def revocation(world: World) -> None:
    client = Registered.new(world)
    session = client.session()
    token = client.linked(session)
    endpoint = client.endpoints["revocation_endpoint"]
    for _ in range(2):
        revoked = session.revoke_token(endpoint, token=token["refresh_token"], token_type_hint="refresh_token")
        assert revoked.status_code == 200, revoked.status_code
    called = session.get(f"{world.two.public_url}/p2pi/")
    assert called.status_code == 401 and 'error="invalid_token"' in called.headers["WWW-Authenticate"], called.headers
    about = session.introspect_token(client.endpoints["introspection_endpoint"], token=token["access_token"]).json()
    assert about == {"active": False}, about
    refused(session.refresh_token, "invalid_grant")


def declined(world: World) -> None:
    client = Registered.new(world)
    session = client.session()
    said = answer(client.answered(session, "v" * 64, "decline"))
    assert said["error"] == "access_denied" and said["state"] == session.state and "code" not in said, said


def wrong_secret(world: World) -> None:
    client = Registered.new(world)
    verifier = generate_token(64)
    for method in ("client_secret_basic", "client_secret_post"):
        session = client.session(method, secret="not the secret")
        location = client.answered(session, verifier)
        refused(lambda: session.fetch_token(authorization_response=location, code_verifier=verifier), "invalid_client")
    right = client.session()
    right.fetch_token(authorization_response=location, code_verifier=verifier, state=answer(location)["state"])


def secret_rotated(world: World) -> None:
    """Both secrets are good while they overlap, and then the new one."""
    client = Registered.new(world)
    session = client.session()
    client.linked(session)
    new = world.two.runs("ib", "rotate-secret", client.name, "--overlap", "3s")["client_secret"]
    session.refresh_token()
    session.client_secret = new
    session.refresh_token()
    time.sleep(3.2)
    session.refresh_token()
    session.client_secret = client.secret
    refused(session.refresh_token, "invalid_client")


def wrong_verifier(world: World) -> None:
    client = Registered.new(world)
    session = client.session()
    location = client.answered(session, generate_token(64))
    refused(lambda: session.fetch_token(authorization_response=location, code_verifier=generate_token(64)), "invalid_grant")


def replayed_code(world: World) -> None:
    client = Registered.new(world)
    session, verifier = client.session(), generate_token(64)
    location = client.answered(session, verifier)
    session.fetch_token(authorization_response=location, code_verifier=verifier)
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200
    refused(lambda: session.fetch_token(authorization_response=location, code_verifier=verifier), "invalid_grant")
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 401, "the tokens of a replayed code are good no more"


def native_app_on_another_port(world: World) -> None:
    client = Registered.new(world, "--native", redirect_uri="http://127.0.0.1/callback")
    for port in (28_471, 28_472):
        client.linked(client.session(redirect_uri=f"http://127.0.0.1:{port}/callback"))


def refused(ask, code: str) -> None:
    """Does what must be refused with that OAuth error."""
    try:
        ask()
    except OAuthError as error:
        assert error.error == code, f"{error.error}, expected {code}"
    else:
        raise AssertionError(f"it was not refused, expected {code}")


SCENARIOS = [
    discovery,
    code_flow_and_call,
    secret_in_the_form,
    awkward_secret,
    refresh_with_rotation,
    lost_answer,
    narrower_scope,
    automatic_refresh,
    introspection,
    revocation,
    declined,
    wrong_secret,
    secret_rotated,
    wrong_verifier,
    replayed_code,
    native_app_on_another_port,
]

if __name__ == "__main__":
    play("authlib", SCENARIOS, World.told())
