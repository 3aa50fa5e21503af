"""The running service, asked over HTTP as a caller would: where it is, and another try after 503."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import urllib3

from app import config
from app.auth import stores
from app.auth.tokens import FILE_NAME
from app.cli.terminal import Failure
from app.config import Settings
from app.errors import StateUnusableError
from app.host import permissions
from app.supervision import probe

TIMEOUT_SECONDS = 60.0
# So long is asked again when the service says 503 or 429, each time after what Retry-After says.
PATIENCE_SECONDS = 60.0
LEAST_PAUSE_SECONDS = 0.1
AGAIN = (429, 503)
# As many images may be on their way at once.
MOST_CONNECTIONS = 64
# Longer than a folder takes; it is gone when the command ends.
OWN_TOKEN_SECONDS = 86400.0


@dataclass(frozen=True)
class Reply:
    """One answer. ``document``: its JSON; empty where it is none."""

    status: int
    document: Any

    @property
    def problem(self) -> str:
        """What a problem document says, in one line: code, what happened, what to do."""
        said = self.document if isinstance(self.document, dict) else {}
        words = " ".join(filter(None, (said.get("detail"), said.get("hint"))))
        return f"{said.get('code', self.status)}: {words}" if words else f"The service answered {self.status}."


@dataclass
class Service:
    """Where to ask. Thread-safe; keeps connections open.

    ``host``: the name that the service answers to, where it is not that of the address.
    """

    url: str
    host: str = ""
    token: str = ""
    tls: ssl.SSLContext | None = None

    def ask(self, path: str, body: bytes | None = None, *, patience_seconds: float = PATIENCE_SECONDS) -> Reply:
        """GET, or POST bytes of an image; asks again while the service says that it is busy or away.

        Raises Failure when nothing answers.
        """
        end = time.monotonic() + patience_seconds
        while True:
            answer = self._exchange(path, body)
            pause = _pause(answer.headers.get("Retry-After"))
            if answer.status not in AGAIN or time.monotonic() + pause > end:
                return Reply(answer.status, _parse(answer.data))
            time.sleep(pause)

    def text(self, path: str) -> str:
        """GET of something that is no JSON, as it is. Raises Failure when nothing answers."""
        return self._exchange(path, None).data.decode("utf-8", "replace")

    def _exchange(self, path: str, body: bytes | None) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json"}
        if self.host:
            headers["Host"] = self.host
        if body is not None:
            # No image begins so.
            headers["Content-Type"] = "application/json" if body[:1] == b"{" else "application/octet-stream"
        if self.token:
            headers["X-Api-Token"] = self.token
        try:
            return self._pool.request("GET" if body is None else "POST", self.url + path, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise Failure(
                f"Nothing answers at {self.url} ({_reason(error)}).",
                next_step="Start it with make serve or make up; what is wrong, flask doctor tells.",
            ) from None

    @functools.cached_property
    def _pool(self) -> urllib3.PoolManager:
        # A kept connection may have been closed by the other side meanwhile: then it is asked once more.
        once_more = urllib3.Retry(1, connect=0, redirect=False, allowed_methods=None, respect_retry_after_header=False)
        return urllib3.PoolManager(
            maxsize=MOST_CONNECTIONS,
            timeout=TIMEOUT_SECONDS,
            retries=once_more,
            ssl_context=self.tls,
            assert_hostname=None if self.tls is None else self.tls.check_hostname,
        )


@contextlib.contextmanager
def own_token(settings: Settings, scopes: tuple[str, ...] = ("predict",)) -> Iterator[str]:
    """A token of this command's own while it works, where tokens are asked for and their store may be written.

    Empty otherwise; the service then says what it needs.
    """
    is_closed = settings.state_store == "disk" and not os.access(settings.state_dir / FILE_NAME, os.W_OK)
    if settings.authentication == "off" or is_closed:
        yield ""
        return
    permissions.become_owner(settings.state_dir)
    store = stores.store(settings)
    try:
        token, text = store.create("flask", scopes, lifetime_seconds=OWN_TOKEN_SECONDS, is_internal=True)
    except StateUnusableError:
        yield ""
        return
    try:
        yield text
    finally:
        with contextlib.suppress(StateUnusableError):
            store.discard(token)
        store.close()


def local(settings: Settings, token: str = "") -> Service:
    """The service of these settings, on this machine."""
    base, name = config.in_url(probe.here(settings.listen_host)), config.in_url(settings.server_name)
    if not settings.tls_enabled:
        return Service(f"http://{base}:{settings.port}", f"{name}:{settings.port}", token)
    # It is this very machine's own certificate, so nobody else needs to vouch for it, and any name in it will do.
    tls = ssl.create_default_context(cafile=str(settings.tls_certificate))
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    tls.check_hostname = False
    return Service(f"https://{base}:{settings.https_port}", f"{name}:{settings.https_port}", token, tls)


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """What the system says of it, else what the library does."""
    found = getattr(error, "reason", None) or error
    return getattr(found.__cause__, "strerror", None) or str(found)


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return {}


def _pause(retry_after: str | None) -> float:
    return max(LEAST_PAUSE_SECONDS, float(retry_after)) if retry_after and retry_after.isdigit() else 1.0
