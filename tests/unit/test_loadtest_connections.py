"""Connections are kept, and given back whatever happens. Against real sockets on loopback."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from geventhttpclient.response import HTTPConnectionClosed

from loadtest import connections as connections_module
from loadtest.connections import Connections, Fields
from tests.certificates import Authority
from tests.servers import ROOT

FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer-Timing: decode;dur=1\r\nserver-timing: queue;dur=2\r\n\r\nok"
REFUSAL = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
# Longer than what the buffers of both sides take.
LARGE = b"x" * 16_000_000

# FD_SETSIZE; see select(2).
FILES_OF_SELECT = 1024

ASK_TWICE = """
import ssl, sys
from loadtest.connections import Connections
connections = Connections(sys.argv[1], 1)
try:
    for _ in range(2):
        response = connections.request("POST", "/v1/classify", body=b"x" * 100_000, headers={})
        response.read()
        print(response.status_code)
except ssl.SSLError as error:
    print(type(error).__name__)
"""

Talk = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def hub_that_knows_the_time() -> None:
    """gevent counts from when it last waited: after a test that only computed, ten seconds would be over at once."""
    gevent.get_hub().loop.update_now()


class Server:
    """Talks with each connection as it is told; remembers how many came and what was first asked in each."""

    def __init__(self, talk: Talk) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._talk = talk
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, contextlib.suppress(OSError):
                    self._talk(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Talk], Server]]:
    begun: list[Server] = []

    def begin(talk: Talk) -> Server:
        begun.append(Server(talk))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def answer_all(connection: socket.socket) -> None:
    """Answer each request, until the other side goes."""
    read = b""
    while part := connection.recv(65536):
        read += part
        head, blank, body = read.partition(b"\r\n\r\n")
        if blank and len(body) == int(head.lower().split(b"content-length: ")[1].split()[0]):
            connection.sendall(FINE)
            read = b""


def reset(connection: socket.socket) -> None:
    """Close with an RST, as a server does that has not read all."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def ask(connections: Connections, body: bytes = b"", seconds: float = 10.0) -> tuple[int, bytes]:
    with gevent.Timeout(seconds):
        response = connections.request("POST", "/v1/classify", body=body, headers={"X-Request-Id": "a"})
        return response.status_code, bytes(response.read())


def test_a_connection_is_kept_for_the_next_request(serve: Callable[[Talk], Server]) -> None:
    server = serve(answer_all)
    connections = Connections(server.url, 4)

    assert [ask(connections) for _ in range(3)] == [(200, b"ok")] * 3
    assert server.connections == 1
    connections.close()


def test_a_connection_is_kept_also_beyond_the_files_that_select_knows(serve: Callable[[Talk], Server]) -> None:
    server = serve(answer_all)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_OF_SELECT + 100
    if hard < wanted:
        pytest.skip(f"this machine allows {hard} open files; the test needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        with contextlib.ExitStack() as held:
            while held.enter_context(Path(os.devnull).open()).fileno() < FILES_OF_SELECT:
                pass
            connections = Connections(server.url, 4)
            assert [ask(connections) for _ in range(3)] == [(200, b"ok")] * 3
            connections.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert server.connections == 1


def test_a_refusal_in_the_midst_of_a_large_body_is_read(serve: Callable[[Talk], Server]) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(REFUSAL)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    connections = Connections(serve(refuse).url, 1)

    # The one connection is usable again each time.
    assert [ask(connections, LARGE)[0] for _ in range(3)] == [503] * 3


def test_a_connection_that_breaks_leaves_its_place(serve: Callable[[Talk], Server]) -> None:
    def break_off(connection: socket.socket) -> None:
        connection.recv(1000)
        reset(connection)

    connections = Connections(serve(break_off).url, 1)

    for body in (b"", LARGE, b""):
        with pytest.raises((OSError, HTTPConnectionClosed)):
            ask(connections, body)


def closes_after(answers: int) -> Talk:
    """Answers so many requests of a connection, then closes it when another comes, as at the end of its keep-alive."""

    def talk(connection: socket.socket) -> None:
        for _ in range(answers):
            connection.recv(65536)
            connection.sendall(FINE)
        connection.recv(65536)

    return talk


def test_an_idle_connection_that_is_closed_in_the_same_moment_is_replaced(
    serve: Callable[[Talk], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "IDLE_SECONDS", 0.0)
    server = serve(closes_after(1))
    connections = Connections(server.url, 1)

    assert [ask(connections)[0] for _ in range(3)] == [200] * 3
    assert (connections.repeated, server.connections) == (2, 3)
    connections.close()


def test_a_connection_in_use_that_is_closed_without_an_answer_is_the_servers_failure(
    serve: Callable[[Talk], Server],
) -> None:
    connections = Connections(serve(closes_after(1)).url, 1)

    assert ask(connections)[0] == 200
    with pytest.raises(HTTPConnectionClosed):
        ask(connections)
    assert connections.repeated == 0


def test_a_job_is_not_left_twice(serve: Callable[[Talk], Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "IDLE_SECONDS", 0.0)
    connections = Connections(serve(closes_after(1)).url, 1)

    assert ask(connections)[0] == 200
    with gevent.Timeout(10), pytest.raises(HTTPConnectionClosed):
        connections.request("POST", "/v1/jobs?task=detect", body=b"x", headers={})


def test_a_prefix_stands_before_each_path() -> None:
    head = Connections("https://box/cask/", 1).head("GET", "/v1/models", {}, 0)

    assert head.startswith(b"GET /cask/v1/models HTTP/1.1\r\nHost: box\r\n")


@pytest.mark.parametrize("body", [b"", LARGE], ids=["waits for the answer", "waits to send"])
def test_a_time_that_is_over_leaves_its_place(serve: Callable[[Talk], Server], body: bytes) -> None:
    is_over = threading.Event()

    def say_nothing(_connection: socket.socket) -> None:
        is_over.wait(30)

    connections = Connections(serve(say_nothing).url, 1)
    try:
        for _ in range(2):
            with pytest.raises(gevent.Timeout):
                ask(connections, body, seconds=0.1)
    finally:
        is_over.set()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    connections = Connections(url, 1)

    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            ask(connections)


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_certificate_is_checked(serve: Callable[[Talk], Server], tmp_path: Path, is_trusted: bool) -> None:
    """In a process of its own: whom a process trusts is read when geventhttpclient is imported."""
    pair = (authority := Authority(tmp_path)).sign("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    def answer_encrypted(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            answer_all(encrypted)

    url = serve(answer_encrypted).url.replace("http://127.0.0.1", "https://localhost")
    environ = {"PATH": os.environ["PATH"]} | ({"SSL_CERT_FILE": str(authority.certificate)} if is_trusted else {})
    done = subprocess.run(
        [sys.executable, "-c", ASK_TWICE, url], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == (["200", "200"] if is_trusted else ["SSLCertVerificationError"]), done.stderr


def test_fields_of_one_name_are_one_list() -> None:
    fields = Fields()
    for name, value in (("Server-Timing", "a;dur=1"), ("X-Cache", "hit"), ("server-timing", "b;dur=2")):
        fields.add(name, value)

    assert fields == {"server-timing": "a;dur=1, b;dur=2", "x-cache": "hit"}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://box", "box"),
        ("http://box:8080", "box:8080"),
        ("https://box:443", "box"),
        ("https://box:80", "box:80"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_the_head_names_the_host_as_a_browser_does(url: str, host: str) -> None:
    head = Connections(url, 1).head("POST", "/a?b=c", {"A": "b"}, 3)

    assert head == f"POST /a?b=c HTTP/1.1\r\nHost: {host}\r\nA: b\r\nContent-Length: 3\r\n\r\n".encode()


def test_a_head_without_a_body_says_so_where_one_is_expected() -> None:
    connections = Connections("http://box", 1)

    assert b"Content-Length: 0\r\n" in connections.head("POST", "/", {}, 0)
    assert b"Content-Length" not in connections.head("GET", "/", {}, 0)


@pytest.mark.parametrize("path", ["", "a", "/a b", "/a\r\nX: y", "/a\n", "/é"])
def test_a_path_that_is_more_than_one_is_not_sent(path: str) -> None:
    with pytest.raises(ValueError, match="can't be sent"):
        Connections("http://box", 1).head("GET", path, {}, 0)


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb"])
def test_a_header_of_more_than_one_line_is_not_sent(value: str) -> None:
    with pytest.raises(ValueError, match="more than one line"):
        Connections("http://box", 1).head("GET", "/", {"X-Api-Token": value}, 0)
