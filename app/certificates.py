"""Whether a certificate and a key can serve HTTPS together. A leaf."""

from __future__ import annotations

import ssl
from pathlib import Path


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
