"""One image and one running container for the whole session; without a container engine these tests are left out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import containers
from tests.system.containers import IMAGE, STEPS, Stack


@pytest.fixture(scope="session")
def image() -> str:
    """The image of this tree, built as `make image` does. In CI an engine must be there; elsewhere its lack is said."""
    reason = containers.missing_engine()
    if reason and os.environ.get("CI") != "true":
        pytest.skip(f"left out: {reason}")
    assert not reason, f"CI runs these tests, but {reason}"
    containers.run(STEPS / "base-image.sh")
    containers.run(STEPS / "build.sh", CASK_IMAGE=IMAGE)
    return IMAGE


@pytest.fixture(scope="session")
def stack(image: str) -> Iterator[Stack]:
    """A running container. A test may harm it when it leaves it ready again."""
    with running("shared") as stack:
        yield stack


@pytest.fixture
def own_stack(image: str) -> Iterator[Stack]:
    """A running container for one test, which may end it."""
    with running("own") as stack:
        yield stack


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
def running(name: str) -> Iterator[Stack]:
    """A stack that `make up` has brought to ready."""
    with prepared(name) as stack:
        stack.step("up", BUILD="no")
        yield stack


@pytest.fixture
def run_once(image: str) -> Callable[..., tuple[int, str]]:
    """`docker run` to its end, with these options: exit status and what it printed."""

    def run(*options: str, command: tuple[str, ...] = ()) -> tuple[int, str]:
        script = 'docker run --rm --read-only --tmpfs /tmp "$@"; echo "status $?"'
        output = containers.run("bash", "-c", script, "run", *options, image, *command)
        lines, _, status = output.rpartition("status ")
        return int(status), lines

    return run
