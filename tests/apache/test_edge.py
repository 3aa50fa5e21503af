"""The edge before a service: who calls and how arrives as without it, and another release takes over unseen."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers
from tests.servers import ROOT, Answer, Server

CALLER = "127.0.5.5"
SWITCHES = 60
RAW = {
    "both lengths": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "unknown coding": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET /version HTTP/1.1\nHost: a\n\n",
    "folded header": b"GET /version HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    "no host": b"GET /version HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /version\r\n",
    "HTTP/2.0": b"GET /version HTTP/2.0\r\nHost: a\r\n\r\n",
    "invented method": b"FROB /version HTTP/1.1\r\nHost: a\r\n\r\n",
    "another server": b"GET http://other.example/version HTTP/1.1\r\nHost: other.example\r\n\r\n",
    "name in the address": b"GET http://other.example@127.0.0.1:1/version?a=%2F HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded slash": b"GET /v1/models/a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded zero": b"GET /v1/models/a%00b HTTP/1.1\r\nHost: a\r\n\r\n",
    "half a code": b"GET /v1/models/a%2 HTTP/1.1\r\nHost: a\r\n\r\n",
    "dots": b"GET /../../version HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded dots": b"GET /x/%2e%2e/version HTTP/1.1\r\nHost: a\r\n\r\n",
    "two slashes": b"GET //version HTTP/1.1\r\nHost: a\r\n\r\n",
    "alive": b"GET /_alive HTTP/1.1\r\nHost: a\r\n\r\n",
    "texts of refusals": b"GET /_errors/503.json HTTP/1.1\r\nHost: a\r\n\r\n",
    "long line": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "no body": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD": b"HEAD /version HTTP/1.1\r\nHost: a\r\n\r\n",
    "old and without a host": b"GET /version HTTP/1.0\r\n\r\n",
}


BREAKS_OFF = """
from flask import Blueprint, Response
from cask import public
blueprint = Blueprint("broken", __name__)
def pieces():
    yield b"x" * 50_000
    raise ValueError("no more")
@blueprint.get("/broken/<int:length>")
@public
def broken(length):
    return Response(pieces(), headers={"Content-Length": str(length)} if length else None)
"""


@dataclass
class Edge:
    """A running edge, and the link that names who serves."""

    port: int
    https_port: int
    home: Path
    upstream: int  # the service's port; it answers on every address of loopback

    def point_to(self, text: str) -> None:
        """As a deploy does it."""
        fresh = self.home / "next"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(text)
        fresh.rename(self.home / "current")

    def reset(self) -> None:
        self.point_to(f"1/127.0.0.17:{self.upstream}")

    def log(self) -> str:
        return (self.home / "log").read_text()


@pytest.fixture(scope="module")
def pair() -> Iterator[Path]:
    folder = servers.make_state_dir()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "key.pem")]
    subprocess.run([*command, *names, "-out", str(folder / "cert.pem")], check=True, capture_output=True)
    for each in folder.iterdir():
        each.chmod(0o644)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def service(pair: Path, open_folder: Path) -> Iterator[Server]:
    plugin = open_folder / "plugins" / "broken"
    plugin.mkdir(parents=True)
    (plugin / "plugin.toml").write_text('name = "broken"\nversion = "1"\ncask = ">=1"\n')
    (plugin / "__init__.py").write_text(BREAKS_OFF)
    settings = {
        "PLUGINS_DIR": str(plugin.parent),
        "HTTPS_PORT": str(servers.free_port()),
        "TLS_CERTIFICATE": str(pair / "cert.pem"),
        "TLS_KEY": str(pair / "key.pem"),
        "LISTEN_HOST": "0.0.0.0",  # noqa: S104 - on all addresses of loopback: each is another release
        "CASK_EDGE_ADDRESS": "127.0.0.1",
        "REQUEST_MAX_BYTES": "2000000",
        "IMAGES_MAX_BYTES": "2000000",
    }
    with servers.running("test", **settings) as running:
        yield running


@pytest.fixture(scope="module")
def edge(service: Server, pair: Path) -> Iterator[Edge]:
    home = servers.make_state_dir()
    found = Edge(servers.free_port(), servers.free_port(), home, service.port)
    settings = {
        "PORT": str(found.port),
        "HTTPS_PORT": str(found.https_port),
        "TLS_CERTIFICATE": str(pair / "cert.pem"),
        "TLS_KEY": str(pair / "key.pem"),
        "REQUEST_MAX_BYTES": "2000000",
        "IMAGES_MAX_BYTES": "2000000",
        "STATE_DIR": str(home / "state"),
        "CASK_EDGE_ADDRESS": "127.0.0.1",
    }
    command = [sys.executable, ROOT / "apache" / "edge.py", home / "conf", home / "conf"]
    subprocess.run(command, check=True, env=servers.environment("test", **settings), timeout=60)
    start = home / "conf" / "httpd.conf"
    own = {'"/tmp"': f'"{home}"', '"/var/lib/cask/run"': f'"{home}"', '"/proc/self/fd/1"': f'"{home}/log"'}
    # On a container host a release has the port of the edge, on an address of its own.
    own[f':{found.port}">'] = f':{service.port}">'
    for theirs, ours in own.items():
        start.write_text(start.read_text().replace(theirs, ours))
    (home / "certificate").write_text((pair / "cert.pem").read_text() + (pair / "key.pem").read_text())
    user = servers.service_user() or None
    if user:
        subprocess.run(["chown", "-R", user, home], check=True)
    found.reset()
    command = [shutil.which("apache2") or "httpd", "-f", start, "-DFOREGROUND"]
    with (home / "start.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, user=user)
    try:
        with contextlib.suppress(TimeoutError):
            servers.wait_until(lambda: ask(found, "/livez").status == 200, 20, "the edge")
        assert ask(found, "/livez").status == 200, (home / "start.log").read_text()
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGWINCH)
        process.wait(60)
        shutil.rmtree(home)


def ask(
    edge: Edge,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    address: str = CALLER,
    tls: bool = False,
    method: str = "",
) -> Answer:
    """Ask the edge from an address of loopback; 0 where nothing answers."""
    source = (address, 0)
    kind: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        kind = http.client.HTTPSConnection(
            "127.0.0.1", edge.https_port, timeout=30, source_address=source, context=context
        )
    else:
        kind = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30, source_address=source)
    with contextlib.closing(kind):
        try:
            kind.request(method or ("POST" if body is not None else "GET"), path, body, headers or {})
            answer = kind.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except OSError:
            return Answer(0, {}, b"")


def raw(port: int, request: bytes) -> tuple[int, str]:
    """The status of what is answered to these bytes, and the code of its problem document."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65536):
                received += more
    head, _, body = received.partition(b"\r\n\r\n")
    try:
        code = json.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        code = ""
    return int(head.split()[1]) if head.startswith(b"HTTP/") else 0, code


@pytest.mark.parametrize("name", RAW)
def test_what_is_malformed_or_odd_gets_the_services_own_answer(edge: Edge, service: Server, name: str) -> None:
    assert raw(edge.port, RAW[name]) == raw(service.port, RAW[name])


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"TRACE / HTTP/1.1", 405),
        (b"CONNECT other.example:443 HTTP/1.1", 400),
    ],
)
def test_what_nobody_may_ask_is_refused(edge: Edge, request_line: bytes, status: int) -> None:
    assert raw(edge.port, request_line + b"\r\nHost: localhost\r\n\r\n")[0] == status


@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-For": "127.0.7.7"}, {"Connection": "X-Forwarded-For, close"}])
def test_the_service_sees_who_calls_whatever_the_caller_says(
    edge: Edge, service: Server, headers: dict[str, str]
) -> None:
    mark = f"caller-{os.urandom(4).hex()}"

    assert ask(edge, "/version", headers={**headers, "X-Request-Id": mark}, tls=True).status == 200

    servers.wait_until(lambda: mark in service.log(), 30, "the line of the request")
    line = next(line for line in service.log().splitlines() if mark in line)
    assert f" {CALLER} " in line


def test_what_insiders_may_ask_depends_on_who_calls_the_edge(edge: Edge) -> None:
    assert ask(edge, "/metrics", address="127.0.0.1").status == 200
    for headers in ({"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": ""}, {"Forwarded": "for=127.0.0.1"}):
        assert ask(edge, "/metrics", headers=headers, address="127.0.0.1").status == 403, headers


def test_the_scheme_is_the_edges_and_no_callers(edge: Edge) -> None:
    for headers in ({}, {"X-Forwarded-Proto": "https"}, {"Connection": "X-Forwarded-Proto"}):
        assert ask(edge, "/version", headers=headers).status == 308, headers
    for headers in ({}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Prefix": "/evil"}):
        answer = ask(edge, "/", headers={**headers, "Accept": "text/html"}, tls=True)
        assert answer.status == 200, headers
        assert b"/evil" not in answer.body


def test_bodies_arrive_whatever_their_form(edge: Edge, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    plain = ask(edge, "/v1/classify", image, {"Content-Type": "image/jpeg"}, tls=True)
    expecting = ask(edge, "/v1/classify", image, {"Content-Type": "image/jpeg", "Expect": "100-continue"}, tls=True)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", edge.https_port, timeout=30, context=context)
    with contextlib.closing(connection):
        pieces = [image[:5000], image[5000:]]
        connection.request("POST", "/v1/classify", iter(pieces), {"Content-Type": "image/jpeg"}, encode_chunked=True)
        assert connection.getresponse().status == 200
    large = ask(edge, "/v1/classify", b"a" * 3_000_000, {"Content-Type": "image/jpeg"}, tls=True)

    assert plain.status == expecting.status == 200
    assert plain.json["results"] == expecting.json["results"]
    assert (large.status, large.json["code"]) == (413, "request_too_large")
    assert ask(edge, "/openapi.json", tls=True).json["openapi"]


def test_another_release_takes_over_and_no_caller_sees_it(edge: Edge) -> None:
    statuses: list[int] = []
    is_over = threading.Event()

    def call(keep: bool) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30)) as connection:
            while not is_over.is_set():
                connection.request("GET", "/livez")
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
                if not keep:
                    connection.close()

    callers = [threading.Thread(target=call, args=(keep,)) for keep in (True, True, False, False)]
    for each in callers:
        each.start()
    seen = set()
    for number in range(SWITCHES):
        edge.point_to(f"{number}/127.0.0.{16 + number % 2}:{edge.upstream}")
        seen.add(ask(edge, "/livez").headers["X-Cask-Release"])
    is_over.set()
    for each in callers:
        each.join(30)
    edge.reset()

    assert seen == {str(number) for number in range(SWITCHES)}
    assert set(statuses) == {200}
    assert len(statuses) > SWITCHES


def test_an_upload_that_began_before_goes_to_who_serves_when_it_is_whole(edge: Edge) -> None:
    edge.point_to(f"2/127.0.0.1:{servers.free_port()}")
    with socket.create_connection(("127.0.0.1", edge.port), 30) as connection:
        connection.sendall(
            b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab"
        )
        # Until the edge reads the body, there is nothing to see; the pause is the caller's.
        time.sleep(0.5)
        edge.reset()
        connection.sendall(b"cd")
        head = connection.recv(65536)

    assert head.startswith(b"HTTP/1.1 405"), head


@pytest.mark.parametrize("place", ["", "3/127.0.0.1:{port}", "nonsense"])
def test_where_nobody_serves_it_says_so_and_when_to_ask_again(edge: Edge, place: str) -> None:
    edge.point_to(place.format(port=servers.free_port()) or "none")
    machine = ask(edge, "/v1/models", headers={"X-Request-Id": "who-asked-1"})
    person = ask(edge, "/", headers={"Accept": "text/html"}, tls=True)
    edge.reset()

    assert (machine.status, machine.json["code"], machine.headers["Retry-After"]) == (503, "web_away", "2")
    assert machine.headers["Content-Type"] == "application/problem+json"
    assert machine.headers["X-Request-Id"] == machine.json["request_id"] == "who-asked-1"
    assert machine.headers["X-Content-Type-Options"] == "nosniff"
    assert (person.status, person.headers.get_content_type()) == (503, "text/html")
    servers.wait_until(lambda: " 503 GET /v1/models " in edge.log(), 30, "the line of the refusal")


@pytest.mark.parametrize("length", [0, 100_000])
def test_answer_that_breaks_off_in_the_release_does_so_here(edge: Edge, length: int) -> None:
    with pytest.raises(http.client.IncompleteRead) as found:
        ask(edge, f"/broken/{length}", tls=True)

    assert len(found.value.partial) == 50_000


def test_answers_keep_the_headers_that_the_release_gave_them(edge: Edge, service: Server) -> None:
    def headers(answer: Answer) -> list[tuple[str, str]]:
        kept = [(name, value) for name, value in answer.headers.items() if name not in ("Date", "Keep-Alive")]
        return sorted((name, value) for name, value in kept if name not in ("Connection", "X-Cask-Release"))

    mark = {"X-Request-Id": "the-same-1"}

    assert headers(ask(edge, "/livez", headers=mark)) == headers(service.ask("/livez", headers=mark))
