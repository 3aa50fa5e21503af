"""With HTTP2=on, HTTPS speaks that too, all the way to the engine."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.telemetry import metrics, shards
from tests import servers
from tests.servers import Server

# Of the web process; each may write one answer.
THREADS = 16
# What a connection may have open at once.
STREAMS = 32
PATIENCE_SECONDS = 60.0

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl, found none")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with servers.own_certificates() as made:
        yield made


@pytest.fixture(scope="module")
def port() -> int:
    return servers.free_port()


@pytest.fixture(scope="module")
def server(folder: Path, port: int) -> Iterator[Server]:
    settings = {"TLS_CERTIFICATE": str(folder / "certificate.pem"), "TLS_KEY": str(folder / "key.pem")}
    # Nobody is refused because this machine is busy with other tests.
    settings |= {"REQUEST_MAX_WAIT_SECONDS": "60", "WEB_THREADS": str(THREADS)}
    with servers.running("test", HTTPS_PORT=str(port), HTTP2="on", **settings) as running:
        yield running


def ask(folder: Path, port: int, path: str, *words: str) -> tuple[str, str, str]:
    """Version of HTTP, status and body, as curl sees them."""
    command = ["curl", "-sS", "--cacert", str(folder / "authority.pem"), "-w", "\n%{http_version} %{response_code}"]
    url = f"https://localhost:{port}{path}"
    done = subprocess.run([*command, *words, url], capture_output=True, text=True, timeout=60, check=True)
    body, _, said = done.stdout.rpartition("\n")
    version, _, status = said.partition(" ")
    return version, status, body


def test_http2_answers_as_http1_does(server: Server, folder: Path, port: int, sample_path: Path) -> None:
    image = ("-H", "Content-Type: image/jpeg", "--data-binary", f"@{sample_path}")
    asked = {"/v1/detect": image, "/livez": (), "/v1/models/none": ()}
    found = {
        version: {path: ask(folder, port, path, f"--http{version}", *words) for path, words in asked.items()}
        for version in ("1.1", "2")
    }
    unknown_length = (*image[:2], "-H", "Content-Length:", *image[2:])

    assert all(answer[0] == version for version in found for answer in found[version].values())
    assert [found["2"][path][1] for path in asked] == ["200", "200", "404"]
    assert [found["1.1"][path][1] for path in asked] == ["200", "200", "404"]
    assert json.loads(found["2"]["/v1/detect"][2]).keys() == json.loads(found["1.1"]["/v1/detect"][2]).keys()
    assert ask(folder, port, "/v1/detect", "--http2", *unknown_length)[1] == "200"
    # A stream that has ended is no caller who went away.
    assert " 499 " not in server.log()


@pytest.mark.usefixtures("server")
def test_many_streams_of_one_connection_are_all_answered(folder: Path, port: int, sample_path: Path) -> None:
    command = ["curl", "-sS", "--http2", "-Z", "--parallel-max", "8", "--cacert", str(folder / "authority.pem")]
    command += ["-H", "Content-Type: image/jpeg", "--data-binary", f"@{sample_path}", "-o", "/dev/null"]
    urls = f"https://localhost:{port}/v1/detect#[1-8]"

    done = subprocess.run(
        [*command, "-w", "%{response_code}\n", urls], capture_output=True, text=True, timeout=120, check=True
    )

    assert done.stdout.split() == ["200"] * 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def ask_and_read_nothing(port: int, path: bytes) -> socket.socket:
    """As many streams as there may be, of whose answers one byte may be sent."""
    context = ssl._create_unverified_context()  # noqa: S323 - a certificate of this test
    context.set_alpn_protocols(["h2"])
    line = context.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
    assert line.selected_alpn_protocol() == "h2"
    # GET, https, the path and the host as literals (RFC 7541).
    head = b"\x82\x87\x04" + bytes([len(path)]) + path + b"\x01\x09localhost"
    window_of_one = frame(4, 0, 0, b"\0\x04" + (1).to_bytes(4, "big"))
    streams = b"".join(frame(1, 5, number, head) for number in range(1, 2 * STREAMS, 2))
    line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window_of_one + streams)
    return line


def test_streams_that_nobody_reads_hold_no_thread_of_the_app(server: Server, port: int) -> None:
    path, connections = "/openapi.json", 2

    def answered() -> float:
        found = [each.series for each in shards.read(server.state_dir) if each.role == "web"]
        name = metrics.REQUESTS.name
        counted = [(key.labels, values) for series in found for key, values in series.items() if key.name == name]
        return sum(values[0] for labels, values in counted if labels[0] == path)

    with contextlib.ExitStack() as lines:
        for _ in range(connections):
            lines.enter_context(ask_and_read_nothing(port, path.encode()))
        servers.wait_until(
            lambda: answered() >= connections * STREAMS, PATIENCE_SECONDS, "the app to be done with all of them"
        )
