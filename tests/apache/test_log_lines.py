"""Each line of the log is one JSON object in UTC, whatever callers send, and none of them can write one of ours."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server, wait_until

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FORGED = '{"time":"2026-01-01T00:00:00.000Z","level":"critical","logger":"forged"}'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """With lines as JSON, in a time zone that is not UTC."""
    with servers.running("test", LOG_FORMAT="json", TZ="Asia/Kolkata") as running:
        yield running


def send(server: Server, request: bytes) -> None:
    """Send bytes and read until the end."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def lines(server: Server) -> list[dict[str, object]]:
    """All lines; raises ValueError where one is not JSON."""
    return [json.loads(line) for line in server.log_path.read_bytes().split(b"\n") if line]


def percent(raw: bytes) -> bytes:
    return b"".join(b"%%%02x" % byte for byte in raw)


RAW = [
    b'"quote\\back',
    b"\x01\x1b[31m\x7f",
    b"\xff\xfe\xc3",
    "tab\tline\nreturn\r\u2028\u2029\u0085".encode(),
    "päth→".encode(),
    FORGED.encode(),
    b"\n" + FORGED.encode() + b"\n",
    b'","status":500,"x":"',
    b"x" * 5000 + FORGED.encode(),
    b"access\t1\t1\t1",
]


def test_every_line_is_one_json_object_in_utc(server: Server) -> None:
    for number, raw in enumerate(RAW):
        head = b"\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: line-%04d\r\n" % number
        send(server, b"GET /" + percent(raw) + b" HTTP/1.1" + head + b"\r\n")
        send(server, b"GET /static/" + percent(raw) + b" HTTP/1.1" + head + b"\r\n")
        send(server, b"GET /version HTTP/1.1" + head + b"User-Agent: " + raw.replace(b"\n", b"") + b"\r\n\r\n")
        send(server, raw + b" / HTTP/1.1" + head + b"\r\n")
    wait_until(lambda: f"line-{len(RAW) - 1:04d}" in server.log(), 30, "the last line")

    found = lines(server)

    assert all(MOMENT.fullmatch(str(line["time"])) for line in found)
    own = [line for line in found if line["logger"] == "core"]
    assert own, "Apache said that it started"
    assert all(line["role"] == "httpd" and line["level"] == "notice" for line in own[:1]), own[0]
    mark = (server.state_dir / "run" / "httpd" / "log-mark").read_text().strip()
    assert mark not in server.log()
    assert not [line for line in found if line["logger"] == "forged" or line["level"] == "critical"]
    now = datetime.now(UTC)
    for line in found:
        said = datetime.fromisoformat(str(line["time"]))
        assert timedelta(0) <= now - said < timedelta(minutes=10), line
    paths = {line["path"] for line in found if line["logger"] == "access"}
    assert '/"quote\\back' in paths
    assert "/päth→" in paths
    assert f"/{FORGED}" in paths
    assert "/\n" + FORGED + "\n" in paths


REFUSED_STARTS = {
    "a wrong value": {"PORT": "70000"},
    "an unknown name": {"WEB_THRADS": "3"},
    "a port that is not ours": {"PORT": "1", "LISTEN_HOST": "192.0.2.1"},
    "no Python": {"CASK_PYTHON": '/no"where\\\\n'},
}


@pytest.mark.parametrize("given", REFUSED_STARTS.values(), ids=REFUSED_STARTS)
def test_what_ends_a_start_is_a_line_of_the_log_too(given: dict[str, str], tmp_path: Path) -> None:
    def start(*arguments: str, **settings: str) -> list[str]:
        ended = subprocess.run(
            ["bash", "apache/serve.sh", *arguments],
            cwd=servers.ROOT,
            env=servers.environment("test", STATE_DIR=str(tmp_path / "state"), **given, **settings),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stdout) == (2, "")
        return ended.stderr.splitlines()

    as_objects, as_text, checked = start(LOG_FORMAT="json"), start(), start("--check", LOG_FORMAT="json")

    found = [json.loads(line) for line in as_objects]
    assert [line["message"] for line in found] == [line.removeprefix("FAIL: ") for line in as_text]
    assert all(line["level"] == "error" and MOMENT.fullmatch(line["time"]) for line in found)
    # Whoever asks for a check reads it.
    assert checked == as_text
