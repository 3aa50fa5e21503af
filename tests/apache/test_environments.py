"""dev and prod differ where they should, seen from outside; and a wrong ENV or secret never starts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests import servers
from tests.servers import Server

KEY = "5c1f0b7e93a84d26ba0e17c4f2d8396b"


@pytest.fixture(scope="module")
def dev() -> Iterator[Server]:
    with servers.running("dev") as server:
        yield server


@pytest.fixture(scope="module")
def prod() -> Iterator[Server]:
    with servers.running("prod", SECRET_KEY=KEY) as server:
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


def test_hsts_is_sent_in_prod_only(dev: Server, prod: Server) -> None:
    assert "Strict-Transport-Security" not in dev.ask("/").headers
    assert prod.ask("/").headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]


def test_code_is_watched_in_dev_only(dev: Server, prod: Server) -> None:
    assert "Starting change monitor" in dev.log()
    assert "Starting change monitor" not in prod.log()


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
