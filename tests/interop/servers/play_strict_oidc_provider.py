"""oidc-provider that demands private_key_jwt, DPoP with nonces, and PAR: `play_strict_oidc_provider.py WORLD`."""

import base64
import hashlib

import requests

from lib.patience import within
from lib.scenario import play
from lib.world import World
from servers import scenarios
from servers.foreign import LIFE, SCOPE
from servers.link import Link
from servers.oidc_provider import StrictOidcProvider


def what_it_demands(server: StrictOidcProvider) -> None:
    """It does demand all that: an authorization request that is not pushed, and one that is pushed by nobody, get nowhere."""
    metadata = server.metadata()
    assert metadata["token_endpoint_auth_methods_supported"] == ["private_key_jwt"], metadata
    assert metadata["require_pushed_authorization_requests"] is True and "ES256" in metadata["dpop_signing_alg_values_supported"], metadata
    link = Link.ready(server)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 64).digest()).rstrip(b"=").decode()
    asked = {
        "client_id": link.credentials.client_id,
        "response_type": "code",
        "redirect_uri": link.one.runs("ob", "show", link.name)["redirect_uri"],
        "scope": SCOPE,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    session = requests.Session()
    session.trust_env, session.verify = False, server.certificate
    bare = session.get(metadata["authorization_endpoint"], params=asked, allow_redirects=False, timeout=20)
    assert bare.status_code in (302, 303, 400) and "invalid_request" in bare.headers.get("Location", bare.text), bare.text
    unsigned = session.post(metadata["pushed_authorization_request_endpoint"], data=asked, timeout=20)
    assert unsigned.status_code in (400, 401) and unsigned.json()["error"] in ("invalid_client", "invalid_request"), unsigned.text


def linked_by_proof(server: StrictOidcProvider) -> None:
    """The link's tokens are bound, the resource takes calls of every kind, and nothing less than a proof makes a link."""
    link = Link.made(server)
    assert link.shown()["token"]["type"] == "DPoP", link.shown()
    key = scenarios.caller_key(link)
    for _ in range(3):
        answer = scenarios.through_the_relay(link, key)
        assert answer.status_code == 200, answer.text
    posted = requests.post(
        f"{link.one.local}/{link.name}/orders?x=2", data="a body", headers={"Authorization": f"Bearer {key}"}, timeout=20
    )
    assert posted.status_code == 200 and posted.json()["target"] == "/api/orders?x=2", posted.text
    link.one.runs("ob", "update", link.name, "--dpop", "off")
    try:
        link.links()
    except AssertionError as error:
        assert "DPoP" in str(error) or "dpop" in str(error) or "invalid_grant" in str(error), error
    else:
        raise AssertionError("linked without a proof")
    link.one.runs("ob", "update", link.name, "--dpop", "require")
    link.links()
    assert link.call()["target"] == "/api/orders?x=1"


def nonces_that_run_out(server: StrictOidcProvider) -> None:
    """The resource changes its nonce all the time: each call finds the new one, and the token is renewed only when it is due."""
    link = Link.made(server)
    key = scenarios.caller_key(link)

    def three_renewals() -> bool:
        answer = scenarios.through_the_relay(link, key)
        assert answer.status_code == 200, answer.text
        return link.issued() >= 4

    within(4 * LIFE, "three renewals", three_renewals)
    assert link.issued() == 4, link.issued()
    assert link.shown()["state"] == "linked", link.shown()


def key_changed(server: StrictOidcProvider) -> None:
    """A new key is shown at our URL while the one before it still signs: whoever looks there every hour, as this server does every minute,
    refuses nothing, and what the link's tokens are bound to stays."""
    link = Link.made(server)
    before = [key["kid"] for key in link.one.runs("ob", "show", link.name)["jwks"]["keys"]]
    link.one.runs("ob", "rotate-key", link.name, "--overlap", "1h")
    shown = [key["kid"] for key in link.one.runs("ob", "show", link.name)["jwks"]["keys"]]
    assert len(shown) == 2 and shown[:1] == before, (before, shown)
    link.one.runs("peer", "refresh", link.name)
    assert link.shown()["state"] == "linked", link.shown()
    assert link.call()["target"] == "/api/orders?x=1"


OF_ALL = [
    scenarios.probe,
    scenarios.link_and_call,
    scenarios.declined,
    scenarios.refresh_by_itself,
    scenarios.refresh_by_command,
    scenarios.access_token_lost_there,
    scenarios.many_calls_with_a_lost_token,
    scenarios.revoked_there,
    scenarios.revoked_there_and_called,
    scenarios.linked_again,
    scenarios.unlink,
    scenarios.client_credentials,
    scenarios.client_credentials_given_up,
    scenarios.doctor,
]

if __name__ == "__main__":
    server = StrictOidcProvider(World.told())
    server.start()
    play(server.name, [what_it_demands, linked_by_proof, nonces_that_run_out, key_changed, *OF_ALL], server, after=Link.forget_all)
    server.stop()
