"""At the start of the service, who is waited for comes first, and only then."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from app.config import ROOT
from app.host import first_start
from app.models import runtime_variant

STEPPING = """
import os, threading
from app.host import first_start
end, ready = threading.Event(), threading.Barrier(3)
def wait(levels):
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + levels)
    ready.wait()
    end.wait()
threads = [threading.Thread(target=wait, args=(levels,)) for levels in (0, 9)]
for thread in threads: thread.start()
ready.wait()
before = os.nice(0)
first_start.step_back(4)
print([os.getpriority(os.PRIO_PROCESS, each) - before for each in (os.getpid(), *(t.native_id for t in threads))])
first_start.step_back(0)
print(os.nice(0) - before)
end.set()
"""


def test_every_thread_steps_back_but_one_that_is_behind_already() -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}

    done = subprocess.run([sys.executable, "-c", STEPPING], env=environ, capture_output=True, text=True, check=True)

    # There is no level after 19.
    own = os.nice(0)
    steps = [min(19, own + each) - own for each in (4, 4, 9)]
    assert done.stdout.splitlines() == [str(steps), str(steps[0])]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock stands still but for what is slept, and how long that was each time."""
    naps: list[float] = []
    clock = types.SimpleNamespace(monotonic=lambda: sum(naps), sleep=naps.append)
    monkeypatch.setattr(first_start, "time", clock)
    monkeypatch.setattr(first_start, "START_SECONDS", 1e9)
    return naps


def test_others_come_first_for_half_a_second_at_most(tmp_path: Path, slept: list[float]) -> None:
    first_start.wait_for_others(tmp_path)

    assert sum(slept) == pytest.approx(first_start.PATIENCE_SECONDS, abs=first_start.PERIOD_SECONDS)


def test_nobody_waits_once_the_engine_has_loaded_models(tmp_path: Path, slept: list[float]) -> None:
    (tmp_path / "run").mkdir()
    runtime_variant.write(tmp_path, {})

    first_start.wait_for_others(tmp_path)

    assert slept == []


def test_a_process_that_replaces_another_waits_for_nobody(
    tmp_path: Path, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_start, "START_SECONDS", -1.0)

    first_start.wait_for_others(tmp_path)

    assert slept == []
