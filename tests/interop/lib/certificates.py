"""Certificates of clients: what an authority signed that the instances believe, and what nobody signed.

In the folder `certificates` each has NAME.pem and NAME.key:
- `shop` and `other` are signed by the authority, with these as common names
- `stranger` says that it is the shop, by an authority that nobody believes
- `own` and `another` are self-signed
"""

import subprocess
from pathlib import Path

NEW = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
CLIENT = ["-addext", "extendedKeyUsage=clientAuth", "-addext", "basicConstraints=critical,CA:FALSE"]
SIGNED = {"shop": ("authority", "shop"), "other": ("authority", "other"), "stranger": ("nobody", "shop")}


def made(world: Path) -> Path:
    """Makes them all; gives the certificate of the authority."""
    folder = world / "certificates"
    folder.mkdir()
    for authority in ("authority", "nobody"):
        _openssl(folder, authority, "clients", ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign"])
    for name, (authority, says) in SIGNED.items():
        signer = ["-CA", f"{folder}/{authority}.pem", "-CAkey", f"{folder}/{authority}.key"]
        _openssl(folder, name, says, [*CLIENT, *signer])
    for name in ("own", "another"):
        _openssl(folder, name, "shop", CLIENT)
    return folder / "authority.pem"


def _openssl(folder: Path, name: str, says: str, how: list[str]) -> None:
    files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
    subprocess.run([*NEW, "-subj", f"/CN={says}", *how, *files], check=True, capture_output=True)
