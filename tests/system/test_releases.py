"""An operator's change: in force after one command, or refused while what served serves on; and the way back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import ROOT, free_port, wait_until
from tests.system import containers, deploys
from tests.system.callers import asking
from tests.system.conftest import prepared
from tests.system.containers import IMAGE, Stack

ROLLBACK_SECONDS = 30.0
# Between two answers, to whichever caller.
GAP_SECONDS = 0.5
ODD_SECRET = "p$HOME ${A} $$ \"double\" 'single' back\\slash # no comment `id` ünï \\n "  # noqa: S105 - of the test


@pytest.fixture(scope="module")
def change(image: str) -> Iterator[Stack]:
    """One container for all of these tests, which follow each other: each begins with a ready one."""
    with prepared("change") as stack:
        stack.step("up", BUILD="no")
        stack.make_token("kept")
        yield stack


@dataclass
class Done:
    """A step that ended."""

    status: int
    out: str
    err: str


def step(stack: Stack, name: str, **settings: str) -> Done:
    """Run a step that may fail."""
    done = subprocess.run(
        [containers.STEPS / f"{name}.sh"],
        cwd=ROOT,
        env={**containers.environment(), **stack.settings(), "BUILD": "no", **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(done.stdout, done.stderr)
    return Done(done.returncode, done.stdout, done.stderr)


def local(stack: Stack, *lines: str) -> None:
    (stack.folder / "env" / "local.env").write_text("".join(f"{line}\n" for line in lines))


def in_force(stack: Stack, name: str) -> str:
    return stack.execute("python", "-m", "app.cli", "config", "get", name, "--secret")


def crowd() -> float:
    """Programs to a core: others may compute here too, and promises are for a machine that has a core for each."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def release(stack: Stack) -> int:
    return int(stack.inspect('{{json (index .Config.Labels "cask.release")}}'))


def test_nothing_changed_changes_nothing(change: Stack) -> None:
    before = change.id

    done = step(change, "up")

    assert done.status == 0
    assert "unchanged" in done.out
    assert change.id == before


def test_a_changed_setting_and_secret_are_in_force_after_one_command(change: Stack) -> None:
    # Limits load a package that nothing else needs.
    limit = "RATE_LIMIT_PER_ADDRESS=1000000/minute\r"
    local(change, "JOBS_MAX_IMAGES=321\r", "SERVER_NAME=localhost\r", limit)
    (change.folder / "secrets" / "ensemble_token").write_text(ODD_SECRET + "\n")

    with asking(change) as callers:
        done = step(change, "up", LOADTEST_TOKEN=ODD_SECRET)

    assert done.status == 0, done.err
    assert not callers.lost, callers.describe()
    assert callers.gap_seconds < GAP_SECONDS * crowd()
    assert in_force(change, "JOBS_MAX_IMAGES") == "321"
    assert change.execute("cat", "/run/secrets/loadtest_token") == ODD_SECRET.strip()
    for name in ("loadtest_token", "ensemble_token"):
        written = change.execute("python", "-c", f"print(repr(open('/run/secrets/{name}', 'rb').read()))")
        assert written == repr(ODD_SECRET.encode() + (b"\n" if name == "ensemble_token" else b""))


def test_what_was_edited_but_not_started_is_not_in_force_and_not_shown(change: Stack) -> None:
    before = in_force(change, "JOBS_MAX_IMAGES")
    local(change, "JOBS_MAX_IMAGES=many")

    containers.docker("restart", "-t", "40", change.id)
    wait_until(change.is_ready, 60, "/readyz after the restart, as at a reboot")

    assert in_force(change, "JOBS_MAX_IMAGES") == before
    local(change)


def test_secrets_are_for_one_user_and_in_no_other_place(change: Stack) -> None:
    modes = change.execute("sh", "-c", "stat -c '%a %u' /run/secrets/*").split("\n")

    assert modes
    assert set(modes) == {"400 10001"}
    assert {oct(path.stat().st_mode & 0o777) for path in (change.folder / "secrets").iterdir()} <= {"0o600", "0o644"}
    assert oct((change.folder / "secrets" / "secret_key").stat().st_mode & 0o777) == "0o600"
    shown = json.dumps(change.inspect("{{json .}}"), ensure_ascii=False) + change.logs()
    built = "".join(path.read_text(errors="replace") for path in (ROOT / "build").glob(f"compose.{change.project}.*"))
    assert "back\\slash" not in shown.replace("\\\\", "\\")
    assert "back\\slash" not in built


@pytest.mark.parametrize("case", ["setting", "port", "key", "secret", "image"])
def test_a_wrong_change_is_one_line_and_what_served_serves_on(change: Stack, case: str, tmp_path: Path) -> None:
    before, number = change.id, release(change)
    taken = socket.create_server(("127.0.0.1", 0))
    missing = tmp_path / "no-such.key"
    settings, words = {
        "setting": ({}, "WEB_THREADS is 'many'"),
        "port": ({"PORT": str(taken.getsockname()[1])}, "taken by another program"),
        "key": (
            {"HTTPS_PORT": str(free_port()), "TLS_CERTIFICATE": str(missing), "TLS_KEY": str(missing)},
            "cannot read",
        ),
        "secret": ({"SECRET_KEY": "changeme"}, "SECRET_KEY is"),
        "image": ({"CASK_IMAGE": "no-such-image:1"}, "needs the image"),
    }[case]
    if case == "setting":
        local(change, "WEB_THREADS=many")

    with taken, asking(change) as callers:
        done = step(change, "up", **settings)
    local(change)

    assert done.status != 0
    assert [line for line in done.err.splitlines() if words in line], done.err
    assert len(done.err.strip().splitlines()) == 2
    assert done.err.splitlines()[1].startswith("Next: ")
    if case != "image":
        assert f"release {number} " in done.err
    assert (change.id, release(change)) == (before, number)
    assert not callers.lost, callers.describe()


def test_a_release_that_is_never_ready_is_taken_away_and_no_caller_saw_it(change: Stack) -> None:
    number = release(change)

    with asking(change) as callers:
        # Right as a setting, so that the check passes.
        done = step(change, "up", DEVICE="cuda", WAIT_SECONDS="12")

    assert done.status == 1
    assert f"release {number + 1} does not serve, for it " in done.err
    assert f"release {number} " in done.err
    assert "serves on" in done.err
    assert release(change) == number
    assert not callers.lost, callers.describe()
    assert len(change.id.split()) == 1


def test_a_release_that_cannot_have_its_port_is_taken_away_and_the_edge_is_as_before(change: Stack) -> None:
    number = release(change)

    # Of no machine: only the engine can say that it cannot listen there.
    done = step(change, "up", LISTEN_HOST="203.0.113.7")

    assert done.status == 1
    assert f"release {number + 1} does not serve, for the engine did not start it: " in done.err
    assert "serves on" in done.err
    assert release(change) == number
    assert change.ask("/readyz").status == 200


@contextmanager
def beginning(stack: Stack, steps: Path = containers.STEPS, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """`make up` as a terminal runs it: in a process group of its own, which Ctrl-C and a lost connection end."""
    environ = {**containers.environment(), **stack.settings(), "BUILD": "no", **settings}
    begun = subprocess.Popen(
        # What started the tests may have told its children to ignore them.
        ["env", "--default-signal=HUP,INT,TERM", steps / "up.sh"],
        env=environ,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield begun
    finally:
        begun.kill()
        begun.communicate()


def is_beside(stack: Stack) -> bool:
    return stack.named("trying") != ""


def is_making(stack: Stack) -> bool:
    """Whether Compose makes the second container: as it says itself."""
    return is_beside(stack) and "creating" in (ROOT / "build" / f"compose.{stack.project}.log").read_text().lower()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", [is_beside, is_making], ids=["begun", "making"])
def test_a_change_that_is_ended_before_it_is_ready_leaves_nothing(
    change: Stack, number: signal.Signals, moment: Callable[[Stack], bool]
) -> None:
    serving, before = release(change), change.id
    local(change, "JOBS_MAX_IMAGES=4")

    with asking(change) as callers, beginning(change) as begun:
        wait_until(lambda: moment(change) or begun.poll() is not None, 90, "a second container")
        os.killpg(begun.pid, number)
        said, _ = begun.communicate(timeout=60)
    local(change)

    assert begun.returncode == 128 + number, said
    assert f"interrupted before release {serving + 1} served. What served before serves on." in said
    assert not callers.lost, callers.describe()
    assert (release(change), change.id) == (serving, before)
    assert not is_beside(change)
    assert f"{change.project}_settings-{serving + 1}" not in containers.docker("volume", "ls", "-q")


def test_a_change_that_is_ended_while_nothing_serves_goes_back(change: Stack) -> None:
    serving, before = release(change), change.id
    local(change, "JOBS_MAX_IMAGES=5")

    with beginning(change, STOP_FIRST="yes") as begun:
        wait_until(lambda: change.named("current") == str(serving + 1), 120, "the change")
        os.killpg(begun.pid, signal.SIGINT)
        said, _ = begun.communicate(timeout=200)
    local(change)

    assert begun.returncode == 1, said
    assert f"release {serving + 1} does not serve, for it was interrupted before it served" in said
    assert (release(change), change.id) == (serving, before)
    assert change.ask("/readyz").status == 200


def another_clock(folder: Path) -> str:
    """A PATH with this machine's clock an hour behind the engine's, as of a laptop that asks a server."""
    behind = folder / "date"
    behind.write_text(f'#!/bin/sh\n[ "$*" = +%s ] && set -- -d "1 hour ago" +%s\nexec {shutil.which("date")} "$@"\n')
    behind.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_container_that_ends_is_told_by_its_status_whatever_the_clock_here_says(
    change: Stack, tmp_path: Path
) -> None:
    serving = release(change)
    local(change, "JOBS_MAX_IMAGES=8")

    with asking(change) as callers, beginning(change, PATH=another_clock(tmp_path)) as begun:
        trying = ("ps", "-q", "--filter", f"label=cask.release={serving + 1}")
        wait_until(lambda: is_beside(change) or begun.poll() is not None, 90, "the end of the check")
        wait_until(lambda: containers.docker(*trying) or begun.poll() is not None, 90, "a second container")
        containers.docker("kill", containers.docker(*trying))
        said, _ = begun.communicate(timeout=60)
    local(change)

    assert begun.returncode == 1, said
    assert f"release {serving + 1} does not serve, for it ended with status 137" in said
    assert not callers.lost, callers.describe()
    assert release(change) == serving


def listening_client(folder: Path) -> Path:
    """A client of the engine that hears signals also where they were ignored at its start, as newer ones do."""
    client = folder / "docker"
    client.write_text(f'#!/bin/sh\nexec env --default-signal=HUP,INT,TERM {shutil.which("docker")} "$@"\n')
    client.chmod(0o755)
    return client


def test_a_connection_that_is_lost_during_the_switch_does_not_stop_it(change: Stack, tmp_path: Path) -> None:
    serving = release(change)
    local(change, "JOBS_MAX_IMAGES=6")

    with asking(change) as callers, beginning(change, DOCKER=str(listening_client(tmp_path))) as begun:
        assert begun.stdout is not None
        wait_until(lambda: "the old one finishes" in begun.stdout.readline(), 120, "the switch")
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.killpg(begun.pid, number)
        said, _ = begun.communicate(timeout=120)
    local(change)

    assert begun.returncode == 0, said
    assert not callers.lost, callers.describe()
    assert release(change) == serving + 1
    assert in_force(change, "JOBS_MAX_IMAGES") == "6"


def test_one_change_at_a_time_from_whichever_folder(change: Stack, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", ROOT, other], check=True)
    shutil.copytree(containers.STEPS, other / "docker" / "steps", dirs_exist_ok=True)
    local(change, "JOBS_MAX_IMAGES=9")

    with beginning(change) as begun:
        wait_until(lambda: is_beside(change), 90, "a second container")
        with beginning(change, other / "docker" / "steps") as second:
            refused, _ = second.communicate(timeout=60)
        said, _ = begun.communicate(timeout=120)
    local(change)

    assert second.returncode == 1
    assert "found another command that does" in refused
    assert begun.returncode == 0, said


def test_a_container_of_others_that_has_the_name_is_said(change: Stack) -> None:
    serving = release(change)
    names = [f"{change.project}{mark}cask{mark}{number}" for mark in "_-" for number in range(1, 20)]
    taken = set(containers.docker("ps", "-a", "--format", "{{.Names}}").split())
    made = [containers.docker("create", "--name", name, IMAGE) for name in names if name not in taken]
    local(change, "JOBS_MAX_IMAGES=11")

    done = step(change, "up")
    local(change)
    containers.docker("rm", *made)

    assert done.status == 1
    assert "is already in use by container" in done.err
    assert "serves on" in done.err
    assert release(change) == serving


def test_what_a_killed_change_left_is_cleared_away_by_the_next(change: Stack) -> None:
    local(change, "JOBS_MAX_IMAGES=5")
    with beginning(change) as begun:
        wait_until(lambda: is_beside(change), 90, "a second container")
        os.killpg(begun.pid, signal.SIGKILL)

    done = step(change, "up")
    local(change)

    assert done.status == 0
    assert len(change.id.split()) == 1
    assert not is_beside(change)
    assert in_force(change, "JOBS_MAX_IMAGES") == "5"


def test_a_damaged_file_of_tokens_is_refused_before_anything_is_touched(change: Stack) -> None:
    path = "/var/lib/cask/tokens.sqlite3"
    change.execute("cp", path, "/var/lib/cask/kept.copy")
    change.execute("sh", "-c", f"head -c 5000 /dev/urandom >{path}")
    before = change.id
    local(change, "JOBS_MAX_IMAGES=4")

    done = step(change, "up")
    change.execute("sh", "-c", f"rm -f {path}-wal {path}-shm; cat /var/lib/cask/kept.copy >{path}")
    local(change)

    assert done.status != 0
    assert "not a database" in done.err
    assert "set it aside" in done.err
    assert change.id == before


def test_first_look_works_as_it_is_written(change: Stack) -> None:
    text = (ROOT / "docs" / "operations.md").read_text().split("## First look", 1)[1].split("```")[1]
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    environment = {**containers.environment(), **change.settings()}

    assert len(commands) >= 4
    for command in commands:
        asked = command.replace("localhost:8000", f"localhost:{change.port}")
        done = subprocess.run(
            ["bash", "-c", asked], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        print(asked, done.stdout[:300], done.stderr[:300])
        assert "Traceback" not in done.stdout + done.stderr
        if "doctor" in command:
            # What it finds about this machine is not ours to say.
            assert " fail." in done.stdout
        else:
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        if "status" in command:
            rows = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip()]
            assert ["Ready", "yes"] in rows
            assert {"Models", "Load", "Memory", "Settings"} <= {row[0] for row in rows}
        if "curl" in command:
            assert json.loads(done.stdout)["ready"] is True


def test_another_engine_than_docker_is_never_asked_of_docker(change: Stack) -> None:
    before = change.id

    done = step(change, "up", DOCKER="podman-that-is-not-here")

    assert done.status == 2
    assert "podman-that-is-not-here" in done.err
    assert change.id == before


def test_rollback_goes_back_and_further_back_and_says_when_it_cannot(change: Stack) -> None:
    newest = release(change)
    with asking(change, "ready") as callers:
        began = time.monotonic()
        first = step(change, "rollback")
        took = time.monotonic() - began
    second = step(change, "rollback")
    third = step(change, "rollback")

    print(f"the first rollback took {took:.1f} s, with {crowd():.1f} programs to a core")
    assert first.status == second.status == 0
    assert took < ROLLBACK_SECONDS * crowd()
    assert not callers.lost, callers.describe()
    assert f"from release {newest} " in first.out
    assert f"to release {newest - 1} " in first.out
    assert f"to release {newest - 2} " in second.out
    assert third.status == 1
    assert "nothing to go back to" in third.err
    assert f"kept are: {newest} {newest - 1} {newest - 2}" in third.err
    assert step(change, "rollback", RELEASE=str(newest)).status == 0
    assert release(change) == newest


def test_processes_are_replaced_one_by_one_and_each_action_has_a_line(change: Stack) -> None:
    # While the only process of a role is replaced /readyz says so; what callers ask waits for the new one.
    with asking(change) as callers:
        done = step(change, "recycle")
    said = step(change, "history", COUNT="200").out

    assert done.status == 0, done.err
    assert "web " in done.out
    assert not callers.lost, callers.describe()
    for words in ("deploy", "rollback", "recycle", "serves", "refused: WEB_THREADS is 'many'", "interrupted"):
        assert words in said, words
    assert ODD_SECRET.strip() not in said


def test_what_differs_between_files_and_what_runs_is_said(change: Stack) -> None:
    before = step(change, "ps").out
    local(change, "JOBS_MAX_IMAGES=77")
    (change.folder / "secrets" / "ensemble_token").write_text("another\n")
    after = step(change, "ps").out
    local(change)

    assert "stands by" in before
    assert "env/local.env secrets/ensemble_token: make up" in after


def test_a_power_cut_brings_back_who_served_and_who_is_never_ready_gives_way(change: Stack) -> None:
    assert step(change, "up", JOBS_MAX_IMAGES="8").status == 0
    serving, before = change.named("current"), change.named("previous")

    cut = kill_all(change)
    wait_until(lambda: cut.isdisjoint(deploys.pids(change)) and change.is_ready(), 120, "/readyz after the power cut")
    assert change.named("current") == serving

    # As of a release that its machine does not bear any more: it ends at each start.
    change.execute("sh", "-c", f"echo 3 >/edge/tries-{serving}")
    cut = kill_all(change)
    wait_until(lambda: cut.isdisjoint(deploys.pids(change)) and change.is_ready(), 120, "/readyz after another")
    wait_until(lambda: change.named("current") == before, 60, "the release before to be named")
    wait_until(change.is_ready, 120, "/readyz of the release before")
    assert "fall back" in step(change, "history").out


# The last: between releases with and without TLS the edge is made anew, which nobody may expect of the others.
def test_a_certificate_is_in_force_after_one_command_and_a_pair_that_does_not_fit_is_refused(
    change: Stack, tmp_path: Path
) -> None:
    certificate, key, other = tmp_path / "site.pem", tmp_path / "site.key", tmp_path / "other.key"
    port = free_port()
    tls = {"HTTPS_PORT": str(port), "TLS_CERTIFICATE": str(certificate), "TLS_KEY": str(key)}
    _make_pair(tmp_path / "first.pem", other)
    _make_pair(certificate, key)
    # For root alone: the container's user gets a copy of its own.
    key.chmod(0o600)

    assert step(change, "up", **tls).status == 0
    first = ssl.get_server_certificate(("127.0.0.1", port))
    smoke = step(change, "smoke", **tls)
    _make_pair(tmp_path / "new.pem", tmp_path / "new.key")
    # As certbot does it: another file takes the place of the old one.
    (tmp_path / "new.pem").rename(certificate)
    (tmp_path / "new.key").rename(key)
    # With TLS, the plain port answers questions about health alone.
    with asking(change, "ready") as callers:
        renewed = step(change, "reload", **tls)
    second = ssl.get_server_certificate(("127.0.0.1", port))
    number = release(change)
    refused = step(change, "up", **{**tls, "TLS_KEY": str(other)})

    assert "samples right" in smoke.out
    assert "serves from the next handshake on" in renewed.out
    assert "unchanged" in renewed.out
    assert not callers.lost, callers.describe()
    assert first != second
    assert second.strip() == certificate.read_text().strip()
    assert refused.status != 0
    assert "is not the key of" in refused.err
    assert release(change) == number


def kill_all(stack: Stack) -> set[int]:
    """Every container's first process, and with it all others, in the way of a machine that loses its power; which."""
    killed = set(deploys.pids(stack))
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return killed


def _make_pair(certificate: Path, key: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "90", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*command, *names, "-out", str(certificate), "-keyout", str(key)], check=True, capture_output=True, timeout=60
    )
