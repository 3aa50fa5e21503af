"""Takes a renewed certificate into force by itself: the files are looked at, and each handshake after that uses them.

What cannot serve is refused with one line, and the pair before it serves on.
"""

from __future__ import annotations

import logging
import os
import time

from app.config import Settings
from app.host import certificates
from app.host.certificates import Validity
from app.storage import file_locks
from app.supervision import probe
from app.supervision.reload_requests import LOCK
from app.supervision.supervisor import watch

log = logging.getLogger("cask.ops")

PERIOD_SECONDS = 2.0
HANDSHAKE_SECONDS = 5.0
# Certbot and others replace one file after the other: what does not fit together is looked at again, then refused.
LOOKS_BEFORE_REFUSAL = 2


class CertificateRenewals:
    """Compares the files of TLS_CERTIFICATE and TLS_KEY with what serves, every two seconds.

    By content, so that renamed files, moved links and changed mounts are seen alike.
    """

    def __init__(self, settings: Settings) -> None:
        """For a service with HTTPS."""
        assert settings.tls_certificate is not None
        assert settings.tls_key is not None
        self._certificate, self._key = settings.tls_certificate, settings.tls_key
        self._server_root = settings.state_dir / "run" / "httpd"
        self._address = (probe.here(settings.listen_host), settings.https_port)
        self._fault, self._looks, self._pair = "", 0, b""
        link = self._server_root / certificates.LINK
        self.validity: Validity | None = certificates.validity(link) if link.exists() else None
        """Of the certificate that serves; None where it is not known."""

    @property
    def is_refused(self) -> bool:
        """Whether the files hold a pair that cannot serve."""
        return self._looks >= LOOKS_BEFORE_REFUSAL

    def start(self) -> None:
        """Look in a thread until the process ends."""
        watch(self.look, PERIOD_SECONDS, "certificates")

    def look(self) -> None:
        """Put a changed pair in force, or refuse it. Raises OSError where STATE_DIR cannot be written."""
        try:
            pair = certificates.read(self._certificate, self._key)
        except OSError as error:
            self._refuse(f"{error.filename} cannot be read ({error.strerror}) by user {os.getuid()}, who serves")
            return
        if certificates.is_serving(pair, self._server_root):
            self._serves(pair)
            return
        fault = certificates.pair_fault(self._certificate, self._key) or self._date_fault()
        if fault:
            self._refuse(fault)
        elif pair == certificates.read(self._certificate, self._key):
            self._put_in_force(pair)

    def _date_fault(self) -> str:
        found = certificates.validity(self._certificate)
        if found is not None and found.ends < time.time():
            return f"{self._certificate} has expired"
        if found is not None and found.begins > time.time():
            return f"{self._certificate} is not valid yet"
        return ""

    def _put_in_force(self, pair: bytes) -> None:
        """Not while `make reload` runs, which does the same."""
        lock = file_locks.take(self._server_root / LOCK)
        if lock is None:
            return
        try:
            certificates.place(pair, self._server_root)
        finally:
            os.close(lock)
        self._serves(pair)
        until = time.strftime(" until %Y-%m-%d", time.gmtime(self.validity.ends)) if self.validity else ""
        log.warning("the renewed certificate in %s serves%s%s", self._certificate, until, self._doubt(pair))

    def _serves(self, pair: bytes) -> None:
        self._fault, self._looks = "", 0
        if pair != self._pair:
            self._pair, self.validity = pair, certificates.validity(self._certificate)

    def _doubt(self, pair: bytes) -> str:
        """What a handshake says against it; empty when all is well."""
        try:
            is_shown = certificates.shown(*self._address, HANDSHAKE_SECONDS) == certificates.first(pair)
        except OSError as error:
            return f", but a handshake with port {self._address[1]} failed: {error}"
        return "" if is_shown else f", but port {self._address[1]} shows another one"

    def _refuse(self, fault: str) -> None:
        self._looks = self._looks + 1 if fault == self._fault else 1
        self._fault = fault
        if self._looks == LOOKS_BEFORE_REFUSAL:
            log.error("the renewed certificate is refused, the one before it serves on: %s", fault)
