"""Key pairs for clients under test, where their public halves are, and the library's sessions that sign with them."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Iterator

from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey, OKPKey, RSAKey

from clients.with_authlib.registered import Registered
from lib.world import World

Key = ECKey | OKPKey | RSAKey
KEYS: dict[str, Key] = {
    "EdDSA": OKPKey.generate_key("Ed25519"),
    "ES256": ECKey.generate_key("P-256"),
    "PS256": RSAKey.generate_key(2048),
}
FILES = count(1)


def public(key: Key, algorithm: str, name: str | None = None) -> dict:
    """The public half, as a JSON Web Key."""
    return {**key.as_dict(private=False), "alg": algorithm, "use": "sig", **({"kid": name} if name else {})}


def key_set(world: World, *keys: dict) -> str:
    """A file for `--jwks`."""
    file = world.folder / f"authlib-{next(FILES)}.jwks"
    file.write_text(json.dumps({"keys": keys}))
    return str(file)


def signing(client: Registered, key: Key, algorithm: str, name: str | None = None) -> OAuth2Session:
    """The library's client, which signs for two."""
    headers = {"kid": name} if name else None
    return signed_by(client, key, PrivateKeyJWT(client.world.two.public_url, headers=headers, alg=algorithm))


def signed_by(client: Registered, key: Key, method: PrivateKeyJWT) -> OAuth2Session:
    """The library's client, which authenticates with `method`."""
    session = client.session("private_key_jwt", secret=key)
    session.register_client_auth_method(method)
    return session


class Shop:
    """A place that shows one key, and counts who looks."""

    def __init__(self, shown: dict):
        self.shown = shown
        self.looks = 0
        self.url = ""


@contextmanager
def published(shown: dict) -> Iterator[Shop]:
    """Shows a key at a URL."""
    shop = Shop(shown)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shop.looks += 1
            document = json.dumps({"keys": [shop.shown]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shop.url = f"http://127.0.0.1:{server.server_address[1]}/jwks"
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
