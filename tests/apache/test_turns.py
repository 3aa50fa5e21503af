"""Few requests without a body compute at once, and a thread that stays for the next one waits for nobody. Apache with
our module, and a stand-in for the app.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests import bare_apache, servers

PATIENCE_SECONDS = 60.0
# Longer than any test, and about as long as in production.
NEVER_LONG_MS, SOON_LONG_MS = 600_000, 25
STAY_MS = 2000
# The server ends connections that are idle once no thread is free, so never are all of them busy at once.
STAYING, THREADS = 8, 32
FILE, CONTENT = "/file", b"of a file"
GET_FILE = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"
CONFIGURATION = """
LoadModule proxy_module ${MODULES}/mod_proxy.so
LoadModule proxy_http_module ${MODULES}/mod_proxy_http.so
ServerLimit 1
StartServers 1
ThreadLimit {threads}
ThreadsPerChild {threads}
MaxRequestWorkers {threads}
MinSpareThreads 1
MaxSpareThreads {threads}
# Connections that wait for a head, beside those that have a thread.
AsyncRequestWorkerFactor 20
ArrivalsFolder {home}
ArrivalsMaxBytes 100000000
ArrivalsMaxBodies 60
ArrivalsMaxBodiesAnAddress 60
ArrivalsMaxWaitingAnAddress 100
ArrivalsMaxHeadBytes 65536
ArrivalsHeadSeconds 30
KeepAliveTimeout 30
ArrivalsStaying {staying} {stay_ms}
ArrivalsTurns 1 {long_ms}
# What Apache has by itself is written before the server looks for the next request, as are answers of mod_wsgi.
ProxyPass /file !
ProxyPass / http://127.0.0.1:{backend}/ disablereuse=on
# The name by which the module knows our app; mod_proxy goes by the address alone.
<Location "/app">
    SetHandler wsgi-handler
</Location>
"""


class Backend(socketserver.ThreadingTCPServer):
    """The app: it answers when the test says so, and notes who came."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_open = threading.Event()
        self.came: list[str] = []
        self.lock = threading.Lock()
        self.inside = self.most_inside = 0


class Handler(BaseHTTPRequestHandler):
    """Waits where the path says so, and says 200 with the path; or nothing, where it says that."""

    server: Backend

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.came.append(self.path)
            self.server.inside += self.path.startswith("/app/")
            self.server.most_inside = max(self.server.most_inside, self.server.inside)
        if "hold" in self.path:
            self.server.is_open.wait(60)
        with self.server.lock:
            self.server.inside -= self.path.startswith("/app/")
        if "fail" in self.path:
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(self.path.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@dataclass
class Service:
    """Apache and the app behind it."""

    port: int
    backend: Backend
    threads: list[threading.Thread] = field(default_factory=list)

    def ask(self, path: str) -> tuple[int, bytes]:
        """Status and body; 0 where the connection ended without."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                return 0, b""

    def begin(self, path: str) -> None:
        """Ask in a thread of its own."""
        self.threads.append(threading.Thread(target=self.ask, args=(path,)))
        self.threads[-1].start()

    def wait_for(self, path: str) -> None:
        """Until the app has this request."""
        servers.wait_until(lambda: path in self.backend.came, PATIENCE_SECONDS, f"{path} in the app")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)


@contextlib.contextmanager
def running(long_ms: int) -> Iterator[Service]:
    with Backend() as backend:
        threading.Thread(target=backend.serve_forever, daemon=True).start()
        values = {"threads": THREADS, "staying": STAYING, "long_ms": long_ms, "stay_ms": STAY_MS}
        values["backend"] = backend.server_address[1]
        configuration = CONFIGURATION
        for name, value in values.items():
            configuration = configuration.replace("{" + name + "}", str(value))
        home = servers.make_state_dir()
        (home / "files").mkdir()
        (home / "files" / FILE[1:]).write_bytes(CONTENT)
        with bare_apache.running(configuration, home) as apache:
            found = Service(apache.port, backend)
            yield found
            backend.is_open.set()
            for thread in found.threads:
                thread.join(PATIENCE_SECONDS)
        backend.shutdown()


@pytest.fixture(scope="module")
def started() -> Iterator[Service]:
    with running(NEVER_LONG_MS) as found:
        yield found


@pytest.fixture
def service(started: Service) -> Iterator[Service]:
    started.backend.is_open.clear()
    started.backend.came.clear()
    started.backend.most_inside = 0
    yield started
    started.backend.is_open.set()
    for thread in started.threads:
        thread.join(PATIENCE_SECONDS)
    started.threads.clear()


def read_answer(connection: socket.socket) -> bytes:
    """All of one answer with the file."""
    answer = b""
    while not answer.endswith(CONTENT):
        more = connection.recv(65536)
        assert more, answer
        answer += more
    return answer


def test_one_at_a_time_is_with_the_app_and_all_are_answered(service: Service) -> None:
    service.begin("/app/hold")
    service.wait_for("/app/hold")
    paths = [f"/app/{number}" for number in range(THREADS - 2)]
    for path in paths:
        service.begin(path)
    # What needs no turn passes by.
    for number in range(20):
        assert service.ask(f"/other/{number}") == (200, b"/other/%d" % number)
    assert not set(paths) & set(service.backend.came)

    service.backend.is_open.set()
    for path in paths:
        service.wait_for(path)
    assert service.backend.most_inside == 1


def test_who_goes_away_and_an_app_that_fails_leave_no_turn_taken(service: Service) -> None:
    service.begin("/app/hold")
    service.wait_for("/app/hold")
    with service.connect() as line:
        line.sendall(b"GET /app/gone HTTP/1.1\r\nHost: a\r\n\r\n")
    service.begin("/app/fail")
    service.backend.is_open.set()
    service.wait_for("/app/fail")

    for number in range(3):
        assert service.ask(f"/app/{number}") == (200, b"/app/%d" % number)


def test_views_that_wait_for_something_hold_nobody_back() -> None:
    with running(SOON_LONG_MS) as service:
        for number in range(4):
            service.begin(f"/app/hold/{number}")
        # All are there at once, though none has ended.
        for number in range(4):
            service.wait_for(f"/app/hold/{number}")
        assert service.ask("/app/quick") == (200, b"/app/quick")


def test_whoever_asks_on_at_once_gets_each_answer_however_the_head_comes(service: Service) -> None:
    with service.connect() as line:
        # Two parts at once, not the second when the first is acknowledged.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(90):
            part = number % 7 * 5
            line.sendall(GET_FILE[:part] or GET_FILE)
            if part:
                line.sendall(GET_FILE[part:])
            assert read_answer(line).startswith(b"HTTP/1.1 200 OK\r\n")


def test_thread_that_stays_takes_no_half_a_head(service: Service) -> None:
    """Callers who ask on at once, and then stop in the middle of a head, hold no thread."""
    lines = [service.connect() for _ in range(STAYING)]
    for line in [*lines, *lines]:
        line.sendall(GET_FILE)
        read_answer(line)
    # Now each has a thread that waits for it.
    threading.Event().wait(0.2)
    for line in lines:
        line.sendall(GET_FILE[:-1])

    # All others are busy, so one of those that stayed is needed.
    paths = [f"/other/hold/{number}" for number in range(THREADS - STAYING)]
    for path in paths:
        service.begin(path)
    for path in paths:
        service.wait_for(path)
    assert service.ask("/other/new") == (200, b"/other/new")
    for line in lines:
        line.sendall(GET_FILE[-1:])
        read_answer(line)
        line.close()
