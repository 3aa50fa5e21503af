"""Whether a certificate and a key can serve HTTPS together, and how a new pair comes into force. A leaf."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

# Below Apache's server root: a link to one file with both; read by apache/modules/mod_certificates.c. The other file
# holds the SHA-256 of the pair that serves, which Apache read at its start where there is no link.
LINK = "certificate"
SERVES = "certificate.sha256"
OPENSSL_SECONDS = 10.0


class Validity(NamedTuple):
    """From when until when a certificate is valid, in seconds since 1970."""

    begins: float
    ends: float


def pair_fault(certificate: Path, key: Path) -> str:
    """Why Apache could not use the two; empty when it could."""

    def refuse() -> str:
        raise ValueError(f"{key} has a password, for which Apache would ask at each start")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            return f"{key} is not the key of {certificate}"
        return f"{certificate} or {key} is no PEM file that can be used ({error.reason or 'nothing of the kind in it'})"
    except OSError as error:
        return f"{certificate} or {key} cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error)
    return ""


def validity(certificate: Path) -> Validity | None:
    """Of the first certificate in the file. None where there is none, or openssl, which knows, is not installed."""
    if shutil.which("openssl") is None:
        return None
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-dates"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=OPENSSL_SECONDS, check=False)
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    try:
        return Validity(*(float(ssl.cert_time_to_seconds(said[name])) for name in ("notBefore", "notAfter")))
    except (KeyError, ValueError):
        return None


def is_expired(certificate: Path) -> bool:
    """Whether it is of no use any more. False where nobody can tell."""
    found = validity(certificate)
    return found is not None and found.ends < time.time()


def read(certificate: Path, key: Path) -> bytes:
    """Both in one text, as Apache takes them. Raises OSError."""
    return certificate.read_bytes() + b"\n" + key.read_bytes()


def first(pair: bytes) -> bytes:
    """What a server that uses this pair shows, as DER. Raises ValueError."""
    text = pair.decode()
    begin, end = text.index(ssl.PEM_HEADER), text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(text[begin:end])


def is_serving(pair: bytes, server_root: Path) -> bool:
    """Whether this is the pair that was noted last, the whole chain and the key."""
    try:
        return (server_root / SERVES).read_text() == hashlib.sha256(pair).hexdigest()
    except OSError:
        return False


def note(pair: bytes, server_root: Path) -> None:
    """Remember which pair serves. Raises OSError."""
    new = server_root / f"{SERVES}.new"
    new.write_text(hashlib.sha256(pair).hexdigest())
    new.rename(server_root / SERVES)


def place(pair: bytes, server_root: Path) -> None:
    """Let each handshake from now on use a pair that was checked. Raises OSError."""
    link, made = server_root / LINK, server_root / f"{LINK}-{time.time_ns()}.pem"
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pair)
    before = link.resolve()
    new = server_root / f"{LINK}.new"
    new.unlink(missing_ok=True)
    new.symlink_to(made)
    new.rename(link)
    note(pair, server_root)
    # What served until now may be in the midst of being read.
    for old in server_root.glob(f"{LINK}-*.pem"):
        if old not in (made, before):
            old.unlink()


def shown(host: str, port: int, seconds: float) -> bytes:
    """The certificate that the server at this address shows, as DER. Raises OSError."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, port), timeout=seconds))
