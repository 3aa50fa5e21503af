"""Strangers who are slow, in every part of a connection: whoever means well does not notice them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, islice

import pytest

from tests import servers
from tests.attacks.attack import attack
from tests.certificates import Authority
from tests.servers import Server

SECONDS = 12.0
DRIP_PERIOD_SECONDS = 0.5
# 600 bytes a second: just above what mod_reqtimeout asks of everybody.
DRIP = b"x" * 300
HALF_HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n"
BODY_HEAD = HALF_HEAD + b"Content-Type: image/jpeg\r\nContent-Length: 1000000\r\n\r\n"
HEALTH_BODY_HEAD = BODY_HEAD.replace(b"/v1/detect", b"/livez")
LARGE_ANSWER = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
SIZES = {"WEB_PROCESSES": "0", "WEB_THREADS": "0", "SERVER_MAX_CONNECTIONS": "0"}
ONE = ("127.0.9.1",)
MANY = tuple(f"127.0.9.{n}" for n in range(1, 98))

Drip = Callable[[], bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Sized by the machine, as in prod."""
    with servers.running("test", **SIZES) as running:
        yield running


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Server]:
    """The same by HTTPS alone."""
    pair, port = Authority(servers.make_state_dir()).sign("localhost"), servers.free_port()
    tls = {"HTTPS_PORT": str(port), "TLS_CERTIFICATE": str(pair.certificate), "TLS_KEY": str(pair.key)}
    with servers.running("test", **SIZES, **tls) as running:
        yield replace(running, url=f"https://127.0.0.1:{port}", port=port)


class Strangers:
    """Connections from some addresses; each sends a beginning, and then now and then a little more."""

    def __init__(self, server: Server, addresses: tuple[str, ...], receive_bytes: int = 0) -> None:
        self._port = server.port
        self._addresses = cycle(addresses)
        self._receive_bytes = receive_bytes
        self._open: list[socket.socket] = []
        self.refused = 0

    def come(self, count: int, beginning: bytes) -> None:
        """So many more; those that are not let in are counted."""
        for address in islice(self._addresses, count):
            connection = socket.socket()
            if self._receive_bytes:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
            connection.settimeout(5)
            try:
                connection.bind((address, 0))
                connection.connect(("127.0.0.1", self._port))
                connection.sendall(beginning)
            except OSError:
                self.refused += 1
                connection.close()
                continue
            connection.setblocking(False)
            self._open.append(connection)

    def shake_hands(self) -> None:
        """Speak TLS over each connection from here on; who is not let do so is counted."""
        context = ssl._create_unverified_context()  # noqa: S323 - a certificate of this test
        for number, connection in enumerate(self._open):
            connection.settimeout(5)
            try:
                self._open[number] = context.wrap_socket(connection)
            except OSError:
                self.refused += 1
            self._open[number].setblocking(False)

    def drip(self, part: bytes) -> None:
        """Each that is still let sends so much."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.send(part)

    def read(self, count: int) -> None:
        """Each that is still let reads so much."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.recv(count)

    def go(self) -> None:
        """All hang up."""
        for connection in self._open:
            connection.close()


@contextlib.contextmanager
def strangers(server: Server, addresses: tuple[str, ...], receive_bytes: int = 0) -> Iterator[Strangers]:
    """They have gone at the end."""
    them = Strangers(server, addresses, receive_bytes)
    try:
        yield them
    finally:
        them.go()


def _for_a_while(act: Callable[[], None]) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        act()
        threading.Event().wait(DRIP_PERIOD_SECONDS)


@pytest.mark.parametrize("addresses", [ONE, MANY], ids=["1", "97"])
def test_slow_bodies_hold_nothing_that_others_need(server: Server, addresses: tuple[str, ...]) -> None:
    with strangers(server, addresses) as them, attack(f"200 slow bodies, {len(addresses)} addr.", server) as running:
        them.come(200, BODY_HEAD)
        _for_a_while(lambda: them.drip(DRIP))

    running.figures.require(live=1.0)


def test_slow_bodies_for_health_do_not_hold_health(server: Server) -> None:
    with strangers(server, ONE) as them, attack("60 slow bodies for /livez", server) as running:
        them.come(60, HEALTH_BODY_HEAD)
        _for_a_while(lambda: them.drip(DRIP))

    running.figures.require(live=1.0)


@pytest.mark.parametrize("addresses", [ONE, MANY], ids=["1", "97"])
def test_all_kinds_of_slow_callers_at_once(server: Server, addresses: tuple[str, ...]) -> None:
    with contextlib.ExitStack() as stack:
        silent, heads, bodies = (stack.enter_context(strangers(server, addresses)) for _ in range(3))
        running = stack.enter_context(attack(f"all at once, {len(addresses)} addr.", server))
        silent.come(2800, b"")
        heads.come(400, HALF_HEAD)
        bodies.come(200, BODY_HEAD)

        def act() -> None:
            bodies.drip(DRIP)
            heads.drip(b"X")

        _for_a_while(act)

    running.figures.require(live=1.0)


def test_slow_readers_hold_no_thread_of_the_app(server: Server) -> None:
    with strangers(server, ONE, receive_bytes=2048) as them, attack("150 slow readers", server) as running:
        them.come(150, LARGE_ANSWER)
        _for_a_while(lambda: them.read(50))

    running.figures.require(live=1.0)


def test_idlers_between_requests_hold_no_thread(server: Server) -> None:
    with strangers(server, MANY) as them, attack("1000 idle keep-alives", server) as running:
        them.come(1000, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        _for_a_while(lambda: them.read(4096))

    running.figures.require(live=1.0)


def _hello() -> bytes:
    """The first that a client sends by TLS."""
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()


@pytest.mark.parametrize("addresses", [ONE, MANY], ids=["1", "97"])
def test_slow_handshakes_and_heads_by_tls_hold_nobody(encrypted: Server, addresses: tuple[str, ...]) -> None:
    hello = _hello()
    with contextlib.ExitStack() as stack:
        half, shaken = (stack.enter_context(strangers(encrypted, addresses)) for _ in range(2))
        running = stack.enter_context(attack(f"half a TLS hello, {len(addresses)} addr.", encrypted))
        half.come(400, hello[: len(hello) // 2])
        shaken.come(100, b"")
        shaken.shake_hands()
        shaken.drip(HALF_HEAD)

        def act() -> None:
            half.drip(hello[-1:])
            shaken.drip(b"X")

        _for_a_while(act)

    running.figures.require(live=1.0)
