"""One image for all, one running container a process; without a container engine these tests are left out."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.servers import ROOT, wait_until
from tests.system import containers
from tests.system.containers import IMAGE, STEPS, RunOnce, Stack

READY_SECONDS = 120.0
TIMES = "{{.State.StartedAt}} {{.State.FinishedAt}}"


@pytest.fixture(scope="session")
def image() -> str:
    """The image of this tree, built as `make image` does. In CI an engine must be there; elsewhere its lack is said."""
    reason = containers.missing_engine()
    if reason and os.environ.get("CI") != "true":
        pytest.skip(f"left out: {reason}")
    assert not reason, f"CI runs these tests, but {reason}"
    lock = ROOT / "build" / "image.lock"
    lock.parent.mkdir(exist_ok=True)
    # Other processes of tests want the same image, and tests/run.sh begins it beside the first tests.
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        containers.run(STEPS / "base-image.sh")
        containers.run(STEPS / "build.sh", CASK_IMAGE=IMAGE)
    return IMAGE


@pytest.fixture(scope="session")
def stack(image: str) -> Iterator[Stack]:
    """A running container. A test may harm it when it leaves it ready again."""
    with running("shared") as stack:
        yield stack


@pytest.fixture(scope="module")
def ending_stack(image: str) -> Iterator[Stack]:
    """An engine that a test stops for a while is no hang to it, however slow this machine."""
    with running("own", ENGINE_HANG_SECONDS="600", REQUEST_TIMEOUT_SECONDS="120") as stack:
        yield stack


@pytest.fixture
def own_stack(ending_stack: Stack) -> Stack:
    """A running container, which a test may end: the next one starts it again."""
    containers.docker("start", ending_stack.id)
    wait_until(ending_stack.is_ready, READY_SECONDS, "the container to be ready")
    return ending_stack


@pytest.fixture
def unstarted(image: str) -> Iterator[Stack]:
    """A project whose container the test starts itself."""
    with prepared("new") as stack:
        yield stack


@contextmanager
def prepared(name: str) -> Iterator[Stack]:
    """A stack of this name, not started; whatever was started is taken away at the end, with its volume."""
    folder = Path(tempfile.mkdtemp(prefix="cask-"))
    # The container's user reads env/ in there.
    folder.chmod(0o755)
    stack = containers.make_stack(name, folder)
    try:
        yield stack
    finally:
        stack.step("down", VOLUMES="yes")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(name: str, **settings: str) -> Iterator[Stack]:
    """A stack that `make up` has brought to ready, with these settings in its local.env."""
    with prepared(name) as stack:
        (stack.folder / "env" / "local.env").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        stack.step("up", BUILD="no")
        yield stack


@pytest.fixture
def run_once(image: str) -> RunOnce:
    """`docker run` to its end, with these options: exit status, what it printed, and seconds from start to end."""

    def run(*options: str, command: tuple[str, ...] = ()) -> tuple[int, str, float]:
        id = containers.docker("create", "--read-only", "--tmpfs", "/tmp", *options, image, *command)  # noqa: S108
        try:
            containers.docker("start", id)
            status = int(containers.docker("wait", id))
            started, finished = containers.docker("inspect", "-f", TIMES, id).split()
            return status, containers.docker("logs", id), _seconds(finished) - _seconds(started)
        finally:
            containers.docker("rm", "--force", "--volumes", id)

    return run


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
