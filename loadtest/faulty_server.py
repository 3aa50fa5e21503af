"""A server with faults one can order: slots, stalls, wrong and swapped answers. For the self-test and the tests.

    python -m loadtest.faulty_server --port 0 --slots 4 --service-ms 10 --stall-every 10 --stall-seconds 2

Prints its port as the first line. Speaks just enough of the service's API to be loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

LENGTH = re.compile(rb"content-length: *(\d+)", re.I)
REQUEST_ID = re.compile(rb"x-request-id: *([\w-]+)", re.I)
LABELS = ("barrier", "cone", "helmet", "sign", "vest")
DIGEST = "sha256:" + "f" * 64
# What tells pictures apart: the end of the file, which no comment changes.
TAIL_BYTES = 48
NOTHING_ELSE = b'{"title":"There is nothing here"}'


@dataclass
class Faults:
    """What this server does to its callers. ``env``: what it says it is; ``leak_bytes`` grow its memory a request."""

    slots: int = 4
    service_ms: float = 10.0
    stall_every: float = 0.0
    stall_seconds: float = 0.0
    wrong_every: int = 0
    score_error_every: int = 0
    swap_every: int = 0
    fail_every: int = 0
    leak_bytes: int = 0
    refuse_beyond: int = 0
    redirect_to: str = ""
    env: str = "test"


@dataclass
class State:
    """What the server remembers."""

    faults: Faults
    answered: int = 0
    arrived: int = 0
    free: int = 0
    waiting: deque[tuple[Connection, bytes, str]] = field(default_factory=deque)
    before: tuple[bytes, bytes] = (b"", b"")
    leaked: list[bytes] = field(default_factory=list)
    planted: int = 0
    began: float = field(default_factory=time.monotonic)

    def stalled_for(self) -> float:
        """Seconds until the present stall ends; 0 outside of one."""
        if not self.faults.stall_every:
            return 0.0
        inside = (time.monotonic() - self.began) % self.faults.stall_every
        # The stall comes last, so that questions at rest are answered at once.
        return max(0.0, self.faults.stall_every - inside) if inside > self._stall_begins else 0.0

    @property
    def _stall_begins(self) -> float:
        return self.faults.stall_every - self.faults.stall_seconds


class Connection(asyncio.Protocol):
    """One caller's connection: requests one after another."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Wait for a whole request, then take it."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        wanted = int(length[1]) if length else 0
        if found and len(body) >= wanted:
            self._data = b""
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        self._state.arrived += 1
        if method == b"GET":
            self.answer(*_fixed(path.decode(), self._state))
            return
        match = REQUEST_ID.search(head)
        request_id = match[1].decode() if match else "none"
        faults = self._state.faults
        if faults.redirect_to:
            self.answer(302, b"", f"Location: {faults.redirect_to}\r\n")
        elif faults.refuse_beyond and len(self._state.waiting) >= faults.refuse_beyond:
            self.answer(503, NOTHING_ELSE, "Retry-After: 1\r\n")
        elif self._state.free > 0:
            self._state.free -= 1
            self._begin(body, request_id)
        else:
            self._state.waiting.append((self, body, request_id))

    def _begin(self, body: bytes, request_id: str) -> None:
        delay = self._state.faults.service_ms / 1000 + self._state.stalled_for()
        began = time.monotonic()
        asyncio.get_running_loop().call_later(delay, self._end, body, request_id, began)

    def _end(self, body: bytes, request_id: str, began: float) -> None:
        state = self._state
        # A stall that began while this was computed holds it, too.
        if held := state.stalled_for():
            asyncio.get_running_loop().call_later(held, self._end, body, request_id, began)
            return
        status, answer = _predict(state, body, request_id)
        busy_ms = (time.monotonic() - began) * 1000
        self.answer(status, answer, f"Server-Timing: decode;dur=0.10, queue;dur=0.00, predict;dur={busy_ms:.2f}\r\n")
        if state.waiting:
            following, next_body, next_id = state.waiting.popleft()
            following._begin(next_body, next_id)
        else:
            state.free += 1

    def answer(self, status: int, body: bytes, more: str = "") -> None:
        """Write one answer; a caller who has gone is nobody's fault."""
        if not self._transport.is_closing():
            head = (
                f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n"
            )
            self._transport.write(head.encode() + body)


def _predict(state: State, body: bytes, request_id: str) -> tuple[int, bytes]:
    faults, tail = state.faults, body[-TAIL_BYTES:]
    state.answered += 1
    if faults.leak_bytes:
        state.leaked.append(os.urandom(faults.leak_bytes))
    if faults.fail_every and state.answered % faults.fail_every == 0:
        return 500, NOTHING_ELSE
    results = results_of(tail)
    if faults.wrong_every and state.answered % faults.wrong_every == 0:
        results, state.planted = results_of(b"something else"), state.planted + 1
    if faults.score_error_every and state.answered % faults.score_error_every == 0:
        results, state.planted = with_score_error(results, state.answered), state.planted + 1
    other, others_results = state.before
    if faults.swap_every and state.answered % faults.swap_every == 0 and other != tail and other:
        results, state.planted = others_results, state.planted + 1
    elif tail != other:
        state.before = (tail, results_of(tail))
    model = b'{"model":{"name":"faulty","version":"1","digest":"%s"},"results":[' % DIGEST.encode()
    return 200, model + results + b'],"request_id":"%s"}' % request_id.encode()


def results_of(tail: bytes) -> bytes:
    """An entry of ``results`` that depends on the picture alone."""
    numbers = hashlib.sha256(tail).digest()
    total = sum(numbers[: len(LABELS)])
    scores = [{"label": label, "score": round(n / total, 5)} for label, n in zip(LABELS, numbers, strict=False)]
    return json.dumps({"width": 64, "height": 64, "predictions": scores}).encode()


def with_score_error(results: bytes, number: int) -> bytes:
    """The same results with one score off: now a little beyond the tolerance, now by much."""
    table = json.loads(results)
    row = table["predictions"][number % len(LABELS)]
    row["score"] = round(row["score"] + (0.03, 0.1, -0.1, 0.4)[number // 7 % 4], 5)
    return json.dumps(table).encode()


def _fixed(path: str, state: State) -> tuple[int, bytes]:
    engine = {"state": "up", "resident_bytes": 0, "workers": state.faults.slots, "waiting": len(state.waiting)}
    status = {
        "environment": state.faults.env,
        "engine": engine,
        "cores": 1,
        "processes": [{"role": "web", "resident_bytes": memory(), "cpu_seconds": time.process_time()}],
    }
    table = {
        "/status": status,
        "/version": {"version": "faulty", "revision": "none"},
        "/v1/models": {"models": [{"name": "faulty", "task": "classify", "digest": DIGEST, "computed_by": "nothing"}]},
        "/arrived": {"arrived": state.arrived, "planted": state.planted},
    }
    return (200, json.dumps(table[path]).encode()) if path in table else (404, NOTHING_ELSE)


def memory() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def serve(port: int, faults: Faults) -> None:
    """Serve on loopback until ended; prints the port."""
    state = State(faults, free=faults.slots)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> int:
    """Read the faults from the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.faulty_server")
    parser.add_argument("--port", type=int, default=0)
    for name, default in Faults().__dict__.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    arguments = vars(parser.parse_args())
    port = arguments.pop("port")
    try:
        asyncio.run(serve(port, Faults(**arguments)))
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
