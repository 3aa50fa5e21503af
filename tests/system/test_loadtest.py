"""Load from containers: workers of their own, one verdict, nothing left behind; a killed worker takes the verdict."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest import harness
from loadtest.statuses import Status
from tests.loadtest.verdicts import NOTHING_AGAINST
from tests.servers import ROOT, wait_until
from tests.system import containers

STEP_SECONDS = 900.0
OPTIONS = ("--mix", "classify", "--rate", "60", "--seconds", "6", "--slo", "patient", "--timeout", "5")


# The step builds an image of its own, out of the same base.
pytestmark = pytest.mark.usefixtures("image")


@pytest.fixture
def url() -> Iterator[str]:
    with harness.faulty_server(slots=64, service_ms=5) as server:
        yield server.url


def start(url: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [containers.STEPS / "loadtest.sh", *options],
        cwd=ROOT,
        env={**containers.environment(), "ENV": "test", "LOADTEST_HOST": url, "WORKERS": "2"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_workers_in_containers_send_and_one_judges(url: str) -> None:
    step = start(url, *OPTIONS)
    printed, _ = step.communicate(timeout=STEP_SECONDS)

    found = re.search(r"Report: (.*)/report.html", printed)
    assert found, printed
    folder = Path(found[1])
    assert step.returncode in NOTHING_AGAINST, printed
    assert "2 of 2 finished" in printed
    assert all((folder / f"rows-{number}.bin").stat().st_size > 1000 for number in (0, 1))
    assert containers.docker("ps", "-aq", "--filter", f"name=cask-{folder.name}") == ""
    shutil.rmtree(folder)


def test_a_killed_worker_takes_the_verdict_with_it(url: str) -> None:
    step = start(url, *OPTIONS)
    assert step.stdout is not None
    workers = next(line for line in step.stdout if line.strip().startswith("workers"))
    name = workers.split("named ")[1].split(" ")[0]
    folder = ROOT / "loadtest" / "results" / name.removeprefix("cask-").removesuffix("-1")
    rows = [folder / f"rows-{number}.bin" for number in (0, 1)]
    wait_until(lambda: all(path.exists() and path.stat().st_size for path in rows), 90, "both workers to send")
    containers.docker("kill", name)
    printed, _ = step.communicate(timeout=STEP_SECONDS)

    assert step.returncode == Status.INVALID, printed
    assert "1 of 2 finished" in printed
    shutil.rmtree(folder)
