"""Tells a caller's own server of a job's end: signed, to allowed hosts only, again and again until it has heard.

Form and signature are those of Standard Webhooks (version 1): HMAC-SHA256 over id, moment and body.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import http.client
import json
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from app.config import Settings
from app.errors import OptionError
from app.host import time_limit
from app.jobs.jobs import Job, row
from app.jobs.store import LONGEST_WEBHOOK_PAUSE_SECONDS, JobStore, receiver
from app.supervision import pulse
from app.telemetry import metrics

log = logging.getLogger("cask.jobs")

MAX_URL_CHARACTERS = 2000
# For a whole message: a receiver that sends a byte now and then is no better than one that is silent.
TIMEOUT_SECONDS = 10.0
RECEIVERS_AT_ONCE = 8
# What is waited before each further try; after the last the message is given up.
PAUSES_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, LONGEST_WEBHOOK_PAUSE_SECONDS)
SECRET_PREFIX = "whsec_"  # noqa: S105 - of Standard Webhooks, before base64
DEFAULT_PORTS = {"http": 80, "https": 443}
# A refusal is logged and shown to others: what a caller keeps secret does not stand there.
USER = re.compile(r"//[^/]*@")


@dataclass(frozen=True)
class Message:
    """One message as it is sent. ``status``: of the answer; raises OSError where there is none."""

    url: str
    body: bytes
    headers: dict[str, str]


Send = Callable[[Message], int]


def check(url: str, hosts: tuple[str, ...]) -> None:
    """Whether a job's end may be told there. Raises OptionError.

    ``hosts``: as in JOBS_WEBHOOK_HOSTS; without a port only those of http and https are meant.
    """
    allowed = ", ".join(hosts) or "none; ask the operator of this service"
    try:
        parts = urlsplit(url)
        place = _place(parts)
    except ValueError:
        parts, place = SplitResult("", "", "", "", ""), ""
    is_url = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL_CHARACTERS
    if not is_url or not place or parts.username is not None or parts.password is not None or parts.fragment:
        raise OptionError(
            "webhook_url is %(value)s.",
            hint="An address such as https://example.com/hook, without user or fragment.",
            value=ascii(USER.sub("//[hidden]@", url)[:80]),
        )
    is_default_port = parts.port in (None, DEFAULT_PORTS[parts.scheme])
    if place not in hosts and not (is_default_port and parts.hostname in hosts):
        raise OptionError(
            "webhook_url leads to %(host)s.",
            hint="Allowed hosts: %(names)s.",
            host=ascii(place[:80]),
            names=allowed,
        )


def sign(secret: str, message_id: str, moment: int, body: bytes) -> str:
    """The header webhook-signature. ``secret``: any text, or ``whsec_`` and base64."""
    key = secret.encode()
    if secret.startswith(SECRET_PREFIX):
        # Somebody's secret may begin so by chance.
        with contextlib.suppress(binascii.Error):
            key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    signed = b".".join((message_id.encode(), str(moment).encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Messenger:
    """Sends what is due, in threads that end when nothing is; to one receiver one message at a time.

    So a receiver that is slow holds up neither images nor the messages to others.
    """

    def __init__(
        self, store: JobStore, settings: Settings, *, send: Send | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._hosts = settings.jobs_webhook_hosts
        self._secret = settings.jobs_webhook_secret.get_secret_value()
        self._send = send or post
        self._clock = clock
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._busy: set[str] = set()

    def look(self) -> None:
        """Start a thread when something is due. Called again and again by its owner. Raises StateUnusableError."""
        with self._lock:
            is_full = len(self._threads) >= RECEIVERS_AT_ONCE
        if not is_full and self._store.has_due_webhook:
            thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
            with self._lock:
                self._threads.add(thread)
            thread.start()

    def step(self) -> bool:
        """Send one message. False when none is due to a receiver that is free. Raises StateUnusableError."""
        with self._lock:
            due = self._store.due_webhook(self._busy)
            if due is None:
                return False
            place = receiver(due[1])
            self._busy.add(place)
        try:
            self._deliver(*due)
        finally:
            with self._lock:
                self._busy.discard(place)
        return True

    def _deliver(self, job: Job, url: str, attempts: int) -> None:
        error = self._try(job, url)
        if not error:
            self._store.note_webhook(job.id, attempts=attempts + 1, error="", next_at=None)
            metrics.JOB_WEBHOOKS.add(outcome="sent")
            return
        metrics.JOB_WEBHOOKS.add(outcome="failed")
        pause = PAUSES_SECONDS[attempts] if attempts < len(PAUSES_SECONDS) else None
        next_at = None if pause is None else self._clock() + pause
        self._store.note_webhook(job.id, attempts=attempts + 1, error=error, next_at=next_at)
        what_now = "it is given up" if pause is None else f"again in {pause:g} s"
        log.warning("job %s: the webhook could not be called (%s); %s", job.id, error, what_now)

    def _try(self, job: Job, url: str) -> str:
        """Why it failed; empty when it was heard."""
        try:
            # The list may be shorter than when the job was taken.
            check(url, self._hosts)
            status = self._send(self._message(job, url))
        except OptionError as error:
            return error.message
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        return "" if 200 <= status < 300 else f"it answered {status}"

    def _message(self, job: Job, url: str) -> Message:
        moment = int(self._clock())
        # Not its state, which may be expired by now.
        outcome = "failed" if job.failed == job.total else "succeeded"
        body = json.dumps({"type": f"job.{outcome}", "data": row(job)}, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "cask",
            # The same with each try, so that a receiver knows what it has heard already.
            "webhook-id": f"{job.id}.{round((job.ended_at or 0.0) * 1000)}",
            "webhook-timestamp": str(moment),
        }
        headers["webhook-signature"] = sign(self._secret, headers["webhook-id"], moment, body)
        return Message(url, body, headers)

    def _run(self) -> None:
        try:
            while self.step():
                pulse.begin()
        except Exception:
            log.exception("sending webhooks of jobs failed; will retry")
        finally:
            self._store.close()
            with self._lock:
                self._threads.discard(threading.current_thread())


def post(message: Message, timeout_seconds: float = TIMEOUT_SECONDS) -> int:
    """Send it; follows no redirect and asks no proxy. Raises OSError, HTTPException."""
    parts = urlsplit(message.url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(host, port)
    with contextlib.ExitStack() as stack:
        stack.callback(connection.close)
        plain = stack.enter_context(socket.create_connection((host, port), timeout_seconds))
        stack.enter_context(time_limit.ending(plain, timeout_seconds))
        connection.sock = plain
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        connection.request("POST", path, message.body, {"Host": parts.netloc, **message.headers})
        return connection.getresponse().status


def _place(parts: SplitResult) -> str:
    """Host and port as JOBS_WEBHOOK_HOSTS names them; empty for what is no address. Raises ValueError."""
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return ""
    return parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
