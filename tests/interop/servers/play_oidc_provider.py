"""oidc-provider as a peer: `play_oidc_provider.py WORLD`."""

from lib.scenario import play
from lib.world import World
from servers import scenarios
from servers.foreign import SCOPE
from servers.link import Link
from servers.oidc_provider import OidcProvider, OtherOidcProvider


def openid_scope(server: OidcProvider) -> None:
    """With the scope openid the answer brings an ID token beside what is asked of it."""
    link = Link.made(server, scope=f"openid {SCOPE}")
    assert set(link.shown()["token"]["scope"].split()) == {"openid", SCOPE}, link.shown()
    link.one.runs("peer", "refresh", link.name)
    assert link.call()["target"] == "/api/orders?x=1"


def other_settings(server: OidcProvider) -> None:
    """JWTs as access tokens, the secret in the form, refresh tokens that stay, and no revocation."""
    other = OtherOidcProvider(server.world)
    other.start()
    link, own = Link.made(other), Link.ready(other, grant="client_credentials")
    for _ in range(2):
        assert link.call()["target"] == "/api/orders?x=1"
        link.one.runs("peer", "refresh", link.name)
    assert (link.issued(), link.live()) == (3, 1), f"{link.issued()} access tokens, {link.live()} refresh tokens"
    own.becomes("linked")
    assert own.call()["client"] == own.credentials.client_id
    assert link.one.runs("peer", "unlink", link.name, "--yes")["revocation"] == "not_asked"
    other.stop()


if __name__ == "__main__":
    server = OidcProvider(World.told())
    server.start()
    play(server.name, [*scenarios.ALL, openid_scope, other_settings], server, after=Link.forget_all)
    server.stop()
