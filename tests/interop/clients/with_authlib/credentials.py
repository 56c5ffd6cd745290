"""How a client says who it is: with a secret, or with an assertion that its key signed."""

import time

from authlib.common.security import generate_token
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey

from clients.with_authlib.keys import KEYS, key_set, public, published, signed_by, signing
from clients.with_authlib.registered import Registered, answer, own_token, refused
from lib.world import World


def client_credentials(world: World) -> None:
    """The client alone, in the one way that it is registered with and in no other."""
    methods = ("client_secret_basic", "client_secret_post")
    for method, other in (methods, reversed(methods)):
        client = Registered.itself(world, "--auth-method", method)
        own_token(client, client.session(method))
        refused(client.session(other).fetch_token, "invalid_client")
        refused(lambda: client.session(method).fetch_token(scope="p2pi more"), "invalid_scope")
        refused(lambda: client.session(method).fetch_token(resource=world.one.public_url), "invalid_target")
    client = Registered.new(world)
    refused(client.session().fetch_token, "unauthorized_client")


def automatic_client_credentials(world: World) -> None:
    """The library fetches the next token by itself when one has run out."""
    client = Registered.itself(world, "--access-ttl", "2s")
    renewed = []
    session = client.session(leeway=0, update_token=lambda token, **_: renewed.append(token))
    own_token(client, session)
    time.sleep(2.2)
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200
    assert len(renewed) == 1, len(renewed)


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


def signed_assertions(world: World) -> None:
    """private_key_jwt with each algorithm that both sides have, for the code flow and at every endpoint that authenticates."""
    for algorithm, key in KEYS.items():
        for name in (None, "a key"):
            client = Registered.itself(world, "--jwks", key_set(world, public(key, algorithm, name)))
            own_token(client, signing(client, key, algorithm, name))
    client = Registered.new(world, "--jwks", key_set(world, public(KEYS["ES256"], "ES256", "one")))
    assert not client.secret, "a client that signs has a secret"
    session = signing(client, KEYS["ES256"], "ES256", "one")
    client.linked(session)
    token = session.refresh_token()
    assert session.get(f"{world.two.public_url}/p2pi/").status_code == 200
    about = session.introspect_token(client.endpoints["introspection_endpoint"], token=token["access_token"])
    assert about.json()["active"] is True, about.text
    assert session.revoke_token(client.endpoints["revocation_endpoint"], token=token["refresh_token"]).status_code == 200
    refused(session.refresh_token, "invalid_grant")


def assertions_not_believed(world: World) -> None:
    """One thing wrong with an assertion, the library's own choice of an audience among it, and the client is not known by it."""
    key = KEYS["ES256"]
    client = Registered.itself(world, "--jwks", key_set(world, public(key, "ES256", "one")))
    for wrong in (
        PrivateKeyJWT(alg="ES256"),
        PrivateKeyJWT(world.one.public_url, alg="ES256"),
        PrivateKeyJWT(world.two.public_url, {"sub": "somebody"}, alg="ES256"),
        PrivateKeyJWT(world.two.public_url, {"exp": int(time.time()) - 60}, alg="ES256"),
        PrivateKeyJWT(world.two.public_url, headers={"kid": "another"}, alg="ES256"),
    ):
        refused(signed_by(client, key, wrong).fetch_token, "invalid_client")
    refused(signing(client, ECKey.generate_key("P-256"), "ES256").fetch_token, "invalid_client")
    # It keeps the claims that it is given, and so signs the same jti again.
    again = signed_by(client, key, PrivateKeyJWT(world.two.public_url, {}, alg="ES256"))
    own_token(client, again)
    refused(again.fetch_token, "invalid_client")


def keys_at_a_url(world: World) -> None:
    """The client changes its key at a URL of its own, and two finds the new one there; the old one is good no more."""
    with published(public(KEYS["PS256"], "PS256")) as shop:
        client = Registered.itself(world, "--jwks", shop.url)
        for _ in range(2):
            own_token(client, signing(client, KEYS["PS256"], "PS256"))
        assert shop.looks == 1, shop.looks
        shop.shown = public(KEYS["EdDSA"], "EdDSA")
        # Two looks lie ten seconds apart.
        time.sleep(10.2)
        own_token(client, signing(client, KEYS["EdDSA"], "EdDSA"))
        assert shop.looks == 2, shop.looks
        refused(signing(client, KEYS["PS256"], "PS256").fetch_token, "invalid_client")


SCENARIOS = [
    client_credentials,
    automatic_client_credentials,
    secret_in_the_form,
    awkward_secret,
    wrong_secret,
    secret_rotated,
    signed_assertions,
    assertions_not_believed,
    keys_at_a_url,
]
