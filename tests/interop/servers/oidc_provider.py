"""node's oidc-provider (panva) as a foreign server: metadata, `iss`, strict rotation that ends a grant when an old token comes again."""

import json
from pathlib import Path

import requests

from lib.browser import Page
from servers.foreign import LIFE, SCOPE, Credentials, ForeignServer

REGISTRATION_KEY = "who-registers-clients-shows-this"


class OidcProvider(ForeignServer):
    name = "oidc-provider"
    says_iss = True
    authentication = "client_secret_basic"
    # Which of its settings: usual, other or strict.
    kind = "usual"

    def command(self) -> tuple[list[str], dict[str, str]]:
        settings = {
            "libraries": str(self.world.libraries),
            "issuer": self.issuer,
            "port": self.port,
            "certificate": self.certificate,
            "key": self.key,
            "life": LIFE,
            "scope": SCOPE,
            "resource": self.url,
            "registrationKey": REGISTRATION_KEY,
            "authentication": self.authentication,
            "kind": self.kind,
        }
        file = self.folder / "settings.json"
        file.write_text(json.dumps(settings))
        return ["node", str(Path(__file__).with_name("oidc-provider.mjs")), str(file)], {}

    def register(self, redirect_uri: str | None, jwks_uri: str | None) -> Credentials:
        """Over its registration endpoint (RFC 7591)."""
        wanted = {
            "client_name": "instance one",
            "redirect_uris": [redirect_uri] if redirect_uri else [],
            "response_types": ["code"] if redirect_uri else [],
            "grant_types": ["authorization_code", "refresh_token"] if redirect_uri else ["client_credentials"],
            "token_endpoint_auth_method": self.authentication,
            "scope": f"openid {SCOPE}" if redirect_uri else SCOPE,
            **(self.demands(jwks_uri) if self.wants_signatures else {}),
        }
        key = {"Authorization": f"Bearer {REGISTRATION_KEY}"}
        answer = requests.post(f"{self.origin}/reg", json=wanted, headers=key, verify=self.certificate, timeout=20)
        assert answer.status_code == 201, answer.text
        return Credentials(answer.json()["client_id"], answer.json().get("client_secret"))

    @staticmethod
    def demands(jwks_uri: str | None) -> dict:
        """What a client is registered with that has no secret."""
        assert jwks_uri, "a client that signs has its keys at a URL"
        return {"jwks_uri": jwks_uri, "dpop_bound_access_tokens": True, "require_pushed_authorization_requests": True}

    def logs_in(self, page: Page) -> Page:
        return page.submit(page.form("login"), login="someone", password="anything")

    def decides(self, page: Page, decision: str) -> Page:
        return page.submit(page.form("prompt")) if decision == "allow" else page.follow("[ Cancel ]")

    def revoke(self, client_id: str) -> None:
        self._orders("revoke", client_id)

    def forget_access_tokens(self, client_id: str) -> None:
        self._orders("forget", client_id)

    def _orders(self, what: str, client_id: str) -> None:
        answer = requests.post(f"{self.origin}/office/{what}/{client_id}", verify=self.certificate, timeout=20)
        assert answer.status_code == 204, answer.text

    def live(self, client_id: str) -> int:
        return self._ledger(client_id)["live"]

    def live_access(self, client_id: str) -> int:
        return self._ledger(client_id)["live_access"]

    def issued(self, client_id: str) -> int:
        return self._ledger(client_id)["issued"]

    def _ledger(self, client_id: str) -> dict:
        return requests.get(f"{self.origin}/office/ledger/{client_id}", verify=self.certificate, timeout=20).json()


class OtherOidcProvider(OidcProvider):
    """With settings that are as usual as the first ones: access tokens are JWTs, clients send their secret in the form, refresh tokens
    stay the same, and nothing can be revoked."""

    name = "other-oidc-provider"
    authentication = "client_secret_post"
    kind = "other"


class StrictOidcProvider(OidcProvider):
    """As the FAPI 2.0 Security Profile has it: clients sign (private_key_jwt), authorization requests are pushed (PAR), and tokens are bound to
    a key (DPoP), with proofs that carry a nonce: one of the server's, and another of the resource's. Refresh tokens rotate."""

    name = "strict-oidc-provider"
    authentication = "private_key_jwt"
    kind = "strict"
    wants_signatures = True
