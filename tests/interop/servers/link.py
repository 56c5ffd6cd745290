"""A peer of instance one at a foreign server, and the way to link it, as an operator goes it."""

import json
from dataclasses import dataclass
from itertools import count

from lib.browser import Page
from lib.instance import Refused
from lib.patience import within
from servers.foreign import SCOPE, Credentials, ForeignServer

NUMBERS = count(1)
# The peers that the scenario under way has made.
MADE: list["Link"] = []


@dataclass
class Link:
    """One peer with an OB app of its own, both called `name`."""

    server: ForeignServer
    name: str
    credentials: Credentials
    created: dict

    @classmethod
    def ready(cls, server: ForeignServer, grant: str = "authorization_code", scope: str = SCOPE, endpoints: bool = False) -> "Link":
        """Registers us at the server, then makes OB app and peer. With `endpoints` nothing is read of the server's metadata."""
        one, name = server.world.one, f"{server.name}-{next(NUMBERS)}"
        where = cls._endpoints(server) if endpoints else ["--issuer", server.issuer]
        scopes = [flag for word in scope.split() for flag in ("--scope", word)]
        kept = ["--grant", grant, *scopes, "--ca", server.certificate]
        known_by = ["--auth-method", "private_key_jwt", "--dpop", "require"] if server.wants_signatures else ["--client-secret-stdin"]
        # The foreign server gives the client id when it knows the redirect URI, and that is known when the peer is.
        secret = None if server.wants_signatures else "not known yet"
        one.runs("ob", "create", name, "--client-id", "not-known-yet", *known_by, *where, *kept, line=secret)
        created = one.runs("peer", "create", name, "--url", server.url, "--ob", name, "--ca", server.certificate)
        shown = one.runs("ob", "show", name)
        credentials = server.register(shown["redirect_uri"] if grant == "authorization_code" else None, shown.get("jwks_uri"))
        new_secret = [] if credentials.secret is None else ["--client-secret-stdin"]
        one.runs("ob", "update", name, "--client-id", credentials.client_id, *new_secret, line=credentials.secret)
        link = cls(server, name, credentials, created)
        MADE.append(link)
        return link

    @staticmethod
    def _endpoints(server: ForeignServer) -> list[str]:
        metadata = server.metadata()
        return ["--authorize-url", metadata["authorization_endpoint"], "--token-url", metadata["token_endpoint"]]

    @classmethod
    def made(cls, server: ForeignServer, **how) -> "Link":
        """A peer that is linked."""
        link = cls.ready(server, **how)
        link.links()
        return link

    def links(self, decision: str = "allow") -> Page:
        """The browser steps through both: request page, log-in there, consent there, our callback; gives the last page."""
        url = self.one.runs("peer", "request", self.name)["url"]
        page = self.server.browser().open(url)
        assert page.status == 200, f"{page.status}: {page.text[:300]}"
        page = page.submit(page.form())
        page = self.server.logs_in(page)
        page = self.server.decides(page, decision)
        assert page.url.startswith(f"{self.one.public_url}/oauth/callback"), f"{page.url} ({page.status}): {page.text[:500]}"
        if decision == "allow":
            assert page.status == 200 and "linked" in page.text.lower(), f"{page.status}: {page.text[:500]}"
        return page

    @property
    def one(self):
        return self.server.world.one

    def shown(self) -> dict:
        return self.one.runs("peer", "show", self.name)

    def becomes(self, state: str, seconds: float = 15) -> dict:
        """Waits for a state; gives the peer as it was seen in it."""

        def seen() -> dict | None:
            shown = self.shown()
            return shown if shown["state"] == state else None

        return within(seconds, f"{self.name} to be {state}", seen)

    def call(self, path: str = "/orders?x=1") -> dict:
        """One call with `p2pid call`; what the resource answered."""
        return json.loads(self.one.runs("call", self.name, path)["body"])

    def refused_call(self) -> dict:
        """A call that our relay refuses itself; its error document."""
        try:
            answered = self.call()
        except Refused as refused:
            return refused.problem
        raise AssertionError(f"the call was not refused: {answered}")

    @staticmethod
    def forget_all() -> None:
        """Ends what a scenario has left, so that nothing is refreshed while the next ones play."""
        while MADE:
            link = MADE.pop()
            link.one.runs("peer", "unlink", link.name, "--force", "--yes")
            link.one.runs("peer", "delete", link.name, "--yes")

    def issued(self) -> int:
        return self.server.issued(self.credentials.client_id)

    def live(self) -> int:
        return self.server.live(self.credentials.client_id)
