"""Handshakes, heads and connections that are begun and not gone on with: by TLS and without, they hold nobody up.

With an older module they do: apache/modules/build.sh .venv builds it anew.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.certificates import Authority
from tests.servers import Server

# A small server: it has so many threads, and takes seven times as many connections.
THREADS = 100
BEYOND_THREADS = 150
BEYOND_CONNECTIONS = 900
ADDRESSES = 9
ONE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Less than Apache waits for a head, so that whom it waits for instead is seen.
PATIENCE_SECONDS = 30.0

Begin = Callable[[socket.socket], socket.socket]


@pytest.fixture(scope="module")
def https_port() -> int:
    return servers.free_port()


@pytest.fixture(scope="module")
def server(https_port: int) -> Iterator[Server]:
    pair = Authority(servers.make_state_dir()).sign("localhost")
    tls = {"HTTPS_PORT": str(https_port), "TLS_CERTIFICATE": str(pair.certificate), "TLS_KEY": str(pair.key)}
    # By default such a connection would go after 10 s, before a busy machine has looked.
    sizes = {"SERVER_MAX_CONNECTIONS": str(THREADS), "SERVER_HEADER_TIMEOUT_SECONDS": "60"}
    with servers.running("test", **sizes, **tls) as running:
        yield running


def _context() -> ssl.SSLContext:
    return ssl._create_unverified_context()  # noqa: S323 - a certificate of this test


def _hello() -> bytes:
    """The first that a client sends by TLS."""
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        _context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


def _sends(data: bytes) -> Begin:
    def begin(connection: socket.socket) -> socket.socket:
        connection.sendall(data)
        return connection

    return begin


def _encrypted(data: bytes) -> Begin:
    def begin(connection: socket.socket) -> socket.socket:
        connection = _context().wrap_socket(connection)
        connection.sendall(data)
        return connection

    return begin


def _half_record(connection: socket.socket) -> socket.socket:
    connection = _encrypted(ONE)(connection)
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    # Below TLS: a record that announces more than comes.
    plain = socket.socket(fileno=connection.detach())
    plain.sendall(b"\x17\x03\x03\x01\x00abc")
    return plain


BEGINNINGS: dict[str, Begin] = {
    "half a hello": _sends(_hello()[:100]),
    "a hello and no more": _sends(_hello()),
    "a byte of plain HTTP": _sends(b"G"),
    "a handshake and no more": _encrypted(b""),
    "half a head": _encrypted(ONE[:25]),
    "half a head behind a request": _encrypted(ONE + ONE[:25]),
    "half a record behind an answer": _half_record,
}


@contextlib.contextmanager
def strangers(port: int, count: int, begin: Begin) -> Iterator[list[socket.socket]]:
    """So many connections that begin so, and then wait."""
    with contextlib.ExitStack() as stack:
        opened = []
        for number in range(count):
            source = (f"127.0.9.{number % ADDRESSES + 1}", 0)
            connection = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS, source)
            opened.append(stack.enter_context(begin(connection)))
        yield opened


def is_answered(port: int, *, by_tls: bool) -> bool:
    """Whether somebody else gets an answer on a connection of their own."""
    begin = _encrypted(ONE) if by_tls else _sends(ONE)
    with begin(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)) as connection:
        return connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_who_does_not_go_on_by_tls_holds_no_thread(server: Server, https_port: int, beginning: str) -> None:
    with strangers(https_port, BEYOND_THREADS, BEGINNINGS[beginning]):
        assert is_answered(https_port, by_tls=True)
        assert is_answered(server.port, by_tls=False)


def test_half_a_head_behind_a_request_holds_no_thread(server: Server) -> None:
    with strangers(server.port, BEYOND_THREADS, _sends(ONE + ONE[:25])):
        assert is_answered(server.port, by_tls=False)


@pytest.mark.parametrize("beginning", [ONE[:25], ONE], ids=["half a head", "idle after an answer"])
def test_those_that_wait_longest_go_where_too_many_wait(server: Server, beginning: bytes) -> None:
    with strangers(server.port, BEYOND_CONNECTIONS, _sends(beginning)):
        assert is_answered(server.port, by_tls=False)


def test_half_a_handshake_goes_where_too_many_wait(server: Server, https_port: int) -> None:
    with strangers(https_port, BEYOND_CONNECTIONS, BEGINNINGS["a hello and no more"]):
        assert is_answered(https_port, by_tls=True)
    said = "those that have waited longest are let go"
    servers.wait_until(lambda: said in server.log(), 20, "the log to say so")


def test_a_request_by_tls_may_come_in_many_records(server: Server, https_port: int, sample_path: Path) -> None:
    body = sample_path.read_bytes()
    head = (
        b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    with _encrypted(b"")(socket.create_connection(("127.0.0.1", https_port), 30)) as connection:
        for request, count in ((head + body, 1), (ONE + head + body, 2)):
            for at in range(0, len(head), 7):
                connection.sendall(request[at : at + 7])
            connection.sendall(request[at + 7 :])
            received = b""
            while received.count(b"HTTP/1.1 200 ") < count or not received.rstrip().endswith(b"}"):
                more = connection.recv(65536)
                assert more, f"the connection ended after {received!r}"
                received += more
