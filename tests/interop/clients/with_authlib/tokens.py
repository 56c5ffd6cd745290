"""What becomes of tokens: refresh, introspection, revocation."""

import time
from dataclasses import dataclass

from authlib.oauth2.rfc6749 import ResourceProtector
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc7662 import IntrospectTokenValidator

from clients.with_authlib.registered import Registered, refused
from lib.world import World


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


def introspection_by_a_resource_server(world: World) -> None:
    """The library protects a resource, with what two says of the tokens that come."""
    client, server = Registered.new(world), Registered.itself(world, "--introspects", "reports")
    session = client.session()
    token = client.linked(session)
    protector = protected_by(server)

    def called(bearer: str, scope: str) -> dict:
        return protector.validate_request([scope], Called({"Authorization": f"Bearer {bearer}"}))

    about = called(token["access_token"], "reports")
    assert about["scope"] == "reports" and about["client_id"] == client.client_id and about["sub"] == world.login, about
    assert about["aud"] == about["iss"] == world.two.public_url, about
    for scope, bearer, error in (
        ("p2pi", token["access_token"], InsufficientScopeError),
        ("reports", session.refresh_token(scope="p2pi")["access_token"], InvalidTokenError),
        ("reports", session.token["refresh_token"], InvalidTokenError),
        ("reports", "no token of two's", InvalidTokenError),
    ):
        try:
            called(bearer, scope)
        except error:
            continue
        raise AssertionError(f"the resource lets it pass, expected {error.__name__}")


@dataclass
class Called:
    """A request as the library's protector reads it."""

    headers: dict[str, str]


def protected_by(server: Registered) -> ResourceProtector:
    """The library's protector of a resource, which asks two about every token."""
    session, endpoint = server.session(), server.endpoints["introspection_endpoint"]

    class Validator(IntrospectTokenValidator):
        def introspect_token(self, token_string: str) -> dict:
            answered = session.introspect_token(endpoint, token=token_string, token_type_hint="access_token")
            answered.raise_for_status()
            return answered.json()

    protector = ResourceProtector()
    protector.register_token_validator(Validator())
    return protector


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


def revocation_of_an_access_token(world: World) -> None:
    """It ends what it came from; another client's attempt ends nothing."""
    client = Registered.new(world)
    session = client.session()
    token = client.linked(session)
    endpoint = client.endpoints["revocation_endpoint"]
    stranger = Registered.new(world).session().revoke_token(endpoint, token=token["access_token"])
    assert stranger.status_code == 400 and stranger.json()["error"] == "invalid_grant", stranger.text
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200
    assert session.revoke_token(endpoint, token=token["access_token"], token_type_hint="refresh_token").status_code == 200
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 401
    refused(session.refresh_token, "invalid_grant")


SCENARIOS = [
    refresh_with_rotation,
    lost_answer,
    narrower_scope,
    automatic_refresh,
    introspection,
    introspection_by_a_resource_server,
    revocation,
    revocation_of_an_access_token,
]
