"""Imports at the start of the service: behind the processes that callers wait for, and only then."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.config import ROOT
from app.host import first_start

MODULE = """
import os, threading
level = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
"""
# A program of its own, for what has stepped back stays so.
PROGRAM = """
import json, os, sys
from app.host import first_start
first_start.START_SECONDS = float(sys.argv[1])
before = os.nice(0)
first_start.import_behind("stepping")
import stepping
print(json.dumps({"imports": stepping.level - before, "rest": os.nice(0) - before}))
"""


@pytest.mark.parametrize(("start_seconds", "level"), [(60.0, first_start.NICE), (-1.0, 0)])
def test_only_imports_of_a_start_step_back(tmp_path: Path, start_seconds: float, level: int) -> None:
    (tmp_path / "stepping.py").write_text(MODULE)
    # The parent of the program begins with it, as Apache does with ops.
    command = f"{sys.executable} -c '{PROGRAM}' {start_seconds}; true"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{tmp_path}"}

    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=True)

    levels = json.loads(done.stdout)
    assert levels["rest"] == 0
    # What runs at a level near the last cannot step back further.
    assert levels["imports"] == min(level, 19 - os.nice(0))


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


def test_what_takes_long_is_left_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taking_long.py").write_text("import threading; threading.Event().wait(0.2)")
    (tmp_path / "left_over.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(first_start, "START_SECONDS", 1e9)
    monkeypatch.setattr(first_start, "PATIENCE_SECONDS", 0.01)

    first_start.import_behind("taking_long", "left_over")
    for thread in threading.enumerate():
        if thread.name == "imports":
            thread.join()

    assert "left_over" not in sys.modules


def test_what_is_wrong_with_a_module_is_told_where_it_is_imported_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(first_start, "START_SECONDS", 1e9)

    first_start.import_behind("app.no_such_module", "app.host.first_start")

    assert capsys.readouterr().err == ""
