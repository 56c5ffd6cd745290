"""What is played against every foreign server. Each scenario makes OB app, peer and link of its own at instance one."""

from concurrent.futures import ThreadPoolExecutor

import requests

from lib.patience import within
from servers.foreign import LIFE, SCOPE, ForeignServer
from servers.link import Link


def probe(server: ForeignServer) -> None:
    """`peer create` looks at the server and finds nothing to warn of."""
    link = Link.ready(server)
    created = link.created
    assert created["state"] == "ready_to_link", created
    assert "issuer matches" in created["probe"] and f"scope {SCOPE} offered" in created["probe"], created
    assert created["warnings"] == [], created
    redirect_uri = link.one.runs("ob", "show", link.name)["redirect_uri"]
    callback = f"{link.one.public_url}/oauth/callback"
    assert (redirect_uri == callback) if server.says_iss else redirect_uri.startswith(f"{callback}/"), redirect_uri
    assert f"redirect URI: {redirect_uri}." in created["probe"], created


def link_and_call(server: ForeignServer) -> None:
    link = Link.made(server)
    shown = link.shown()
    assert shown["state"] == "linked" and shown["token"]["refreshable"] is True and shown["token"]["scope"] == SCOPE, shown
    listed = [peer for peer in link.one.runs("peer", "list") if peer["name"] == link.name]
    assert [peer["state"] for peer in listed] == ["linked"], listed
    assert link.call()["target"] == "/api/orders?x=1"
    assert through_the_relay(link, caller_key(link)).json()["target"] == "/api/orders?x=1"


def caller_key(link: Link) -> str:
    """The key of a local application that may call this peer."""
    return link.one.runs("caller", "add", link.name, "--peer", link.name)["key"]


def through_the_relay(link: Link, key: str) -> requests.Response:
    """A call of a local application."""
    return requests.get(f"{link.one.local}/{link.name}/orders?x=1", headers={"Authorization": f"Bearer {key}"}, timeout=20)


def declined(server: ForeignServer) -> None:
    link = Link.ready(server)
    page = link.links("decline")
    assert page.status == 200 and "declined" in page.text.lower(), f"{page.status}: {page.text}"
    shown = link.becomes("ready_to_link")
    assert "declined" in shown["reason"], shown
    assert link.refused_call()["code"] == "not_linked"


def endpoints_without_metadata(server: ForeignServer) -> None:
    """An operator names the endpoints; the answer arrives at a redirect URI of this OB app's own. None of them revokes."""
    link = Link.made(server, endpoints=True)
    assert link.call()["target"] == "/api/orders?x=1"
    link.one.runs("peer", "refresh", link.name)
    assert link.call()["target"] == "/api/orders?x=1"
    unlinked = link.one.runs("peer", "unlink", link.name, "--yes")
    assert unlinked["revocation"] == "not_asked" and "no way to revoke" in unlinked["revocation_detail"], unlinked
    assert link.live() == 1, "nobody has asked the server"


def refresh_by_itself(server: ForeignServer) -> None:
    """The token is renewed before it runs out, again and again, with rotation, and no call is needed for it."""
    link = Link.made(server)
    for turn in (2, 3, 4):
        within(2 * LIFE, f"token {turn}", lambda: link.issued() >= turn)
    shown = link.shown()
    assert shown["state"] == "linked" and "renewed by itself" in shown["reason"], shown
    within(2, "one live refresh token", lambda: link.live() == 1)
    assert link.call()["target"] == "/api/orders?x=1"


def refresh_by_command(server: ForeignServer) -> None:
    link = Link.made(server)
    before = link.issued()
    for _ in range(2):
        link.one.runs("peer", "refresh", link.name)
        assert link.call()["target"] == "/api/orders?x=1"
    assert link.issued() >= before + 2, link.issued()
    within(2, "one live refresh token", lambda: link.live() == 1)


def access_token_lost_there(server: ForeignServer) -> None:
    """A 401 while the token should still be good: the relay refreshes, and repeats the call."""
    link = Link.made(server)
    before = link.issued()
    server.forget_access_tokens(link.credentials.client_id)
    assert link.call()["target"] == "/api/orders?x=1"
    assert link.issued() == before + 1, f"{link.issued()} after {before}"


def many_calls_with_a_lost_token(server: ForeignServer) -> None:
    """All calls find at once that the token is no good: one refresh for all, for both servers end a grant whose refresh token comes twice."""
    link = Link.made(server)
    key, before = caller_key(link), link.issued()
    server.forget_access_tokens(link.credentials.client_id)
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: through_the_relay(link, key), range(32)))
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers if answer.status_code != 200][:3]
    assert link.issued() == before + 1, f"{link.issued()} after {before}"
    assert link.shown()["state"] == "linked", link.shown()


def revoked_there(server: ForeignServer) -> None:
    """Revoked at the server, the link is over, and says so; a new request URL makes it anew."""
    link = Link.made(server)
    server.revoke(link.credentials.client_id)
    shown = link.becomes("relink_required")
    assert "invalid_grant" in shown["reason"] and f"p2pid peer request {link.name}" in shown["reason"], shown
    assert link.refused_call()["code"] == "relink_required"
    link.links()
    assert link.shown()["state"] == "linked", link.shown()
    assert link.call()["target"] == "/api/orders?x=1"


def revoked_there_and_called(server: ForeignServer) -> None:
    """The next call finds it out, before any renewal is due: it gets the server's own answer, and those after it learn what to do."""
    link = Link.made(server)
    server.revoke(link.credentials.client_id)
    assert link.refused_call()["code"] == "http_401"
    shown = link.becomes("relink_required", 1)
    assert "invalid_grant" in shown["reason"], shown
    assert link.refused_call()["code"] == "relink_required"


def linked_again(server: ForeignServer) -> None:
    """A second link in the place of one that works."""
    link = Link.made(server)
    link.links()
    assert link.shown()["state"] == "linked", link.shown()
    assert link.call()["target"] == "/api/orders?x=1"
    before = link.issued()
    within(2 * LIFE, "the new link's token to be renewed", lambda: link.issued() > before)
    link.becomes("linked")


def unlink(server: ForeignServer) -> None:
    """What is given up here is revoked there."""
    link = Link.made(server)
    assert link.live() == 1
    assert link.one.runs("peer", "unlink", link.name, "--yes")["revocation"] == "revoked"
    assert link.shown()["state"] == "ready_to_link", link.shown()
    assert link.live() == 0, "it is not revoked at the server"
    assert link.refused_call()["code"] == "not_linked"


def wrong_secret(server: ForeignServer) -> None:
    """A secret that was changed there: degraded with the fix; with the right secret the same link goes on."""
    link = Link.made(server)
    link.one.runs("ob", "update", link.name, "--client-secret-stdin", line="not the secret")
    shown = link.becomes("degraded")
    assert f"p2pid ob update {link.name} --client-secret-stdin" in shown["reason"], shown
    link.one.runs("ob", "update", link.name, "--client-secret-stdin", line=link.credentials.secret)
    link.becomes("linked")
    assert link.call()["target"] == "/api/orders?x=1"


def wrong_secret_while_linking(server: ForeignServer) -> None:
    link = Link.ready(server)
    link.one.runs("ob", "update", link.name, "--client-secret-stdin", line="not the secret")
    try:
        link.links()
    except AssertionError as error:
        assert "invalid_client" in str(error), error
    else:
        raise AssertionError("linked with a wrong secret")
    link.one.runs("ob", "update", link.name, "--client-secret-stdin", line=link.credentials.secret)
    link.links()
    assert link.shown()["state"] == "linked", link.shown()


def client_credentials(server: ForeignServer) -> None:
    """No browser: a token of the app's own, renewed by itself, and no refresh token."""
    link = Link.ready(server, grant="client_credentials")
    shown = link.becomes("linked")
    assert shown["token"]["refreshable"] is False, shown
    assert link.call()["target"] == "/api/orders?x=1"
    first = shown["token"]["issued_at"]
    within(2 * LIFE, "the token to be renewed", lambda: link.shown()["token"]["issued_at"] != first)
    assert link.call()["target"] == "/api/orders?x=1"


def client_credentials_given_up(server: ForeignServer) -> None:
    """Without a refresh token it is the access token that is revoked at the server."""
    link = Link.ready(server, grant="client_credentials")
    link.becomes("linked")
    assert link.one.runs("peer", "unlink", link.name, "--yes")["revocation"] == "revoked"
    assert server.live_access(link.credentials.client_id) == 0, "it is not revoked at the server"


def client_credentials_with_a_wrong_secret(server: ForeignServer) -> None:
    link = Link.ready(server, grant="client_credentials")
    link.becomes("linked")
    link.one.runs("ob", "update", link.name, "--client-secret-stdin", line="not the secret")
    shown = link.becomes("degraded")
    assert f"p2pid ob update {link.name} --client-secret-stdin" in shown["reason"], shown
    link.one.runs("ob", "update", link.name, "--client-secret-stdin", line=link.credentials.secret)
    link.becomes("linked")


def doctor(server: ForeignServer) -> None:
    link = Link.made(server)
    outcome = link.one.says("doctor", link.name)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


ALL = [
    probe,
    link_and_call,
    declined,
    endpoints_without_metadata,
    refresh_by_itself,
    refresh_by_command,
    access_token_lost_there,
    many_calls_with_a_lost_token,
    revoked_there,
    revoked_there_and_called,
    linked_again,
    unlink,
    wrong_secret,
    wrong_secret_while_linking,
    client_credentials,
    client_credentials_with_a_wrong_secret,
    client_credentials_given_up,
    doctor,
]
