"""Workers on another machine, which has a checkout and settings of its own and shares no folder with the planner.

The other machine is a copy of what the load test needs, in another folder and at another address.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loadtest import harness
from loadtest.statuses import Status
from tests.loadtest.verdicts import NOTHING_AGAINST
from tests.servers import ROOT, free_port, wait_until

# Far shorter than the run that is broken off here would take.
PATIENCE_SECONDS = 60.0
ASKS = """
def request(turn):
    return {"path": "/v1/classify", "data": b"x" * %d, "status": 200}
"""
OPTIONS = (
    "--profile",
    "smoke",
    "--rate",
    "60",
    "--seconds",
    "6",
    "--slo",
    "patient",
    "--timeout",
    "5",
    "--processes",
    "2",
)


@dataclass
class OtherMachine:
    """A checkout somewhere else, and the workers that were started there."""

    root: Path
    url: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def begin(self, port: int, *options: str) -> subprocess.Popen[str]:
        """Start a worker there, which may be there before the one that plans."""
        worker = subprocess.Popen(
            [sys.executable, "-m", "loadtest", "worker", "--master", f"127.0.0.1:{port}", *options],
            cwd=self.root,
            env={"PATH": os.environ["PATH"], "ENV": "test", "LOADTEST_HOST": self.url},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(worker)
        return worker


@pytest.fixture
def url() -> Iterator[str]:
    with harness.faulty_server(slots=64, service_ms=5) as server:
        yield server.url


@pytest.fixture
def there(url: str, tmp_path: Path) -> Iterator[OtherMachine]:
    root = tmp_path / "there"
    for name in ("app", "env", "loadtest", "models"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("results", "__pycache__", "local.env"))
    machine = OtherMachine(root, url)
    yield machine
    for worker in machine.started:
        with contextlib.suppress(ProcessLookupError):
            worker.terminate()
        worker.communicate()


def test_workers_send_what_the_plan_says_and_what_differs_is_refused(
    url: str, there: OtherMachine, tmp_path: Path
) -> None:
    port = free_port()
    here, copied = tmp_path / "asks.py", there.root / "asks.py"
    here.write_text(ASKS % 10)
    copied.write_text(ASKS % 11)
    options = (*OPTIONS, "--join", str(port), "--scenario", str(here))

    other = there.begin(port, "--processes", "2", "--scenario", "asks.py")
    ran = harness.run(url, *options)

    assert ran.status == Status.INVALID, ran.printed
    assert f"its scenario {copied} differs" in ran.printed
    assert "0 judged of 0" in ran.printed
    assert other.wait(PATIENCE_SECONDS) == Status.USAGE

    copied.write_text(ASKS % 10)
    there.begin(port, "--processes", "2", "--scenario", "asks.py")
    folder = tmp_path / "run"
    ran = harness.run(url, *options, folder=folder)

    assert ran.status in NOTHING_AGAINST, ran.printed
    assert "2 of 2 finished" in ran.printed
    assert all((folder / f"rows-{number}.bin").stat().st_size > 1000 for number in (0, 1))
    assert len(ran.table["fingerprint"]["workers"]) == 2


def test_a_machine_that_is_lost_ends_the_run_by_its_name(url: str, there: OtherMachine, tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "run"
    there.begin(port)
    lost = there.begin(port)
    with harness.begin(
        "run", *OPTIONS, "--mix", "classify", "--seconds", "600", "--join", str(port), "--folder", str(folder), url=url
    ) as run:
        try:
            rows = [folder / f"rows-{number}.bin" for number in (0, 1)]
            both = "both workers to send"
            wait_until(lambda: all(path.exists() and path.stat().st_size for path in rows), PATIENCE_SECONDS, both)
            # Without a word, as a machine that loses its power.
            (child,) = Path(f"/proc/{lost.pid}/task/{lost.pid}/children").read_text().split()
            lost.kill()
            os.kill(int(child), signal.SIGKILL)
            printed, _ = run.communicate(timeout=PATIENCE_SECONDS)
        finally:
            run.terminate()

    assert run.returncode == Status.INVALID, printed
    assert "has gone in mid-run; expected all 2 to finish" in printed
    arrived = harness.arrived_at(url)
    assert harness.arrived_at(url) == arrived + 1, "the other one has stopped"
