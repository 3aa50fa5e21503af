"""Four honest callers in a process of their own: they ask the service from outside, and write down what they got.

    python -m tests.attacks.honest URL ROWS_FILE [--token TOKEN] [--callers 4] [--keeping 0] [--deadline SECONDS]
        [--pause SECONDS] [--source 127.0.1.]

Each line of the rows file is one request as JSON: when it began (``time.monotonic`` seconds, which all processes of a
machine share), how long it took, its status (0: no answer), and whether the answer was right. A row of kind
``predict`` is a prediction; ``live`` and ``ready`` are the health addresses, asked by a thread of their own each.
Runs until it is ended, and imports nothing of the app.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

SAMPLES = Path(__file__).resolve().parent.parent.parent / "models" / "samples"
HEALTH_PERIOD_SECONDS = 0.25
HEALTH_TIMEOUT_SECONDS = 2.0
# A deadline that the service keeps leaves it this long to say so.
GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """One request: ``began`` and ``seconds`` by time.monotonic; ``code``: the problem code or the network error."""

    kind: str
    began: float
    seconds: float
    status: int
    is_right: bool
    code: str = ""


@dataclass(frozen=True)
class Sample:
    """A sample picture, cut where a JPEG comment may stand, and the labels that are in it, sorted."""

    task: str
    head: bytes
    tail: bytes
    labels: tuple[str, ...]

    def unique(self, nonce: int) -> bytes:
        """The same pixels in bytes that no cache has seen (a comment segment: ITU T.81, B.2.4.5)."""
        text = b"%016x" % nonce
        return self.head + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + self.tail


def read_samples() -> list[Sample]:
    """The sample pictures of the model store with their true labels."""
    return [_read(each) for each in json.loads((SAMPLES / "index.json").read_text())]


def _read(entry: dict[str, Any]) -> Sample:
    data = (SAMPLES / entry["file"]).read_bytes()
    # JFIF wants to be first; the comment stands behind it.
    cut = 4 + int.from_bytes(data[4:6], "big") if 0xE0 <= data[3] <= 0xEF else 2
    labels = tuple(sorted(each["label"] for each in entry["objects"]))
    return Sample(entry["task"], data[:cut], data[cut:], labels)


@dataclass(frozen=True)
class Caller:
    """One client with an address of its own, a token and a deadline in seconds."""

    host: str
    port: int
    token: str
    deadline_seconds: float
    address: str
    tls: ssl.SSLContext | None = None
    # Where its connection is kept for the next request; None: each request has one of its own.
    kept: list[http.client.HTTPConnection] | None = None

    def predict(self, sample: Sample, nonce: int) -> Row:
        """Ask once about bytes that nobody has sent before; never raises for what the service does."""
        headers = {"Content-Type": "image/jpeg", "X-Request-Timeout": f"{self.deadline_seconds:g}"}
        if self.token:
            headers["X-Api-Token"] = self.token
        timeout = self.deadline_seconds + GRACE_SECONDS
        return self._ask(
            "predict", "POST", f"/v1/{sample.task}", sample.unique(nonce), headers, timeout, _labels_are(sample)
        )

    def health(self, kind: str) -> Row:
        """Ask /livez or /readyz once."""
        path = {"live": "/livez", "ready": "/readyz"}[kind]
        return self._ask(kind, "GET", path, None, {}, HEALTH_TIMEOUT_SECONDS, lambda answer: True)

    def _ask(
        self,
        kind: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout: float,
        is_right: Callable[[Any], bool],
    ) -> Row:
        began = time.monotonic()
        connection = self.kept.pop() if self.kept else self._connection(timeout)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Row(kind, began, time.monotonic() - began, 0, is_right=False, code=type(error).__name__)
        if self.kept is None or answer.will_close:
            connection.close()
        else:
            self.kept.append(connection)
        seconds = time.monotonic() - began
        if answer.status == 200:
            return Row(kind, began, seconds, 200, is_right=seconds <= timeout and is_right(_json(data)))
        problem = _json(data) or {}
        code = " ".join(problem[key] for key in ("code", "reason") if key in problem)
        return Row(kind, began, seconds, answer.status, is_right=False, code=code)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        place: dict[str, Any] = {"timeout": timeout, "source_address": (self.address, 0)}
        if self.tls:
            return http.client.HTTPSConnection(self.host, self.port, context=self.tls, **place)
        return http.client.HTTPConnection(self.host, self.port, **place)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _labels_are(sample: Sample) -> Callable[[Any], bool]:
    """Whether an answer names what is in the picture."""

    def is_right(answer: Any) -> bool:
        (result,) = answer["results"]
        if sample.task == "classify":
            return bool(result["predictions"][0]["label"] == sample.labels[0])
        return tuple(sorted(each["label"] for each in result["detections"])) == sample.labels

    return is_right


def call(given: argparse.Namespace, rows: TextIO) -> None:
    """Ask for ever, and write a row for each answer."""
    parts = urllib.parse.urlsplit(given.url)
    assert parts.hostname and parts.port
    token, deadline_seconds = given.token, given.deadline
    lock = threading.Lock()

    def write(row: Row) -> None:
        with lock:
            rows.write(json.dumps(asdict(row)) + "\n")
            rows.flush()

    def predict_for_ever(caller: Caller, samples: Iterator[Sample]) -> None:
        for sample in samples:
            write(caller.predict(sample, random.getrandbits(64)))
            time.sleep(given.pause)

    def look_for_ever(caller: Caller, kind: str) -> None:
        while True:
            write(caller.health(kind))
            time.sleep(HEALTH_PERIOD_SECONDS)

    samples, threads = read_samples(), []
    # Who answers is not in question here.
    tls = ssl._create_unverified_context() if parts.scheme == "https" else None  # noqa: S323
    for number in range(given.callers):
        kept: list[http.client.HTTPConnection] | None = [] if number < given.keeping else None
        caller = Caller(parts.hostname, parts.port, token, deadline_seconds, f"{given.source}{number + 1}", tls, kept)
        order = itertools.cycle(samples[number % len(samples) :] + samples[: number % len(samples)])
        threads.append(threading.Thread(target=predict_for_ever, args=(caller, order), daemon=True))
    prober = Caller(parts.hostname, parts.port, "", deadline_seconds, f"{given.source}250", tls)
    threads += [threading.Thread(target=look_for_ever, args=(prober, kind), daemon=True) for kind in ("live", "ready")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--token", default="")
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--keeping", type=int, default=0, help="how many of them keep their connection")
    parser.add_argument("--deadline", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--source", default="127.0.1.", help="how the addresses begin that they call from")
    given = parser.parse_args()
    with given.rows.open("a") as rows:
        call(given, rows)


if __name__ == "__main__":
    main()
