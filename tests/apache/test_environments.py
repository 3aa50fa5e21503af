"""dev and prod differ where they should, seen from outside; log lines are JSON; what is wrong stops a start."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FORGED = '{"time":"2026-01-01T00:00:00.000Z","level":"critical","logger":"forged"}'
KEY = "5c1f0b7e93a84d26ba0e17c4f2d8396b"


@pytest.fixture(scope="module")
def dev() -> Iterator[Server]:
    with servers.running("dev") as server:
        yield server


@pytest.fixture(scope="module")
def prod() -> Iterator[Server]:
    """In a time zone that is not UTC."""
    with servers.running("prod", SECRET_KEY=KEY, TZ="Asia/Kolkata") as server:
        yield server


def test_logs_are_for_people_in_dev(dev: Server) -> None:
    dev.ask("/v1/models/nobody")

    # Apache writes the line when the answer is on its way.
    servers.wait_until(lambda: " ACCESS " in dev.log(), 30, "the access log's line")
    assert '{"time"' not in dev.log()


def test_logs_are_json_in_prod(prod: Server) -> None:
    prod.ask("/v1/models/nobody")

    servers.wait_until(lambda: '"logger": "access"' in prod.log(), 30, "the access log's line")
    lines = [json.loads(line) for line in prod.log().splitlines()]
    assert {"access", "cask.web", "cask.engine"} <= {line["logger"] for line in lines}


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


def test_every_line_is_one_json_object_in_utc(prod: Server) -> None:
    for number, raw in enumerate(RAW):
        head = b"\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: line-%04d\r\n" % number
        send(prod, b"GET /" + percent(raw) + b" HTTP/1.1" + head + b"\r\n")
        send(prod, b"GET /static/" + percent(raw) + b" HTTP/1.1" + head + b"\r\n")
        send(prod, b"GET /version HTTP/1.1" + head + b"User-Agent: " + raw.replace(b"\n", b"") + b"\r\n\r\n")
        send(prod, raw + b" / HTTP/1.1" + head + b"\r\n")
    servers.wait_until(lambda: f"line-{len(RAW) - 1:04d}" in prod.log(), 30, "the last line")

    found = lines(prod)

    assert all(MOMENT.fullmatch(str(line["time"])) for line in found)
    own = [line for line in found if line["logger"] == "core"]
    assert own, "Apache said that it started"
    assert all(line["role"] == "httpd" and line["level"] == "notice" for line in own[:1]), own[0]
    mark = (prod.state_dir / "run" / "httpd" / "log-mark").read_text().strip()
    assert mark not in prod.log()
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


def test_hsts_is_sent_in_prod_only(dev: Server, prod: Server) -> None:
    assert "Strict-Transport-Security" not in dev.ask("/").headers
    assert prod.ask("/").headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]


def test_debug_is_on_in_dev_only() -> None:
    from app import config

    assert config.load({"ENV": "dev"}).debug
    assert not config.load({"ENV": "prod", "SECRET_KEY": KEY}).debug


def test_both_say_which_they_are(dev: Server, prod: Server) -> None:
    assert dev.ask("/status").json["environment"] == "dev"
    assert prod.ask("/status").json["environment"] == "prod"


@pytest.mark.parametrize(
    ("env", "settings", "words"),
    [
        ("prdo", {}, "ENV is 'prdo'"),
        ("prod", {"SECRET_KEY": "change-me"}, "SECRET_KEY"),
        ("prod", {}, "SECRET_KEY is not set"),
        ("dev", {"ENGINE_WORKRES": "2"}, "ENGINE_WORKRES"),
        ("dev", {"WEB_THREADS": "many"}, "WEB_THREADS is 'many'"),
        ("dev", {"MODELS": "nobody"}, "MODELS names 'nobody'"),
    ],
)
def test_a_wrong_setting_stops_the_start_at_once(env: str, settings: dict[str, str], words: str) -> None:
    state_dir = servers.make_state_dir()

    done = subprocess.run(
        [servers.ROOT / "apache" / "serve.sh"],
        env=servers.environment(env, PORT=str(servers.free_port()), STATE_DIR=str(state_dir), **settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert not (state_dir / "run" / "httpd" / "httpd.pid").exists()
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "change-me" not in done.stderr


def test_a_taken_port_is_said_before_anything_is_written() -> None:
    import socket

    state_dir = servers.make_state_dir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [servers.ROOT / "apache" / "serve.sh"],
            env=servers.environment("test", PORT=str(port), STATE_DIR=str(state_dir)),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert not (state_dir / "run").exists()


@pytest.mark.parametrize(
    ("place", "words"), [("/proc/cask.log", "permission denied for /proc"), ("/dev/null/x", "/dev/null is no folder")]
)
def test_a_log_file_that_cannot_be_written_stops_the_start(place: str, words: str) -> None:
    given = {"PORT": str(servers.free_port()), "STATE_DIR": str(servers.make_state_dir()), "LOG_FILE": place}
    done = subprocess.run(
        [servers.ROOT / "apache" / "serve.sh"],
        env=servers.environment("test", **given),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert f"may not write LOG_FILE ({place}): {words}" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root hands over to another user")
def test_what_the_service_user_may_not_read_is_said_before_the_start() -> None:
    folder = servers.make_state_dir()
    secret = folder / "secret_key"
    secret.write_text(KEY)
    secret.chmod(0o600)
    closed = folder / "closed"
    closed.mkdir(mode=0o700)

    for settings, words in (
        ({"SECRET_KEY_FILE": str(secret)}, f"{secret}, which cannot be read (Permission denied)"),
        ({"SECRET_KEY": KEY, "STATE_DIR": str(closed / "state")}, f"may not enter {closed}"),
    ):
        given = {"PORT": str(servers.free_port()), "STATE_DIR": str(servers.make_state_dir()), **settings}
        done = subprocess.run(
            [servers.ROOT / "apache" / "serve.sh"],
            env=servers.environment("prod", **given),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 2
        assert words in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes a user without a name")
def test_a_user_without_a_name_is_said_before_apache_stumbles_over_it() -> None:
    state = servers.make_state_dir()
    os.chown(state, 54321, 54321)
    done = subprocess.run(
        [servers.ROOT / "apache" / "serve.sh", "--check"],
        env=servers.environment("test", PORT=str(servers.free_port()), STATE_DIR=str(state)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        user=54321,
        group=54321,
        extra_groups=[],
    )

    assert done.returncode == 2
    assert "the user 54321 has no name in /etc/passwd" in done.stderr


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
    # The person who asks for a check reads it.
    assert checked == as_text
