"""An answer that breaks off behind its status: its caller sees at once that it is not whole, by HTTP/1.1 and 2."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

# A view of a plugin, and an application of somebody else's, that stream alike.
PIECES = '''
import os, random, signal
LINES = 50
def pieces(kind):
    for _ in range(LINES):
        yield b"x" * 1000
    if kind == "raises":
        raise ValueError("no more")
    if kind == "exits":
        raise SystemExit(3)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
def odd(seed):
    """Bytes like those that end an answer, in pieces of all sizes."""
    chance = random.Random(seed)
    for _ in range(200):
        yield bytes(chance.choice((0, 0, 0, 48, 97, 102)) for _ in range(chance.choice((0, 1, 2, 33, 500))))
'''
PLUGIN = """
from flask import Blueprint, Response
from cask import public
from .pieces import odd, pieces
blueprint = Blueprint("lines", __name__)
@blueprint.get("/lines/<kind>/<int:length>")
@public
def lines(kind, length):
    answer = Response(pieces(kind), mimetype="text/csv")
    if length:
        answer.headers["Content-Length"] = str(length)
    return answer
@blueprint.get("/lines/odd/<int:seed>/")
@public
def of_odd(seed):
    return Response(odd(seed), mimetype="application/octet-stream")
"""
APPLICATION = """
from pieces import odd, pieces
def app(environ, start_response):
    kind, said = environ["PATH_INFO"].strip("/").split("/")
    headers = [("Content-Type", "text/csv"), *([("Content-Length", said)] if kind != "odd" and int(said) else [])]
    start_response("200 OK", headers)
    return odd(int(said)) if kind == "odd" else pieces(kind)
"""
SIZE = 50 * 1000
WAYS = ("/lines", "/theirs")
SEEDS = range(3)


@pytest.fixture(scope="module")
def certificates() -> Iterator[Path]:
    with servers.own_certificates() as made:
        yield made


@pytest.fixture(scope="module")
def https_port() -> int:
    return servers.free_port()


@pytest.fixture(scope="module")
def server(open_folder: Path, certificates: Path, https_port: int) -> Iterator[Server]:
    lines, theirs = (open_folder / "plugins" / name for name in ("lines", "theirs"))
    for folder, wsgi in ((lines, ""), (theirs, '[wsgi]\napplication = "theirs:app"\nmount = "/theirs"\n')):
        folder.mkdir(parents=True)
        (folder / "plugin.toml").write_text(f'name = "{folder.name}"\nversion = "1"\ncask = ">=1"\n{wsgi}')
        (folder / "pieces.py").write_text(PIECES)
    (lines / "__init__.py").write_text(PLUGIN)
    (theirs / "theirs.py").write_text(APPLICATION)
    tls = {"TLS_CERTIFICATE": str(certificates / "certificate.pem"), "TLS_KEY": str(certificates / "key.pem")}
    settings = {"PLUGINS_DIR": str(lines.parent), "HTTPS_PORT": str(https_port), "HTTP2": "on", **tls}
    with servers.running("test", **settings) as running:
        yield running


@pytest.fixture
def connection(server: Server, certificates: Path, https_port: int) -> Iterator[http.client.HTTPSConnection]:
    """It opens anew after it was closed."""
    context = ssl.create_default_context(cafile=certificates / "authority.pem")
    connection = http.client.HTTPSConnection("localhost", https_port, timeout=60, context=context)
    yield connection
    connection.close()


def ask(connection: http.client.HTTPSConnection, path: str) -> bytes:
    """The body. Raises IncompleteRead where it is not whole."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        raise


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [0, SIZE])
def test_whole_answer_is_whole(connection: http.client.HTTPSConnection, way: str, length: int) -> None:
    assert ask(connection, f"{way}/ends/{length}") == b"x" * SIZE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [0, SIZE, 2 * SIZE])
def test_answer_to_head_leaves_the_connection_open(
    connection: http.client.HTTPSConnection, way: str, length: int
) -> None:
    for _ in range(2):
        connection.request("HEAD", f"{way}/ends/{length}")
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.will_close) == (200, b"", False)
        assert "Cask-Ends-With" not in answer.headers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", SEEDS)
def test_bytes_that_look_like_an_end_arrive_as_they_are(
    connection: http.client.HTTPSConnection, way: str, seed: int
) -> None:
    made: dict[str, object] = {}
    exec(PIECES, made)  # noqa: S102 - what the servers run
    wanted = b"".join(made["odd"](seed))  # type: ignore[operator]
    path = f"{way}/odd/{seed}" + ("/" if way == WAYS[0] else "")

    assert hashlib.sha256(ask(connection, path)).digest() == hashlib.sha256(wanted).digest()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "length"), [("raises", 0), ("exits", 0), ("raises", 2 * SIZE), ("ends", 2 * SIZE)])
def test_answer_that_breaks_off_is_not_whole(
    server: Server, connection: http.client.HTTPSConnection, way: str, kind: str, length: int
) -> None:
    with pytest.raises(http.client.IncompleteRead) as found:
        ask(connection, f"{way}/{kind}/{length}")

    assert len(found.value.partial) == SIZE
    said = f"{SIZE} of {length} bytes came" if length else "its process did not end it"
    servers.wait_until(lambda: f"The answer broke off: {said}" in server.log(), 30, "the line of the log")


@pytest.mark.parametrize("way", WAYS)
def test_answer_of_a_process_that_is_killed_is_not_whole(
    server: Server, connection: http.client.HTTPSConnection, way: str
) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ask(connection, f"{way}/killed/0")
    servers.wait_until(lambda: _is_whole(connection, way), 60, "a process in its place")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, found none")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "length", "version", "code"),
    [
        ("ends", 0, "--http2", 0),
        # What curl ends with: a stream of HTTP/2 was closed with an error; a file came in part.
        ("raises", 0, "--http2", 92),
        ("raises", 2 * SIZE, "--http2", 92),
        ("raises", 0, "--http1.1", 18),
    ],
)
def test_by_tls(
    server: Server, https_port: int, certificates: Path, way: str, kind: str, length: int, version: str, code: int
) -> None:
    url = f"https://localhost:{https_port}{way}/{kind}/{length}"
    command = [
        "curl",
        "-sS",
        version,
        "--compressed",
        "--cacert",
        certificates / "authority.pem",
        "-o",
        "/dev/null",
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == code, done.stderr


def _is_whole(connection: http.client.HTTPSConnection, way: str) -> bool:
    try:
        return len(ask(connection, f"{way}/ends/0")) == SIZE
    except (AssertionError, OSError, http.client.HTTPException):
        return False
