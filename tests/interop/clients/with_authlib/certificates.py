"""Mutual TLS (RFC 8705): a client that shows a certificate, and tokens that are bound to it."""

import base64
import json
import ssl
from pathlib import Path

import requests
from authlib.integrations.requests_client import OAuth2Session
from joserfc.jwk import ECKey

from clients.with_authlib.registered import Registered, refused
from lib.world import World


def _files(world: World, name: str) -> tuple[str, str]:
    folder = world.folder / "certificates"
    return str(folder / f"{name}.pem"), str(folder / f"{name}.key")


def _presenting(client: Registered, name: str | None) -> OAuth2Session:
    """The library's client, which shows a certificate where two asks for one, and says its name and nothing else of itself."""
    aliases = client.endpoints["mtls_endpoint_aliases"]
    session = client.session("none")
    session.metadata["token_endpoint"] = aliases["token_endpoint"]
    session.cert = _files(client.world, name) if name else None
    return session


def _called(world: World, token: str, name: str | None, url: str | None = None) -> int:
    """The status of a call with a certificate, or none, at one of two's URLs."""
    session = requests.Session()
    session.trust_env, session.verify = False, world.trusted
    session.cert = _files(world, name) if name else None
    answer = session.get(f"{url or world.two.mtls_url}/p2pi/orders", headers={"Authorization": f"Bearer {token}"}, timeout=20)
    if answer.status_code == 401:
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"], answer.headers
    return answer.status_code


def _shows(client: Registered, right: str, wrong: list[str]) -> None:
    """From the code to the revocation, all with the right certificate; and each endpoint refuses the others."""
    world, aliases = client.world, client.endpoints["mtls_endpoint_aliases"]
    session = _presenting(client, right)
    token = client.linked(session)
    assert token["token_type"] == "Bearer", token["token_type"]
    assert _called(world, token["access_token"], right) == 200
    for other in [*wrong, None]:
        assert _called(world, token["access_token"], other) == 401, other
    assert _called(world, token["access_token"], right, world.two.public_url) == 401, "nobody is asked for a certificate there"
    about = session.introspect_token(aliases["introspection_endpoint"], token=token["access_token"]).json()
    assert about["active"] is True and list(about["cnf"]) == ["x5t#S256"], about

    for other in [*wrong, None]:
        imposter = _presenting(client, other)
        refused(lambda: imposter.refresh_token(refresh_token=token["refresh_token"]), "invalid_client")
        revoking = imposter.revoke_token(aliases["revocation_endpoint"], token=token["refresh_token"])
        assert revoking.status_code == 401 and revoking.json()["error"] == "invalid_client", revoking.text
    renewed = session.refresh_token()
    assert _called(world, renewed["access_token"], right) == 200
    assert session.revoke_token(aliases["revocation_endpoint"], token=renewed["refresh_token"]).status_code == 200
    assert _called(world, renewed["access_token"], right) == 401


def certificate_of_an_authority(world: World) -> None:
    """The authority that two believes says who the client is (tls_client_auth)."""
    client = Registered.new(world, "--mtls", "--tls-client-auth-subject-dn", "CN=shop")
    assert not client.secret, "a client that shows a certificate has a secret"
    _shows(client, "shop", ["other", "stranger", "own"])


def certificate_of_its_own(world: World) -> None:
    """The client has registered the certificate itself (self_signed_tls_client_auth)."""
    certificate, key = (Path(file).read_text() for file in _files(world, "own"))
    der = ssl.PEM_cert_to_DER_cert(certificate)
    shown = {**ECKey.import_key(key).as_dict(private=False), "x5c": [base64.b64encode(der).decode()]}
    file = world.folder / "authlib-certificate.jwks"
    file.write_text(json.dumps({"keys": [shown]}))
    client = Registered.new(world, "--mtls", "--auth-method", "self_signed_tls_client_auth", "--jwks", str(file))
    _shows(client, "own", ["another", "shop"])


SCENARIOS = [certificate_of_an_authority, certificate_of_its_own]
