"""The authorization code flow with PKCE and the issuer in the answer."""

from authlib.common.security import generate_token

from clients.with_authlib.registered import Registered, answer, metadata, refused
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


def declined(world: World) -> None:
    client = Registered.new(world)
    session = client.session()
    said = answer(client.answered(session, "v" * 64, "decline"))
    assert said["error"] == "access_denied" and said["state"] == session.state and "code" not in said, said


def scope_too_wide(world: World) -> None:
    """More than the client is registered for is refused before anybody is asked."""
    client = Registered.new(world, scope="p2pi")
    session = client.session()
    session.scope = "p2pi reports"
    said = answer(client.answered(session, "v" * 64, "not-asked"))
    assert said["error"] == "invalid_scope" and said["state"] == session.state and "code" not in said, said


def resource(world: World) -> None:
    """A token is for two, by either of its names, or for nobody (RFC 8707)."""
    client = Registered.new(world)
    session, verifier = client.session(), generate_token(64)
    for ours in (world.two.public_url, f"{world.two.public_url}/p2pi"):
        location = client.answered(session, verifier, resource=ours)
        session.fetch_token(authorization_response=location, code_verifier=verifier, resource=ours)
        session.refresh_token(resource=ours)
        assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200
    other = world.one.public_url
    assert answer(client.answered(session, verifier, "not-asked", resource=other))["error"] == "invalid_target"
    location = client.answered(session, verifier)
    refused(lambda: session.fetch_token(authorization_response=location, code_verifier=verifier, resource=other), "invalid_target")
    refused(lambda: session.refresh_token(resource=other), "invalid_target")


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


def public_client(world: World) -> None:
    """A client that cannot keep a secret: PKCE, and a refresh token that rotates."""
    client = Registered.new(world, "--auth-method", "none", "--native", redirect_uri="http://127.0.0.1/callback")
    assert not client.secret, "a client that does not authenticate has a secret"
    session, verifier = client.session("none", redirect_uri="http://127.0.0.1:28474/callback"), generate_token(64)
    location = client.answered(session, verifier)
    refused(lambda: session.fetch_token(authorization_response=location, code_verifier=generate_token(64)), "invalid_grant")
    seen = [client.linked(session)]
    for _ in range(2):
        seen.append(session.refresh_token())
    assert len({token["refresh_token"] for token in seen}) == 3, "the refresh token rotates"
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200
    refused(lambda: session.fetch_token(grant_type="client_credentials"), "unauthorized_client")
    assert session.revoke_token(client.endpoints["revocation_endpoint"]).status_code == 200
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 401


SCENARIOS = [
    discovery,
    code_flow_and_call,
    declined,
    scope_too_wide,
    resource,
    wrong_verifier,
    replayed_code,
    native_app_on_another_port,
    public_client,
]
