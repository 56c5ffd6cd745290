"""django-oauth-toolkit as a peer: `play_django_oauth_toolkit.py WORLD`."""

import time

from lib.patience import within
from lib.scenario import play
from lib.world import World
from servers import scenarios
from servers.django_oauth_toolkit import DjangoOAuthToolkit
from servers.foreign import LIFE
from servers.link import Link


def secret_changed_there(server: DjangoOAuthToolkit) -> None:
    """The server's operator gives us another secret, with everything in it that has a meaning in forms and in Basic."""
    link, awkward = Link.made(server), "per%20cent+plus/=:colon&amp ersand"
    server.change_secret(link.credentials.client_id, awkward)
    shown = link.becomes("degraded")
    assert f"p2pid ob update {link.name} --client-secret-stdin" in shown["reason"], shown
    link.one.runs("ob", "update", link.name, "--client-secret-stdin", line=awkward)
    link.becomes("linked")
    assert link.call()["target"] == "/api/orders?x=1"


def down_for_a_while(server: DjangoOAuthToolkit) -> None:
    """It keeps its tokens on disk: stopped for longer than a token lives, and started again, it finds the link as it was."""
    link = Link.made(server)
    server.stop()
    shown = link.becomes("degraded")
    assert "tried again by itself" in shown["reason"], shown
    time.sleep(LIFE)
    assert link.refused_call()["code"] in ("peer_unreachable", "refresh_failed")
    server.start()
    link.becomes("linked", 30)
    assert link.call()["target"] == "/api/orders?x=1"


def unlink_while_down(server: DjangoOAuthToolkit) -> None:
    """What could not be revoked is revoked as soon as the server is there again."""
    link = Link.made(server)
    server.stop()
    unlinked = link.one.runs("peer", "unlink", link.name, "--yes")
    assert unlinked["revocation"] == "waiting" and unlinked["state"] == "ready_to_link", unlinked
    assert link.live() == 1
    server.start()
    within(20, "the token to be revoked at the server", lambda: link.live() == 0)


if __name__ == "__main__":
    server = DjangoOAuthToolkit(World.told())
    server.start()
    play(server.name, [*scenarios.ALL, secret_changed_there, down_for_a_while, unlink_while_down], server, after=Link.forget_all)
    server.stop()
