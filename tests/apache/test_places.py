"""Apache hands over no more predictions than the app takes, whoever asks and whatever ends. Apache with our module."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from app.host import arrivals
from app.web.middleware import places
from app.web.middleware.places import Places
from tests import bare_apache, servers
from tests.bare_apache import BareApache
from tests.certificates import Authority

PREDICT, OTHER = "/v1/detect", "/v1/other"
LOUD, HONEST = "127.0.5.1", "127.0.5.2"
PROXY = "127.0.5.9"
PATIENCE_SECONDS = 60.0
# Far beyond what an answer takes here, and less than anybody who waits for the app would wait.
AT_ONCE_SECONDS = 5.0
# Both children are needed: what they count is one number. The document asks for the id as ours does.
CONFIGURATION = """
LoadModule proxy_module ${MODULES}/mod_proxy.so
LoadModule proxy_http_module ${MODULES}/mod_proxy_http.so
LoadModule unique_id_module ${MODULES}/mod_unique_id.so
LoadModule ssl_module ${MODULES}/mod_ssl.so
LoadModule http2_module ${MODULES}/mod_http2.so
Listen {tls}
<VirtualHost *:{tls}>
    SSLEngine on
    SSLCertificateFile {home}/localhost.pem
    SSLCertificateKeyFile {home}/localhost.key
    Protocols h2 http/1.1
</VirtualHost>
ServerLimit 4
StartServers 2
ThreadLimit 32
ThreadsPerChild 32
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
GracefulShutdownTimeout 20
ArrivalsFolder {home}
ArrivalsMaxBytes 100000000
ArrivalsMaxBodies 60
ArrivalsMaxBodiesAnAddress 60
ArrivalsPlaces {home}/run/places
ArrivalsAnswered {home}/run/answered
ArrivalsComputed "no-cache"
RemoteIPHeader X-Forwarded-For
RemoteIPInternalProxy 127.0.5.9
<Location "/v1/detect">
    ArrivalsRefusal "7" "{\\"id\\": \\"%{req_novary:X-Request-Id}\\"}"
</Location>
ProxyPass / http://127.0.0.1:{backend}/ disablereuse=on
"""


class Backend(socketserver.ThreadingTCPServer):
    """The app: it answers when the test says so."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_open = threading.Event()
        self.kept: list[bool] = []
        self.waiting = 0


class Handler(BaseHTTPRequestHandler):
    """Reads the whole body, waits, and says 200."""

    server: Backend

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.waiting += 1
        self.server.is_open.wait(60)
        self.server.waiting -= 1
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@dataclass
class Answer:
    """What came back; 0: the connection ended without."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Service:
    """Apache, the app behind it, and the row in which the app says how many it takes."""

    apache: BareApache
    backend: Backend
    row: Places
    tls_port: int
    threads: list[threading.Thread] = field(default_factory=list)
    numbers: int = 0

    def ask(self, body: bytes = b"", source: str = LOUD, path: str = PREDICT, **headers: str) -> Answer:
        """``body``: empty for one that nobody has sent before."""
        self.numbers += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.apache.port, timeout=60, source_address=(source, 0))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            try:
                connection.request("POST", path, body or b"%06d" % self.numbers * 2000, named)
                answer = connection.getresponse()
                return Answer(answer.status, dict(answer.headers), answer.read())
            except (OSError, http.client.HTTPException):
                return Answer(0)

    def hold(self, count: int, source: str = LOUD, **headers: str) -> None:
        """So many requests more wait in the app."""
        wanted = self.backend.waiting + count
        for _ in range(count):
            self.threads.append(threading.Thread(target=self.ask, args=(b"", source), kwargs=headers))
            self.threads[-1].start()
        servers.wait_until(lambda: self.backend.waiting == wanted, PATIENCE_SECONDS, f"{wanted} requests in the app")

    def is_refused(self, source: str = LOUD, **more: Any) -> bool:
        """Whether a request is, at once; one that is not waits in the app and is left there."""
        found: list[Answer] = []
        thread = threading.Thread(target=lambda: found.append(self.ask(source=source, **more)))
        wanted = self.backend.waiting + 1
        thread.start()
        self.threads.append(thread)
        servers.wait_until(lambda: bool(found) or self.backend.waiting == wanted, PATIENCE_SECONDS, "either")
        return bool(found) and found[0].status == 503

    def let_go(self) -> None:
        """The app answers all."""
        self.backend.is_open.set()
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)
        servers.wait_until(lambda: self.backend.waiting == 0, PATIENCE_SECONDS, "the app to be done")
        self.backend.is_open.clear()
        self.threads.clear()


@pytest.fixture(scope="module")
def started() -> Iterator[Service]:
    home = servers.make_state_dir()
    path = home / places.FILE
    places.make(path, 2)
    answered = home / arrivals.ANSWERED
    with answered.open("wb") as file:
        file.truncate(arrivals.ANSWERED_HEAD_BYTES + 2 * 8192)
    row = places.claim(path)
    assert row is not None
    with Backend() as backend:
        threading.Thread(target=backend.serve_forever, daemon=True).start()
        tls = servers.free_port()
        Authority(home).sign("localhost")
        configuration = CONFIGURATION.replace("{backend}", str(backend.server_address[1])).replace("{tls}", str(tls))
        with bare_apache.running(configuration, home) as apache:
            yield Service(apache, backend, row, tls)
        backend.shutdown()


@pytest.fixture
def service(started: Service) -> Iterator[Service]:
    started.row.show(3, 4)
    yield started
    started.let_go()


def children(service: Service) -> list[int]:
    path = Path(f"/proc/{service.apache.process.pid}/task/{service.apache.process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def test_whom_there_is_no_place_for_is_refused_at_once_and_nobody_else(service: Service) -> None:
    service.hold(3)
    began = time.monotonic()
    refused = service.ask(X_Request_Id="from-the-caller")

    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert (refused.status, json.loads(refused.body)) == (503, {"id": "from-the-caller"})
    assert refused.headers["Retry-After"] == "7"
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Cache-Control"] == "no-store"
    # What does not predict needs no place.
    assert not service.is_refused(path=OTHER)
    service.let_go()
    assert not service.is_refused()


def test_an_id_that_is_none_is_not_repeated(service: Service) -> None:
    service.hold(3)
    for id_of_caller in ("short", "x" * 65, 'with a "quote"'):
        name = json.loads(service.ask(X_Request_Id=id_of_caller).body)["id"]
        assert name != id_of_caller
        assert len(name) > 8


def test_a_refused_connection_stays_when_all_of_the_body_has_come(service: Service) -> None:
    service.hold(3)
    body = os.urandom(90_000)
    with socket.create_connection(("127.0.0.1", service.apache.port), source_address=(LOUD, 0)) as line:
        line.settimeout(AT_ONCE_SECONDS)
        answers = line.makefile("rb")

        def ask() -> tuple[int, str | None]:
            line.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return read_answer(answers)

        assert [ask(), ask()] == [(503, None)] * 2
        service.let_go()
        service.backend.is_open.set()
        assert ask() == (200, None)
        service.backend.is_open.clear()


def test_what_follows_a_refused_body_is_the_next_request(service: Service) -> None:
    service.hold(3)
    inner = b"GET /inside HTTP/1.1\r\nHost: a\r\n\r\n"
    for body in (inner, inner * 200, b"x" * 90_000 + inner, b"x" * 900_000 + inner):
        with socket.create_connection(("127.0.0.1", service.apache.port), source_address=(LOUD, 0)) as line:
            line.settimeout(AT_ONCE_SECONDS)
            head = b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
            line.sendall((head + body) * 2)
            line.shutdown(socket.SHUT_WR)
            answers = line.makefile("rb").read()
        # Never what the body says, which the app does not know how to answer.
        assert answers.count(b"HTTP/1.1 503 ") == answers.count(b"HTTP/1.1 ") in (1, 2)


def test_a_refused_connection_that_is_to_end_ends_and_its_answer_is_whole(service: Service) -> None:
    service.hold(3)
    body = os.urandom(91_000)
    for version, more, sent in (
        *(("1.0", "", 91_000), ("1.1", "Connection: close\r\n", 91_000), ("1.1", "", 3000)),
        ("1.1", "Expect: 100-continue\r\n", 0),
    ):
        with socket.create_connection(("127.0.0.1", service.apache.port), source_address=(LOUD, 0)) as line:
            line.settimeout(AT_ONCE_SECONDS)
            head = f"POST /v1/detect HTTP/{version}\r\nHost: a\r\nContent-Length: 91000\r\n{more}\r\n"
            line.sendall(head.encode() + body[:sent])
            answer = line.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503 "), (version, more, sent, answer)
        assert b"\r\nConnection: close\r\n" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["id"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, found none")
def test_each_stream_and_each_encrypted_request_is_refused_in_words(service: Service) -> None:
    service.hold(3)
    body = service.apache.home / "body"
    # It comes in one piece with its head: a connection ends where the rest is still on its way.
    body.write_bytes(os.urandom(2_000))
    url = f"https://localhost:{service.tls_port}{PREDICT}"
    asked = ("--interface", LOUD, "-sS", "--data-binary", f"@{body}", "-w", " %{http_code} %{num_connects}\n", url, url)
    for version in ("--http2", "--http1.1"):
        trusted = ("--cacert", str(service.apache.home / "authority.pem"))
        answers = subprocess.run(["curl", version, *trusted, *asked], check=True, capture_output=True, text=True).stdout
        assert [line.split()[2:] for line in answers.splitlines()] == [["503", "1"], ["503", "0"]], (version, answers)


def read_answer(answers: BinaryIO) -> tuple[int, str | None]:
    """Status, and what it says of the connection."""
    status = int(answers.readline().split()[1])
    headers = http.client.parse_headers(answers)
    answers.read(int(headers["Content-Length"]))
    return status, headers["Connection"]


def test_until_a_process_has_spoken_nobody_is_refused(service: Service) -> None:
    service.row.show(0, 0)
    service.hold(6)


def test_a_large_body_is_refused_before_it_is_sent(service: Service) -> None:
    service.hold(3)
    with socket.create_connection(("127.0.0.1", service.apache.port), source_address=(LOUD, 0)) as line:
        line.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
        line.settimeout(AT_ONCE_SECONDS)
        assert line.recv(100).startswith(b"HTTP/1.1 503 ")


def test_who_has_less_than_others_finds_a_place_when_one_has_them_all(service: Service) -> None:
    service.row.show(3, 5)
    service.hold(3)

    assert service.is_refused()
    assert not service.is_refused(HONEST)
    # Two of five are no less than its share, with two addresses; nor is there any beyond those for modest ones.
    assert [service.is_refused(source) for source in (HONEST, LOUD, "127.0.5.3", "127.0.5.4")] == [
        *(False, True, True, True)
    ]


def test_a_proxy_is_who_it_speaks_for(service: Service) -> None:
    service.row.show(3, 5)
    service.hold(3, PROXY, X_Forwarded_For="203.0.113.7")

    assert service.is_refused(PROXY, X_Forwarded_For="203.0.113.7")
    assert not service.is_refused(PROXY, X_Forwarded_For="203.0.113.8")


def test_body_that_was_answered_is_handed_over_though_there_is_no_place(service: Service) -> None:
    known = os.urandom(90_000)
    alike = known[:-1] + bytes([known[-1] ^ 1])
    service.backend.is_open.set()
    assert service.ask(known).status == 200
    service.backend.is_open.clear()
    service.hold(3)

    assert [service.is_refused(body=body) for body in (alike, known, known[:-1])] == [True, False, True]
    assert service.is_refused(body=known, Cache_Control="no-cache")


def test_a_new_body_is_refused_by_its_beginning_and_one_that_begins_alike_when_it_is_here(service: Service) -> None:
    known = os.urandom(90_000)
    service.backend.is_open.set()
    assert service.ask(known).status == 200
    service.backend.is_open.clear()
    service.hold(3)

    def answered_after(body: bytes, sent: int) -> bool:
        """Whether there is an answer when so many bytes of the body have come, in one piece with the head."""
        head = b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", service.apache.port), source_address=(LOUD, 0)) as line:
            line.sendall(head + body[:sent])
            line.settimeout(1.0 if sent < len(body) else AT_ONCE_SECONDS)
            try:
                return line.recv(100).startswith(b"HTTP/1.1 503 ")
            except TimeoutError:
                return False

    beginning = known[:3000]
    assert answered_after(os.urandom(3000) + known[3000:], 3000)
    assert not answered_after(beginning + os.urandom(87_000), 3000)
    assert answered_after(beginning + os.urandom(87_000), 90_000)
    # Of too little nothing is known yet.
    assert not answered_after(os.urandom(1000) + known[1000:], 1000)


def test_a_body_that_was_asked_for_is_refused_by_its_beginning(service: Service) -> None:
    """Of its length one was answered, so ``Expect`` is heeded; the rest of it need not come."""
    known = os.urandom(900_000)
    service.backend.is_open.set()
    assert service.ask(known).status == 200
    service.backend.is_open.clear()
    service.hold(3)
    head = b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 900000\r\n\r\n"

    def status_after(beginning: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", service.apache.port), source_address=(LOUD, 0)) as line:
            line.settimeout(AT_ONCE_SECONDS)
            line.sendall(head)
            answers = line.makefile("rb")
            assert answers.readline() + answers.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
            line.sendall(beginning)
            return answers.readline()

    said = "none: was the module built (apache/modules/build.sh)?"
    with contextlib.suppress(TimeoutError):
        said = status_after(os.urandom(20_000)).decode()
    assert said.startswith("HTTP/1.1 503 "), said
    assert not service.is_refused(body=known, Expect="100-continue")


def test_as_many_bodies_are_remembered_as_the_table_is_for(service: Service) -> None:
    service.backend.is_open.set()
    service.row.show(100, 100)
    # A half of 8 KiB is for 4096 bodies or lengths.
    bodies = [b"%08d" % number * 25 for number in range(600)]
    assert {service.ask(body).status for body in bodies} == {200}
    service.backend.is_open.clear()
    service.row.show(1, 1)
    service.hold(1)

    assert not service.is_refused(body=bodies[0])
    assert service.is_refused(body=b"%08d" % 600 * 25)


def test_places_of_a_child_that_was_killed_are_free_again(service: Service) -> None:
    service.hold(3)
    assert service.is_refused()
    before = children(service)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    service.let_go()
    servers.wait_until(
        lambda: len(set(children(service)) - set(before)) == 2, PATIENCE_SECONDS, "two children instead of them"
    )

    service.hold(3)
    assert service.is_refused()


def test_a_caller_who_goes_away_and_an_app_that_fails_leave_no_place_taken(service: Service) -> None:
    lines = [socket.create_connection(("127.0.0.1", service.apache.port)) for _ in range(3)]
    for line in lines:
        line.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
    servers.wait_until(lambda: service.backend.waiting == 3, PATIENCE_SECONDS, "three in the app")
    for line in lines:
        line.close()
    service.let_go()

    service.hold(3)
    assert service.is_refused()


def test_a_graceful_restart_ends_no_request_and_counts_anew(service: Service) -> None:
    before = children(service)
    answers: list[Answer] = []
    held = [threading.Thread(target=lambda: answers.append(service.ask())) for _ in range(3)]
    for thread in held:
        thread.start()
    servers.wait_until(lambda: service.backend.waiting == 3, PATIENCE_SECONDS, "three in the app")
    service.apache.process.send_signal(signal.SIGUSR1)
    servers.wait_until(
        lambda: len(set(children(service)) - set(before)) == 2, PATIENCE_SECONDS, "two children beside them"
    )
    service.hold(3)
    assert service.is_refused()
    service.let_go()
    for thread in held:
        thread.join(PATIENCE_SECONDS)

    assert [each.status for each in answers] == [200] * 3
    service.hold(3)
    assert service.is_refused()
