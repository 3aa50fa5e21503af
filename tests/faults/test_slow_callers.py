"""Hundreds of callers who send as slowly as they may: health and others go on, and the slow ones are let go in time."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

CALLERS = 400
PROBES = 50
# On the busiest machine, before the first dawdler is let go.
LEAST_PROBES = 10
HEADER_TIMEOUT_SECONDS = 15
HALF_HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n"
HEAD = HALF_HEAD + b"Content-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Sized by the machine, as in prod."""
    sizes = {"WEB_PROCESSES": "0", "WEB_THREADS": "0", "SERVER_MAX_CONNECTIONS": "0"}
    timeouts = {"SERVER_HEADER_TIMEOUT_SECONDS": str(HEADER_TIMEOUT_SECONDS), "SERVER_BODY_TIMEOUT_SECONDS": "10"}
    with servers.running("test", **sizes, **timeouts) as running:
        yield running


@contextlib.contextmanager
def slow_callers(server: Server, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that have sent so much and then wait."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            connection.sendall(sent)
            connections.append(connection)
        yield connections


def probed(server: Server, dawdlers: list[socket.socket]) -> int:
    """How many probes were answered, each on a connection of its own, while not one of the dawdlers had been let go."""
    good = 0
    for _ in range(PROBES):
        assert server.ask("/livez").status == 200
        if select.select(dawdlers, [], [], 0)[0]:
            break
        good += 1
    return good


def test_health_answers_all_though_400_callers_dawdle_over_their_headers(server: Server, sample_path: Path) -> None:
    with slow_callers(server, CALLERS, HALF_HEAD) as dawdlers:
        assert probed(server, dawdlers) >= LEAST_PROBES
        answer = server.ask("/v1/detect", sample_path.read_bytes(), {"Content-Type": "image/jpeg"})

    assert answer.status == 200


def test_callers_who_dawdle_over_their_headers_are_let_go(server: Server) -> None:
    with slow_callers(server, 1, HALF_HEAD) as (connection,):
        began = time.monotonic()
        connection.settimeout(HEADER_TIMEOUT_SECONDS * 4)
        answer = connection.recv(65536)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < HEADER_TIMEOUT_SECONDS * 3


def test_health_answers_all_though_callers_dawdle_over_their_bodies(server: Server, sample_path: Path) -> None:
    with slow_callers(server, 60, HEAD) as dawdlers:
        assert probed(server, dawdlers) >= LEAST_PROBES
        answer = server.ask("/v1/detect", sample_path.read_bytes(), {"Content-Type": "image/jpeg"})

    assert answer.status == 200


def test_a_body_that_never_comes_is_answered_with_408(server: Server) -> None:
    with slow_callers(server, 1, HEAD) as (connection,):
        connection.settimeout(60)
        answer = connection.recv(65536)

    assert answer.split(b" ")[1] in (b"408", b"400")
