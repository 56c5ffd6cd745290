"""django-oauth-toolkit behind gunicorn as a foreign server: an issuer with a path, no `iss`, applications and tokens managed on its own
pages, a family of tokens that ends when an old one comes again, and access tokens that end with their refresh."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from lib.browser import Page
from lib.patience import within
from servers.foreign import LIFE, SCOPE, Credentials, ForeignServer

PASSWORD = "a password for these tests"
PERSON = "someone"


class DjangoOAuthToolkit(ForeignServer):
    name = "django-oauth-toolkit"
    issuer_path = "/o"
    says_iss = False

    def start(self) -> None:
        if not self.database.exists():
            self._manages("migrate", "--verbosity", "0")
            self._manages("createsuperuser", "--noinput", "--username", PERSON, "--email", "someone@foreign.example")
        super().start()

    def command(self) -> tuple[list[str], dict[str, str]]:
        listen = ["--bind", f"127.0.0.1:{self.port}", "--certfile", self.certificate, "--keyfile", self.key]
        workers = ["--workers", "1", "--threads", "8", "--no-control-socket", "--chdir", str(Path(__file__).parent.parent)]
        gunicorn = [sys.executable, "-m", "gunicorn", *listen, *workers, "--worker-tmp-dir", str(self.folder)]
        return [*gunicorn, "servers.django_site.wsgi"], self._environment()

    def _environment(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "servers.django_site.settings",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "INTEROP_DATABASE": str(self.database),
            "INTEROP_LIFE": str(LIFE),
            "INTEROP_SCOPE": SCOPE,
        }

    def _manages(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "django", *arguments]
        subprocess.run(command, check=True, env={**os.environ, **self._environment()}, capture_output=True, text=True)

    @property
    def database(self) -> Path:
        return self.folder / "database"

    def register(self, redirect_uri: str | None, jwks_uri: str | None) -> Credentials:
        """On its page for new applications, which proposes an id and a secret."""
        page = self.browser().open(f"{self.origin}/o/applications/register/")
        page = self.logs_in(page)
        form = page.form("client_id")
        given = Credentials(form.fields["client_id"], form.fields["client_secret"])
        page = page.submit(
            form,
            name="instance one",
            client_type="confidential",
            authorization_grant_type="authorization-code" if redirect_uri else "client-credentials",
            redirect_uris=redirect_uri or "",
        )
        assert page.status == 200 and "register" not in page.url, f"{page.url}: {page.text[:500]}"
        return given

    def change_secret(self, client_id: str, secret: str) -> None:
        """On its page about the application."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            (number,) = connection.execute("SELECT id FROM oauth2_provider_application WHERE client_id = ?", (client_id,)).fetchone()
        page = self.logs_in(self.browser().open(f"{self.origin}/o/applications/{number}/update/"))
        page = page.submit(page.form("client_secret"), client_secret=secret)
        assert page.status == 200 and "update" not in page.url, f"{page.url}: {page.text[:500]}"

    def logs_in(self, page: Page) -> Page:
        return page.submit(page.form("username"), username=PERSON, password=PASSWORD)

    def decides(self, page: Page, decision: str) -> Page:
        return page.submit(page.form("allow"), "allow" if decision == "allow" else "Cancel")

    def revoke(self, client_id: str) -> None:
        """On the page where people see what they have allowed."""
        browser = self.browser()
        self.logs_in(browser.open(f"{self.origin}/o/authorized_tokens/"))

        def asked() -> Page | None:
            # One that is renewed between the look and the click is there no more.
            for (token,) in self._rows("SELECT t.id FROM oauth2_provider_accesstoken t", client_id):
                page = browser.open(f"{self.origin}/o/authorized_tokens/{token}/delete/")
                if page.status == 200:
                    return page
            return None

        page = within(5, "a page that asks whether to revoke", asked)
        page.submit(page.form("csrfmiddlewaretoken"))

    def forget_access_tokens(self, client_id: str) -> None:
        """As if its clock had run ahead: a row that is gone would take the refresh token with it."""
        held = self._rows("SELECT t.id FROM oauth2_provider_accesstoken t", client_id)
        with closing(sqlite3.connect(self.database, timeout=20)) as connection, connection:
            connection.executemany("UPDATE oauth2_provider_accesstoken SET expires = '2000-01-01 00:00:00' WHERE id = ?", held)

    def live(self, client_id: str) -> int:
        return len(self._rows("SELECT t.revoked FROM oauth2_provider_refreshtoken t", client_id, "AND t.revoked IS NULL"))

    def live_access(self, client_id: str) -> int:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        return len(self._rows("SELECT t.id FROM oauth2_provider_accesstoken t", client_id, f"AND t.expires > '{now}'"))

    def issued(self, client_id: str) -> int:
        """An access token is deleted with its refresh, the refresh token beside it is kept."""
        return len(self._rows("SELECT t.id FROM oauth2_provider_refreshtoken t", client_id))

    def _rows(self, select: str, client_id: str, more: str = "") -> list[tuple]:
        """Rows of this client's tokens."""
        sql = f"{select} JOIN oauth2_provider_application a ON a.id = t.application_id WHERE a.client_id = ? {more}"
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            return connection.execute(sql, (client_id,)).fetchall()
