"""Other services of the same API, asked over HTTP: the addresses of the settings, and no others. No Flask."""

from __future__ import annotations

import http
import http.client
import math
import ssl
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.ensembles import upstream_answers
from app.ensembles.upstream_answers import Opinion, UpstreamError
from app.errors import DeadlineExceededError
from app.host import time_limit
from app.models.manifests import Task
from app.storage.circuit_breaker import CircuitBreaker
from app.texts import Text

CONNECT_TIMEOUT_SECONDS = 1.0
# So many in a row that could not be asked, or did not answer in time: it is left alone for so long.
FAILURES = 3
PAUSE_SECONDS = 5.0
# A caller who gives less time than this says nothing of the service by being left without an answer.
FAIR_SECONDS = 1.0
# Of an answer.
CHUNK_BYTES = 16 * 1024
# Open connections that wait for the next request, for each upstream and process.
MAX_IDLE = 8
# Says to an upstream that it is asked by an ensemble and must not ask others in turn.
HOP_HEADER = "X-Ensemble-Hop"


class Upstream:
    """One service. Thread-safe; keeps connections open between requests, follows no redirects."""

    def __init__(self, name: str, url: str, token: str = "", ca_file: Path | None = None) -> None:
        self.name = name
        self._url = urlsplit(url)
        self._token = token
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._breaker = CircuitBreaker(f"upstream {name}", failures=FAILURES, pause_seconds=PAUSE_SECONDS)
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def predict(
        self, task: Task, images: Sequence[bytes], params: Mapping[str, Any], deadline: float, request_id: str
    ) -> Opinion:
        """Ask for the same images, unless it was away a moment ago. ``deadline``: a moment of ``time.monotonic``.

        Raises UpstreamError, DeadlineExceededError.
        """
        if not self._breaker.allows():
            raise _away(self.name, self._breaker.rest_seconds)
        body, content_type = _form(images, params)
        headers = {
            "Content-Type": content_type,
            "Accept": "application/json",
            "X-Request-Id": request_id,
            # What is left, in whole milliseconds and never 0.
            "X-Request-Timeout": f"{max(0.001, deadline - time.monotonic()):.3f}",
            HOP_HEADER: "1",
            **({"X-Api-Token": self._token} if self._token else {}),
        }
        most = upstream_answers.most_bytes(len(images), params)
        given_seconds = deadline - time.monotonic()
        try:
            status, retry_after, answer = self._exchange(f"/v1/{task}", body, headers, deadline, most)
        except (UpstreamError, DeadlineExceededError) as error:
            if given_seconds >= FAIR_SECONDS:
                self._breaker.note_failure(error)
            raise
        self._breaker.note_success()
        if status == http.HTTPStatus.GATEWAY_TIMEOUT:
            # It was told how much time is left, and may be the first to see that it is over.
            raise late(self.name)
        if status != http.HTTPStatus.OK:
            raise upstream_answers.refused(self.name, status, retry_after, answer)
        return upstream_answers.read(self.name, task, len(images), answer)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _exchange(
        self, path: str, body: bytes, headers: Mapping[str, str], deadline: float, most_bytes: int
    ) -> tuple[int, str | None, bytes]:
        """Status, Retry-After and body. A connection that the other side has closed meanwhile is tried anew."""
        while True:
            connection, is_fresh = self._borrow(deadline)
            try:
                with time_limit.ending(connection.sock, max(0.0, deadline - time.monotonic())):
                    connection.request("POST", path, body, headers)
                    response = connection.getresponse()
                    answer = _read_all(response, most_bytes)
            except TimeoutError:
                connection.close()
                raise late(self.name) from None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # Else the other side had only closed a connection that it was tired of; asking twice does no harm.
                if is_fresh or not isinstance(error, ConnectionError | ssl.SSLEOFError):
                    raise UpstreamError(
                        "%(name)s cannot be asked: %(reason)s.", name=self.name, reason=_words(error)
                    ) from None
                self.close()
            except BaseException:
                connection.close()
                raise
            else:
                self._give_back(connection, response)
                return response.status, response.headers.get("Retry-After"), answer

    def _borrow(self, deadline: float) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        seconds = min(CONNECT_TIMEOUT_SECONDS, deadline - time.monotonic())
        if seconds <= 0:
            raise late(self.name)
        host = self._url.hostname or ""
        connection: http.client.HTTPConnection
        if self._url.scheme == "https":
            connection = http.client.HTTPSConnection(host, self._url.port, timeout=seconds, context=self._trust())
        else:
            connection = http.client.HTTPConnection(host, self._url.port, timeout=seconds)
        try:
            connection.connect()
            # From here on the limit is that of all of it.
            connection.sock.settimeout(None)
        except TimeoutError:
            raise UpstreamError(
                "%(name)s cannot be reached within %(seconds).1f s.", name=self.name, seconds=seconds
            ) from None
        except OSError as error:
            raise UpstreamError(
                "%(name)s cannot be reached: %(reason)s.", name=self.name, reason=_words(error)
            ) from None
        return connection, True

    def _trust(self) -> ssl.SSLContext:
        """The trusted certificates. Raises UpstreamError: the file may be gone since the start, or be unreadable."""
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                said = Text(
                    "%(name)s cannot be asked: %(file)s cannot be used: %(reason)s.",
                    name=self.name,
                    file=self._ca_file,
                    reason=_words(error),
                )
                raise UpstreamError(said) from None
        return self._tls

    def _give_back(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        with self._lock:
            if not response.will_close and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()


def _read_all(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    """The body, if it is no longer than that."""
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise http.client.HTTPException(f"more than {most_bytes} bytes")
    # Else the connection believes that more is to come (read1 of http.client says nothing at the end).
    response.close()
    return b"".join(chunks)


def _form(images: Sequence[bytes], params: Mapping[str, Any]) -> tuple[bytes, str]:
    """multipart/form-data (RFC 7578) with the images and the options beside them."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in params.items():
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for number, image in enumerate(images):
        head = f'Content-Disposition: form-data; name="image"; filename="{number}"\r\nContent-Type: image/*\r\n\r\n'
        parts += [f"--{boundary}\r\n{head}".encode(), image, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _away(name: str, rest_seconds: float) -> UpstreamError:
    return UpstreamError(
        "%(name)s has not answered of late, and is asked again in %(seconds)s s.",
        upstream_status=http.HTTPStatus.SERVICE_UNAVAILABLE,
        retry_after_seconds=rest_seconds,
        name=name,
        seconds=math.ceil(rest_seconds),
    )


def late(name: str) -> DeadlineExceededError:
    """The error of a member that had no more time."""
    return DeadlineExceededError(
        "%(name)s did not answer in time.",
        hint="Allow more time with member_timeout, or leave it out with members.",
        name=name,
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
