"""An authority of one's own for tests, and the certificates that it signs: made by openssl, valid for two days."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates. ``certificate``: the file by which others trust it."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        subject = ("-subj", f"/CN={name} for tests")
        _openssl("req", "-x509", *NEW_KEY, "-days", "2", *subject, "-keyout", self._key, "-out", self.certificate)
        _open_to_all(self.certificate, self._key)

    def sign(self, name: str) -> Pair:
        """A new pair for one DNS name."""
        made = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        extension = ("-addext", f"subjectAltName=DNS:{name}")
        _openssl("req", *NEW_KEY, "-subj", f"/CN={name}", *extension, "-keyout", made.key, "-out", request)
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl(
            "x509", "-req", "-in", request, "-days", "2", *signer, "-copy_extensions", "copy", "-out", made.certificate
        )
        _open_to_all(made.certificate, made.key)
        return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _open_to_all(*paths: Path) -> None:
    # Who serves is another user than who tests.
    for path in paths:
        path.chmod(0o644)
