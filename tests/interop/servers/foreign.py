"""A foreign authorization server that instance one links to: what the scenarios need of it, and how it is started."""

import os
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import requests

from lib import ports
from lib.browser import Browser, Page
from lib.patience import within
from lib.world import World

# How long its access tokens live, in seconds: short enough to see them renewed.
LIFE = 6
SCOPE = "orders"


@dataclass
class Credentials:
    """What the foreign server knows us by."""

    client_id: str
    # None where signatures take its place.
    secret: str | None


class ForeignServer(ABC):
    """A real server process with TLS and a resource at /api/ that checks its tokens."""

    name: str
    issuer_path = ""
    # Whether its authorization answers say who gives them (RFC 9207).
    says_iss: bool
    # Whether clients sign who they are and prove the keys of their tokens; else they have a secret.
    wants_signatures = False

    def __init__(self, world: World):
        self.world = world
        self.folder = world.folder / self.name
        self.folder.mkdir()
        self.port = ports.free(1)[0]
        self.origin = f"https://127.0.0.1:{self.port}"
        self.issuer = self.origin + self.issuer_path
        self.url = f"{self.origin}/api"
        self.certificate, self.key = self._makes_certificate()
        self.trusted = str(self.folder / "trusted.pem")
        Path(self.trusted).write_text(Path(world.trusted).read_text() + Path(self.certificate).read_text())
        self.process: subprocess.Popen | None = None

    def _makes_certificate(self) -> tuple[str, str]:
        certificate, key = str(self.folder / "cert.pem"), str(self.folder / "key.pem")
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
        names = ["-subj", f"/CN={self.name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*new, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        return certificate, key

    def start(self) -> None:
        """Starts it and waits until it answers."""
        with open(self.folder / "log", "ab") as log:
            command, environment = self.command()
            # It stays in this suite's process group and ends with it.
            self.process = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def answers() -> bool:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            try:
                return requests.get(f"{self.url}/", verify=self.certificate, timeout=5).status_code in (401, 403)
            except requests.ConnectionError:
                return False

        within(30, f"{self.name} to answer", answers)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def metadata(self) -> dict:
        """What it says of itself (RFC 8414)."""
        url = f"{self.origin}/.well-known/oauth-authorization-server{self.issuer_path}"
        answer = requests.get(url, verify=self.certificate, timeout=20)
        assert answer.status_code == 200, answer.status_code
        return answer.json()

    def browser(self) -> Browser:
        """Somebody's browser, which trusts both instances and this server."""
        return Browser(self.trusted)

    @abstractmethod
    def command(self) -> tuple[list[str], dict[str, str]]:
        """What starts it, and its environment."""

    @abstractmethod
    def register(self, redirect_uri: str | None, jwks_uri: str | None) -> Credentials:
        """Registers a client: for the code grant, or without a redirect URI for client credentials. Where clients sign, their keys are at
        `jwks_uri`."""

    @abstractmethod
    def logs_in(self, page: Page) -> Page:
        """From the log-in page to the page that asks for consent."""

    @abstractmethod
    def decides(self, page: Page, decision: str) -> Page:
        """Presses allow or decline; the page that our callback shows."""

    @abstractmethod
    def revoke(self, client_id: str) -> None:
        """An operator or user of the server ends what this client has been allowed."""

    @abstractmethod
    def forget_access_tokens(self, client_id: str) -> None:
        """The server takes this client's access tokens no more, and its refresh tokens still."""

    @abstractmethod
    def live(self, client_id: str) -> int:
        """How many refresh tokens of this client would still be taken."""

    @abstractmethod
    def live_access(self, client_id: str) -> int:
        """How many access tokens of this client would still be taken."""

    @abstractmethod
    def issued(self, client_id: str) -> int:
        """How many access tokens this client has got so far."""
