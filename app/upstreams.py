"""Other services of the same API, asked over HTTP: the addresses of the settings, and no others. No Flask."""

from __future__ import annotations

import http
import http.client
import json
import math
import ssl
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.errors import CaskError, DeadlineExceededError
from app.manifests import Task
from app.results import Answer, Box, Detection, answer_from_json

CONNECT_TIMEOUT_SECONDS = 1.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
# Open connections that wait for the next request, for each upstream and process.
MAX_IDLE = 8
# Says to an upstream that it is asked by an ensemble and must not ask others in turn.
HOP_HEADER = "X-Ensemble-Hop"
ROWS = {"classify": "predictions", "detect": "detections"}


class UpstreamError(CaskError):
    """Another service could not be asked, or refused, or answered what is no answer."""

    code = "upstream_failed"
    status = 502
    title = "Another service did not answer"

    def __init__(self, message: str, *, upstream_status: int = 0, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, hint="See its log, under the same request id.")
        self.upstream_status = upstream_status
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class UpstreamAnswer:
    """What a service said. ``results``: width and height in pixels of the upright image, and its answer."""

    model: dict[str, str]
    results: list[tuple[int, int, Answer]]


class Upstream:
    """One service. Thread-safe; keeps connections open between requests, follows no redirects."""

    def __init__(self, name: str, url: str, token: str = "", ca_file: Path | None = None) -> None:
        self.name = name
        self._url = urlsplit(url)
        self._token = token
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def predict(
        self, task: Task, images: Sequence[bytes], wishes: Mapping[str, Any], deadline: float, request_id: str
    ) -> UpstreamAnswer:
        """Ask for the same images. ``deadline``: a moment of ``time.monotonic``.

        Raises UpstreamError, DeadlineExceededError.
        """
        body, content_type = _form(images, wishes)
        headers = {
            "Content-Type": content_type,
            "Accept": "application/json",
            "X-Request-Id": request_id,
            # What is left, in whole milliseconds and never 0.
            "X-Request-Timeout": f"{max(0.001, deadline - time.monotonic()):.3f}",
            HOP_HEADER: "1",
            **({"X-Api-Token": self._token} if self._token else {}),
        }
        status, retry_after, answer = self._exchange(f"/v1/{task}", body, headers, deadline)
        if status == http.HTTPStatus.GATEWAY_TIMEOUT:
            # It was told how much time is left, and may be the first to see that it is over.
            raise _late(self.name)
        if status != http.HTTPStatus.OK:
            raise _refused(self.name, status, retry_after, answer)
        return _read(self.name, task, len(images), answer)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _exchange(
        self, path: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> tuple[int, str | None, bytes]:
        """Status, Retry-After and body. A connection that the other side has closed meanwhile is tried anew."""
        while True:
            connection, is_fresh = self._borrow(deadline)
            try:
                _limit(connection, deadline)
                connection.request("POST", path, body, dict(headers))
                _limit(connection, deadline)
                response = connection.getresponse()
                answer = _read_all(connection, response, deadline)
            except TimeoutError:
                connection.close()
                raise _late(self.name) from None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if is_fresh or not _is_stale(error):
                    raise UpstreamError(f"{self.name} cannot be asked: {_words(error)}.") from None
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
            raise _late(self.name)
        host = self._url.hostname or ""
        connection: http.client.HTTPConnection
        if self._url.scheme == "https":
            connection = http.client.HTTPSConnection(host, self._url.port, timeout=seconds, context=self._trust())
        else:
            connection = http.client.HTTPConnection(host, self._url.port, timeout=seconds)
        try:
            connection.connect()
        except TimeoutError:
            raise UpstreamError(f"{self.name} cannot be reached within {seconds:.1f} s.") from None
        except OSError as error:
            raise UpstreamError(f"{self.name} cannot be reached: {_words(error)}.") from None
        return connection, True

    def _trust(self) -> ssl.SSLContext:
        """Whom we believe. Raises UpstreamError, as the file may have gone since the start, or be for others' eyes."""
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                said = f"{self.name} cannot be asked: {self._ca_file} cannot be used: {_words(error)}."
                raise UpstreamError(said) from None
        return self._tls

    def _give_back(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        with self._lock:
            if not response.will_close and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()


def _limit(connection: http.client.HTTPConnection, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.sock.settimeout(left)


def _read_all(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, as far as deadline and size allow."""
    chunks: list[bytes] = []
    size = 0
    while True:
        if connection.sock is not None:
            _limit(connection, deadline)
        chunk = response.read1(CHUNK_BYTES)
        if not chunk:
            # Else the connection believes that more is to come (read1 of http.client says nothing at the end).
            response.close()
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"more than {MAX_ANSWER_BYTES} bytes")


def _form(images: Sequence[bytes], wishes: Mapping[str, Any]) -> tuple[bytes, str]:
    """multipart/form-data (RFC 7578) with the images and the options beside them."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in wishes.items():
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for number, image in enumerate(images):
        head = f'Content-Disposition: form-data; name="image"; filename="{number}"\r\nContent-Type: image/*\r\n\r\n'
        parts += [f"--{boundary}\r\n{head}".encode(), image, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _read(name: str, task: Task, count: int, body: bytes) -> UpstreamAnswer:
    try:
        document = json.loads(body)
        model = {key: str(document["model"][key]) for key in ("name", "version", "digest")}
        results = [
            (_number(row["width"], int), _number(row["height"], int), answer_from_json(task, row[ROWS[task]]))
            for row in document["results"]
        ]
        for _, _, answer in results:
            for row in answer:
                _check(row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UpstreamError(f"{name} answered what is no answer of this API.") from None
    if len(results) != count:
        raise UpstreamError(f"{name} answered {len(results)} images of {count}.")
    return UpstreamAnswer(model, results)


def _check(row: Any) -> None:
    if not isinstance(row.label, str):
        raise TypeError(row.label)
    box = row.box if isinstance(row, Detection) else Box(0, 0, 0, 0)
    for value in (row.score, box.x_min, box.y_min, box.x_max, box.y_max):
        _number(value, int | float)


def _number(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(value)
    return value


def _refused(name: str, status: int, retry_after: str | None, body: bytes) -> UpstreamError:
    """What it said, in its words where they are a problem document (RFC 9457)."""
    try:
        said = str(json.loads(body)["detail"])[:200]
    except (ValueError, TypeError, KeyError, RecursionError):
        said = "it did not say why"
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() and len(retry_after) < 6 else None
    return UpstreamError(f"{name} answered {status}: {said}", upstream_status=status, retry_after_seconds=seconds)


def _late(name: str) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"{name} did not answer in time.", hint="Allow more time with member_timeout, or leave it out with members."
    )


def _is_stale(error: Exception) -> bool:
    """Whether the other side had only closed a connection that it was tired of; asking twice does no harm."""
    return isinstance(error, ConnectionError | ssl.SSLEOFError)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
