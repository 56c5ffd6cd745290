"""IB apps at instance two for clients under test, and Authlib's session for one."""

from dataclasses import dataclass
from itertools import count
from urllib.parse import parse_qs, urlsplit

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2 import rfc9207
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
import requests

from lib.world import World

# Nobody listens there: the browser of the tests stops at it.
CALLBACK = "https://client.example/callback"
NUMBERS = count(1)


def metadata(world: World) -> dict:
    """What two says of itself, found and checked as the library does it (RFC 8414)."""
    issuer = world.two.public_url
    document = requests.get(get_well_known_url(issuer, external=True), verify=world.trusted, timeout=20).json()
    AuthorizationServerMetadata(document).validate([rfc9207.AuthorizationServerMetadata])
    assert document["issuer"] == issuer, document["issuer"]
    return document


@dataclass
class Registered:
    """A client that two knows."""

    world: World
    name: str
    client_id: str
    secret: str | None
    scope: str
    endpoints: dict

    @classmethod
    def new(cls, world: World, *flags: str, redirect_uri: str | None = CALLBACK, scope: str = "p2pi reports") -> "Registered":
        """Registers a client, with further flags of `ib create`."""
        name = f"authlib-{next(NUMBERS)}"
        scopes = [flag for word in scope.split() for flag in ("--scope", word)]
        redirect = ["--redirect-uri", redirect_uri] if redirect_uri else []
        app = world.two.runs("ib", "create", name, *redirect, *scopes, *flags)
        return cls(world, name, app["client_id"], app.get("client_secret"), scope, metadata(world))

    @classmethod
    def itself(cls, world: World, *flags: str) -> "Registered":
        """Registers a client that acts for nobody else."""
        return cls.new(world, "--grant", "client_credentials", *flags, redirect_uri=None, scope="p2pi")

    def session(
        self, method: str = "client_secret_basic", secret: str | None = None, redirect_uri: str = CALLBACK, **more
    ) -> OAuth2Session:
        """The library's client, which authenticates in that way."""
        session = OAuth2Session(
            self.client_id,
            secret or self.secret,
            token_endpoint_auth_method=method,
            revocation_endpoint_auth_method=method,
            redirect_uri=redirect_uri,
            scope=self.scope,
            code_challenge_method="S256",
            token_endpoint=self.endpoints["token_endpoint"],
            default_timeout=20,
            **more,
        )
        session.trust_env = False
        session.verify = self.world.trusted
        return session

    def answered(self, session: OAuth2Session, verifier: str, decision: str = "allow", **more: str) -> str:
        """Goes to the authorization endpoint in a browser; gives the address that it was sent back to, whose issuer is right."""
        url, state = session.create_authorization_url(self.endpoints["authorization_endpoint"], code_verifier=verifier, **more)
        session.state = state
        location = self.world.decides(url, session.redirect_uri, decision)
        assert answer(location)["iss"] == self.endpoints["issuer"], location
        return location

    def linked(self, session: OAuth2Session, verifier: str = "v" * 64) -> dict:
        """The whole code flow; the session holds the tokens afterwards."""
        location = self.answered(session, verifier)
        return session.fetch_token(authorization_response=location, code_verifier=verifier)


def answer(location: str) -> dict[str, str]:
    """The parameters of an authorization answer; each is there once."""
    parameters = parse_qs(urlsplit(location).query, strict_parsing=True)
    assert all(len(values) == 1 for values in parameters.values()), location
    return {name: values[0] for name, values in parameters.items()}


def own_token(client: Registered, session: OAuth2Session) -> None:
    """A token of the client's own, which is good at the gateway; there is no refresh token beside it."""
    token = session.fetch_token()
    assert "refresh_token" not in token and token["token_type"] == "Bearer" and token["expires_in"] > 0, token.keys()
    called = session.get(f"{client.world.two.public_url}/p2pi/")
    assert called.status_code == 200, called.text
    assert called.json()["headers"]["p2pi-client"] == client.client_id, called.json()


def refused(ask, code: str) -> None:
    """Does what must be refused with that OAuth error."""
    try:
        ask()
    except OAuthError as error:
        assert error.error == code, f"{error.error}, expected {code}"
    else:
        raise AssertionError(f"it was not refused, expected {code}")
