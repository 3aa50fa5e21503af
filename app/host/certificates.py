"""Whether a certificate and a key can serve HTTPS together, and how a new pair comes into force. A leaf."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path

# Below Apache's server root: a link to one file with both; read by apache/modules/mod_certificates.c.
LINK = "certificate"
OPENSSL_SECONDS = 10.0


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


def is_expired(certificate: Path) -> bool:
    """Whether it is of no use any more. False where openssl, which knows, is not installed."""
    if shutil.which("openssl") is None:
        return False
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-checkend", "0"]
    return bool(subprocess.run(command, capture_output=True, timeout=OPENSSL_SECONDS, check=False).returncode)


def first(certificate: Path) -> bytes:
    """What a server that uses this file shows, as DER. Raises OSError, ValueError."""
    text = certificate.read_text()
    begin, end = text.index(ssl.PEM_HEADER), text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(text[begin:end])


def place(certificate: Path, key: Path, server_root: Path) -> None:
    """Let each handshake from now on use a pair that was checked. Raises OSError."""
    link, made = server_root / LINK, server_root / f"{LINK}-{time.time_ns()}.pem"
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(certificate.read_bytes() + b"\n" + key.read_bytes())
    before = link.resolve()
    new = server_root / f"{LINK}.new"
    new.unlink(missing_ok=True)
    new.symlink_to(made)
    new.rename(link)
    # What served until now may be in the midst of being read.
    for old in server_root.glob(f"{LINK}-*.pem"):
        if old not in (made, before):
            old.unlink()
