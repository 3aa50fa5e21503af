"""Every role is stopped, holds Python's lock, or loops: readiness tells, it is replaced, and the others serve on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

REPLACED_SECONDS = 15.0
# What a machine that runs other tests too may add to it.
GRACE_SECONDS = 5.0
# To load the models again is no part of what is judged.
LOAD_SECONDS = 90.0
TOLD_SECONDS = 2.0
HANGING = Path(__file__).with_name("hanging")


@pytest.fixture(scope="module")
def hang_dir() -> Iterator[Path]:
    """Where files lie that say who is to hang."""
    path = servers.make_state_dir()
    path.chmod(0o777)
    yield path


@pytest.fixture(scope="module")
def server(hang_dir: Path) -> Iterator[Server]:
    """A service of two web processes that can be made to hang; every test leaves it ready again."""
    with servers.running(
        "test", WEB_PROCESSES="2", PYTHONPATH=str(HANGING), CASK_HANG_DIR=str(hang_dir), LOG_LEVEL="info"
    ) as running:
        yield running


def pids(server: Server, role: str) -> list[int]:
    """From shared memory, as the service itself knows them."""
    from app.telemetry import shards

    return [sign.pid for sign in shards.signs(server.state_dir) if sign.role == role and sign.beat]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def hang(kind: str, pid: int, hang_dir: Path) -> None:
    if kind == "stop":
        servers.suspend(pid)
    else:
        (hang_dir / "new").write_text(kind)
        (hang_dir / "new").rename(hang_dir / str(pid))


def status(server: Server, path: str, image: bytes | None = None, timeout: float = 10) -> int:
    try:
        return server.ask(path, image, {"Content-Type": "image/jpeg"} if image else {}, timeout=timeout).status
    except OSError:
        return 0


@pytest.mark.parametrize("kind", ["stop", "lock", "loop"])
@pytest.mark.parametrize("role", ["engine", "web", "ops", "jobs"])
def test_who_hangs_is_told_and_replaced(
    server: Server, hang_dir: Path, sample_path: Path, role: str, kind: str
) -> None:
    whole = {"engine": 1, "web": 2, "ops": 1, "jobs": 1}
    servers.wait_until(lambda: {each: len(pids(server, each)) for each in whole} == whole, 60, "all of them")
    servers.wait_until(server.is_ready, 60, "the service")
    victim, began = pids(server, role)[0], time.monotonic()
    others = {each: pids(server, each) for each in ("engine", "web", "ops", "jobs") if each != role}

    hang(kind, victim, hang_dir)
    told: float | None = None
    while is_alive(victim):
        assert time.monotonic() - began < REPLACED_SECONDS + GRACE_SECONDS, (
            f"{victim} still hangs:\n{server.log()[-3000:]}"
        )
        if told is None and (_is_not_ready(server, role, kind) or _says(server, role)):
            told = time.monotonic() - began
        time.sleep(0.1)
    servers.wait_until(lambda: set(pids(server, role)) - {victim} and server.is_ready(), LOAD_SECONDS, "another one")

    assert f"{victim}: it" in server.log()
    assert told is not None and told < TOLD_SECONDS + GRACE_SECONDS
    assert status(server, "/v1/detect", sample_path.read_bytes()) == 200
    assert {each: pids(server, each) for each in others} == others


def _is_not_ready(server: Server, role: str, kind: str) -> bool:
    """No answer within two seconds says so, too. But while ops holds its lock, Apache answers in its place."""
    if (role, kind) == ("ops", "lock"):
        return status(server, "/readyz", timeout=0.5) == 503
    return status(server, "/readyz", timeout=2) != 200


def _says(server: Server, role: str) -> bool:
    """The jobs' worker is no reason against ready: callers who wait need it not."""
    if role != "jobs":
        return False
    rows = server.ask("/readyz").json["processes"]
    return any(row["role"] == "jobs" and row["state"] == "silent" for row in rows)


def test_a_stopped_child_of_apache_is_replaced(server: Server, sample_path: Path) -> None:
    servers.wait_until(server.is_ready, 60, "the service")
    victim = next(pid for pid in server.pids("apache") if pid != server.process.pid)

    servers.suspend(victim)
    servers.wait_until(lambda: not is_alive(victim), REPLACED_SECONDS, "its end")
    servers.wait_until(server.is_ready, LOAD_SECONDS, "another one")

    assert status(server, "/v1/detect", sample_path.read_bytes()) == 200


@pytest.mark.parametrize("callers", [2, 40, 300])
def test_a_stopped_engine_is_replaced_however_many_wait(server: Server, sample_path: Path, callers: int) -> None:
    """With a full listen queue nobody can connect any more, which looks as though nobody listened."""
    servers.wait_until(server.is_ready, 60, "the service")
    (victim,) = pids(server, "engine")
    servers.suspend(victim)
    with ExitStack() as stack:
        for _ in range(callers):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            try:
                one.connect(str(server.state_dir / "run" / "engine.sock"))
            except BlockingIOError:
                break
        servers.wait_until(lambda: not is_alive(victim), REPLACED_SECONDS + GRACE_SECONDS, "its end")
    servers.wait_until(server.is_ready, LOAD_SECONDS, "another one")

    assert status(server, "/v1/detect", sample_path.read_bytes()) == 200
