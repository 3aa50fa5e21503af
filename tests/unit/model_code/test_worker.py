"""A model worker: answers, refuses, and costs only its own requests when it crashes, hangs, stops or lies."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import py_compile
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.config import ROOT
from app.errors import ModelCrashedError, ModelLoadError, ModelNotReadyError, UnavailableError
from app.host import machine
from app.model_code import child, folder, leftovers
from app.model_code.worker import ModelWorker, Spec
from app.supervision import pulse
from app.telemetry import metrics
from tests.unit.model_code import folders

HEAD = "import os, sys, time, signal, ctypes\nimport numpy as np\nfrom cask import *\nclass Mine(Model):\n"
BOX = (
    "from dataclasses import dataclass\nfrom cask import *\n@dataclass\nclass Box:\n    a: int\n"
    "    def __post_init__(self):\n        if self.a < 0: raise ValueError('a is negative')\nclass Mine(Model):\n"
)
SAME = "    def predict(self, x: list[int]) -> list[int]: return x\n"
Open = Callable[..., ModelWorker]
PATIENCE_SECONDS = 60.0


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    workers: list[ModelWorker] = []

    def open_one(code: str = "", head: str = HEAD, **limits: Any) -> ModelWorker:
        place = tmp_path / f"model{len(workers)}"
        if code:
            place.mkdir()
            (place / "model.py").write_text(head + code)
        else:
            folders.tickets(place)
        spec = dataclasses.replace(Spec("mine@1", place), **limits)
        workers.append(ModelWorker(spec))
        return workers[-1]

    yield open_one
    for each in workers:
        each.close()


def ask(running: ModelWorker, *values: Any, **options: Any) -> list[Any]:
    """What each item of one parameter got: an answer, or how it failed."""
    rows = running.ask(options, [([value], b"") for value in values])
    return [json.loads(row["answer"]) if row["bytes"] else (row.get("refused") or row.get("failed")) for row in rows]


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, "did not come to be"
        time.sleep(0.02)


def is_back(running: ModelWorker, *values: Any) -> bool:
    try:
        ask(running, *values)
    except UnavailableError:
        return False
    return True


def test_answers_refuses_and_prints_without_harm(opened: Open) -> None:
    running = opened()
    running.start()

    answers = ask(running, "billing billing shipping", " ", top=1)

    assert answers == [[{"label": "billing", "score": 2 / 3}], "the text is empty"]
    until(lambda: "somebody asks" in running.lines)
    assert running.signature["max_batch_size"] == 16


def test_pixels_arrive_as_an_image(opened: Open) -> None:
    running = opened(
        "    def predict(self, photo: list[Image]) -> list[list[int]]:\n"
        "        return [[*each.pixels.shape, each.width, int(each.pixels[1, 0, 2])] for each in photo]\n"
    )
    running.start()
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    item = ([[0, pixels.nbytes, pixels.shape, 40, 20]], pixels.reshape(-1).data)

    rows = running.ask({}, [item, item])

    assert [json.loads(row["answer"]) for row in rows] == [[2, 4, 3, 40, 14]] * 2


def test_memory_is_used_again_by_the_next_call_and_goes_back_at_rest(opened: Open) -> None:
    running = opened(
        "    def predict(self, x: list[int]) -> list[int]:\n"
        "        before = faults()\n"
        "        for _ in range(10): [np.ones(3_000_000, np.uint8) for _ in range(10)]\n"
        "        return [faults() - before]\n"
        "def faults():\n"
        "    import resource\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
    )
    running.start()

    first, second = ask(running, 1)[0], ask(running, 1)[0]
    held = resident_bytes(running.pid)

    # Thirty megabytes have 7300 pages, each of which costs a fault when it comes from the system.
    assert first > 7000
    assert second < 700
    until(lambda: resident_bytes(running.pid) < held - 20_000_000)


def test_memory_stays_while_another_thread_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, trims = [], []

    class Busy:
        @property
        def used_at(self) -> float:
            looks.append(time.monotonic())
            return looks[-1] if len(looks) < 3 else 0.0

    def serve() -> None:
        with theirs, contextlib.suppress(EOFError):
            child._serve(theirs, Busy())  # type: ignore[arg-type]

    monkeypatch.setattr(child, "REST_SECONDS", 0.01)
    monkeypatch.setattr(machine, "trim_memory", lambda: trims.append(len(looks)))
    ours, theirs = socket.socketpair()
    with ours:
        thread = threading.Thread(target=serve)
        thread.start()
        until(lambda: bool(trims))
    thread.join()

    # Once, and then no more until somebody calls.
    assert trims == [3]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_array_of_answers_is_as_good_as_a_list(opened: Open) -> None:
    running = opened("    def predict(self, x: list[int]) -> list[float]: return np.array(x, 'float32') / 2\n")
    running.start()

    assert ask(running, 1, 2) == [0.5, 1.0]


def test_answer_too_large_for_the_service_fails_alone(opened: Open) -> None:
    running = opened("    def predict(self, x: list[int]) -> list[str]: return ['a' * each for each in x]\n")
    running.start()

    assert ask(running, 2, 17 * 1024**2, 1) == ["aa", "AnswerTooLarge", "a"]
    # As a batch they are too large together: the largest are left out.
    large = 15 * 1024**2
    answers = ask(running, *[large] * 9, 1)
    assert [answers.count(each) for each in ("a" * large, "AnswerTooLarge", "a")] == [8, 1, 1]
    until(lambda: any("answer less" in line for line in running.lines))


def test_batch_too_large_for_one_frame_is_asked_in_parts(opened: Open) -> None:
    running = opened("    def predict(self, x: list[str]) -> list[int]: return [len(each) for each in x]\n")
    running.start()

    assert ask(running, *["a" * 3 * 1024**2] * 5) == [3 * 1024**2] * 5
    assert running.starts == 1


def test_option_that_its_own_class_refuses_costs_nobody_else_anything(opened: Open) -> None:
    running = opened("    def predict(self, x: list[int], *, box: Box = Box(1)) -> list[int]: return x\n", BOX)
    running.start()

    assert ask(running, 1, 2, box={"a": -1}) == ["a is negative"] * 2
    assert ask(running, 1, box={"a": 1}) == [1]
    assert running.starts == 1


def test_calls_run_at_once_where_the_model_allows_it(opened: Open) -> None:
    meet = "    met = threading.Barrier(2)\n"
    wait = "    def predict(self, x: list[int]) -> list[int]:\n        self.met.wait(20)\n        return x\n"
    running = opened(f"    import threading\n{meet}{wait}", calls=2)
    running.start()

    # Neither returns before the other has come.
    with ThreadPoolExecutor(2) as callers:
        answers = list(callers.map(lambda value: ask(running, value), (1, 2)))

    assert answers == [[1], [2]]


@pytest.mark.parametrize("calls", [1, 2])
def test_end_of_the_process_costs_every_call_in_flight_and_none_after(opened: Open, calls: int) -> None:
    running = opened(
        "    def predict(self, x: list[int]) -> list[int]:\n"
        "        print('asked\\n', end='', flush=True)\n        if x[0]: time.sleep(600)\n        return x\n",
        calls=calls,
    )
    running.start()

    with ThreadPoolExecutor(4) as callers:
        found = [callers.submit(ask, running, 1) for _ in range(calls + 1)]
        until(lambda: list(running.lines).count("asked") == calls)
        os.kill(running.pid, signal.SIGKILL)
        for each in found:
            with pytest.raises((ModelCrashedError, ModelNotReadyError)):
                each.result()

    until(lambda: is_back(running, 0))
    assert running.starts == 2


@pytest.mark.parametrize(
    ("body", "failed"),
    [
        ("return [10 // each for each in x]", "ZeroDivisionError"),
        ("return [each for each in x if each]", "ValueError"),
        ("return [each or None for each in x]", "TypeError"),
        ("return [each or sys.exit(1) for each in x]", "SystemExit"),
        ("return [each or self.stop(KeyboardInterrupt) for each in x]", "KeyboardInterrupt"),
        ("return [each or self.stop(GeneratorExit) for each in x]", "GeneratorExit"),
        ("return [each or self.stop(ValueError, is_silent=True) for each in x]", "ValueError"),
        ("return [each or np.zeros(10**11, 'uint8') for each in x]", "MemoryError|_ArrayMemoryError"),
    ],
)
def test_only_the_guilty_item_fails(opened: Open, body: str, failed: str) -> None:
    running = opened(
        f"    def predict(self, x: list[int]) -> list[int]:\n        {body}\n"
        "    def stop(self, error, is_silent=False):\n"
        "        if is_silent: os.closerange(0, 3)\n"
        "        raise error\n",
        memory_mb=2000,
    )
    running.start()

    first, second, third = ask(running, 1, 0, 2)

    assert isinstance(first, int)
    assert isinstance(third, int)
    assert second in failed.split("|")


@pytest.mark.parametrize(
    "death",
    [
        "os._exit(3)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "ctypes.string_at(0)",
        "time.sleep(600)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "os.closerange(3, 65536)",
    ],
)
def test_process_that_ends_or_hangs_costs_its_batch_and_comes_back(opened: Open, death: str) -> None:
    running = opened(
        f"    def predict(self, x: list[int]) -> list[int]:\n        if 0 in x: {death}\n        return x\n",
        timeout_seconds=3.0,
    )
    running.start()
    first = running.pid
    started = time.monotonic()

    with pytest.raises(ModelCrashedError) as raised:
        ask(running, 0)

    assert time.monotonic() - started < PATIENCE_SECONDS
    assert raised.value.retry_after_seconds
    until(lambda: is_back(running, 1))
    assert ask(running, 1, 2) == [1, 2]
    assert running.pid != first


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_idle_process_that_is_killed_or_stopped_is_replaced(opened: Open, sent: signal.Signals) -> None:
    running = opened()
    running.start()
    first = running.pid
    os.kill(first, sent)

    until(lambda: running.pid not in (0, first))
    until(lambda: is_back(running, "a"))
    assert running.starts == 2


def test_one_that_dies_at_once_is_started_ever_more_seldom(opened: Open, tmp_path: Path) -> None:
    code = f"    def load(self, folder):\n        if os.path.exists({str(tmp_path / 'bad')!r}): os._exit(7)\n" + SAME
    running = opened(code)
    running.start()
    (tmp_path / "bad").touch()
    os.kill(running.pid, signal.SIGKILL)

    until(lambda: "status 7" in running.error)
    with pytest.raises(ModelNotReadyError):
        ask(running, 1)
    time.sleep(2.0)
    # 0.5 s, 1 s, 2 s … after each other: no fork bomb.
    assert running.starts <= 4
    (tmp_path / "bad").unlink()
    until(lambda: is_back(running, 1))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("    def predict(self, x) -> list[int]: return x\n", "line 5: the parameter 'x' has no type"),
        ("    def load(self, folder): raise OSError('no weights')\n" + SAME, "OSError: no weights"),
        ("    def load(self, folder): os._exit(4)\n" + SAME, "status 4"),
        ("    def load(self, folder): time.sleep(99)\n" + SAME, "it did not load within 8 s"),
    ],
)
def test_model_that_does_not_load_says_why(opened: Open, code: str, said: str) -> None:
    # A busy machine takes seconds to start a process; only who sleeps is to meet the limit.
    running = opened(code, load_seconds=8.0 if "sleep" in code else 60.0)

    with pytest.raises(ModelLoadError) as raised:
        running.start()

    assert said in str(raised.value.message)
    assert not running.pid


def test_last_words_stand_in_the_error(opened: Open) -> None:
    running = opened("    print('about to fail')\n    raise KeyError('weights')\n")

    with pytest.raises(ModelLoadError) as raised:
        running.start()

    assert "its last lines: " in str(raised.value.message)
    assert running.reason.endswith("model.py, line 6: KeyError: 'weights'")
    assert "about to fail" in running.lines


@pytest.mark.parametrize("when", ["it computes", "it loads"])
def test_process_that_ends_takes_with_it_what_it_started(opened: Open, tmp_path: Path, when: str) -> None:
    pids, bad = tmp_path / "pids", tmp_path / "bad"
    code = (
        "    def leave(self):\n        import subprocess\n"
        "        children = [subprocess.Popen(['sleep', '600']) for _ in range(5)]\n"
        f"        open({str(pids)!r}, 'a').write(''.join(f'{{each.pid}} ' for each in children)); os._exit(0)\n"
        f"    def load(self, folder):\n        if os.path.exists({str(bad)!r}): self.leave()\n"
        "    def predict(self, x: list[int]) -> list[int]: self.leave()\n"
    )
    running = opened(code)
    if when == "it loads":
        bad.touch()
        with pytest.raises(ModelLoadError):
            running.start()
    else:
        running.start()
        with pytest.raises(ModelCrashedError):
            ask(running, 1)

    assert len(pids.read_text().split()) == 5
    until(lambda: all(_is_gone(int(pid)) for pid in pids.read_text().split()))


def test_closing_ends_the_process_and_what_it_started(opened: Open, tmp_path: Path) -> None:
    running = opened(
        "    def load(self, folder):\n        import subprocess\n"
        "        child = subprocess.Popen(['sleep', '600'])\n"
        f"        open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n" + SAME
    )
    running.start()
    started = int((tmp_path / "pid").read_text())
    running.close()

    assert not running.pid
    until(lambda: _is_gone(started))


def _is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_model_sees_no_setting_and_no_module_of_the_service(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hidden")
    running = opened(
        "    def predict(self, x: list[int]) -> list[list[str]]:\n"
        "        ours = [path for path in sys.path if os.path.exists(path + '/flask.wsgi')]\n"
        "        return [[os.environ.get('SECRET_KEY', ''), *ours]]\n"
    )
    running.start()

    assert ask(running, 1) == [[""]]


def test_changed_file_does_not_run_when_the_process_is_started_again(opened: Open, tmp_path: Path) -> None:
    running = opened(SAME)
    seal = folder.Seal(running.spec.folder, folder.digest(running.spec.folder))
    running.spec = dataclasses.replace(running.spec, check=seal.check)
    running.start()
    path = running.spec.folder / "model.py"
    added = path.read_bytes()
    path.write_bytes(added.replace(b"return x", b"return y"))
    os.kill(running.pid, signal.SIGKILL)

    until(lambda: "was altered" in running.trouble)
    assert running.starts == 1
    path.write_bytes(added)
    until(lambda: is_back(running, 1))


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("os._exit(3)", "exit"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal"),
        ("time.sleep(600)", "hung"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "stopped"),
    ],
)
def test_restart_is_counted_with_its_reason(
    opened: Open, monkeypatch: pytest.MonkeyPatch, does: str, reason: str
) -> None:
    counted: list[dict[str, str]] = []
    monkeypatch.setattr(metrics.MODEL_WORKER_RESTARTS, "add", lambda count=1, **labels: counted.append(labels))
    code = f"    def predict(self, x: list[int]) -> list[int]:\n        if 0 in x: {does}\n        return x\n"
    running = opened(code, timeout_seconds=2.0 if reason == "hung" else 60.0)
    running.start()
    with contextlib.suppress(UnavailableError):
        ask(running, 0)

    until(lambda: counted != [])
    assert counted == [{"model": "mine", "reason": reason}]


@pytest.mark.parametrize("when", ["it is killed", "the engine is killed"])
def test_what_left_the_session_goes_too(opened: Open, tmp_path: Path, when: str) -> None:
    """As a daemon that a library starts: a session of its own, out of reach for a signal to the group."""
    pids = tmp_path / "pids"
    code = (
        "    def load(self, folder):\n        import subprocess\n"
        "        child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"        open({str(pids)!r}, 'a').write(f'{{child.pid}} ')\n" + SAME
    )
    if when == "it is killed":
        running = opened(code)
        running.start()
        os.kill(running.pid, signal.SIGKILL)
    else:
        running = opened(code)
        engine = (
            "import sys, time; from pathlib import Path; from app.model_code.worker import ModelWorker, Spec\n"
            "ModelWorker(Spec('mine@1', Path(sys.argv[1]))).start(); print('loaded', flush=True); time.sleep(600)"
        )
        command = [sys.executable, "-c", engine, str(running.spec.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"loaded\n"
            other.kill()
        running.start()

    first = int(pids.read_text().split()[0])
    until(lambda: _is_gone(first))
    until(lambda: is_back(running, 1))


def test_environment_of_a_process_that_begins_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel writes it last: for a moment, long on a busy machine, a process runs its program and shows none."""
    found = iter([b"", b"", b"A=1"])
    with subprocess.Popen(["sleep", "600"]) as young:
        monkeypatch.setattr(Path, "read_bytes", lambda path: next(found))
        try:
            assert leftovers._environment(str(young.pid)) == b"A=1"
        finally:
            young.kill()


def test_who_has_no_environment_is_not_waited_for_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "BEGINNING_SECONDS", 0.1)
    with subprocess.Popen(["sleep", "600"], env={}) as bare:
        assert leftovers._environment(str(bare.pid)) == b""
        bare.kill()
        bare.wait()
        with pytest.raises(OSError, match="No such file"):
            leftovers._environment(str(bare.pid))


def test_caller_does_not_wait_for_a_child_that_holds_the_socket(opened: Open) -> None:
    """A forked child keeps the descriptor that its parent had; nobody reads it."""
    running = opened(
        "    def predict(self, x: list[int]) -> list[int]:\n"
        "        if 0 in x and os.fork() == 0: os.setsid(); time.sleep(600)\n"
        "        if 0 in x: os._exit(0)\n        return x\n",
        timeout_seconds=PATIENCE_SECONDS * 4,
    )
    running.start()
    started = time.monotonic()
    with pytest.raises(ModelCrashedError):
        ask(running, 0)

    assert time.monotonic() - started < PATIENCE_SECONDS
    until(lambda: is_back(running, 1))


def test_model_inherits_no_descriptor_and_no_path_of_the_engine(opened: Open) -> None:
    held = socket.socket()
    held.set_inheritable(True)
    with held:
        running = opened(
            "    def predict(self, x: list[int]) -> list[list[str]]:\n"
            "        held = ['/proc/self/fd/' + each for each in os.listdir('/proc/self/fd')]\n"
            "        found = [os.readlink(each) for each in held if os.path.lexists(each)]\n"
            "        return [[os.environ.get('PYTHONPATH', ''), *found]]\n"
        )
        running.start()
        (((path, *descriptors),),) = (ask(running, 1),)

    assert path == ""
    assert sorted(each.partition(":")[0] for each in descriptors) == ["/dev/null", "pipe", "pipe", "socket"]


def test_stale_bytecode_is_not_run(opened: Open) -> None:
    """With the time and size of the source, as an edit within a second has, or somebody who may write there."""
    running = opened(
        "    def predict(self, x: list[int]) -> list[int]:\n        import beside; return [beside.A for _ in x]\n"
    )
    for name in ("model", "beside"):
        path = running.spec.folder / f"{name}.py"
        good = path.read_text() if path.exists() else "A = 1\n"
        path.write_text(good.replace("A = 1", "A = 2").replace("beside.A", "7 + 0000"[:8]))
        py_compile.compile(str(path), doraise=True)
        stamp = path.stat()
        path.write_text(good)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    running.start()

    assert ask(running, 3) == [1]


def test_crash_in_c_says_where(opened: Open) -> None:
    running = opened("    def predict(self, x: list[int]) -> list[int]: return ctypes.string_at(0)\n")
    running.start()
    with pytest.raises(ModelCrashedError):
        ask(running, 1)

    until(lambda: any("model.py" in line and "in predict" in line for line in running.lines))


def test_model_may_have_an_app_of_its_own(opened: Open) -> None:
    """`app` is what half of the world calls a module, and Cask too."""
    code = "    def predict(self, x: list[int]) -> list[str]: return [app.__file__ for _ in x]\n"
    running = opened(code, head="import app\nfrom cask import Model\nclass Mine(Model):\n")
    (running.spec.folder / "app.py").write_text("")
    running.start()

    assert ask(running, 1) == [f"{running.spec.folder}/app.py"]


def test_load_that_is_async_is_refused(opened: Open) -> None:
    """Nobody would wait for it, and each call would miss what it was to read."""
    running = opened("    async def load(self, folder): self.a = 1\n" + SAME)

    with pytest.raises(ModelLoadError, match="load is async; write def load"):
        running.start()


def test_model_that_prints_on_and_on_makes_no_thread_of_the_engine_look_like_a_loop(opened: Open) -> None:
    running = opened(
        "    def load(self, folder):\n"
        "        import threading\n"
        "        threading.Thread(target=self.talk, daemon=True).start()\n"
        "    def talk(self):\n"
        "        while True: print('on and on', flush=True); time.sleep(0.001)\n" + SAME
    )
    running.start()

    until(lambda: running._listener is not None and running._listener.native_id in pulse.heat.begun())
