"""Counting together: exact over processes, whatever becomes of them; and only what was declared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.telemetry import logs, metrics, shards
from app.telemetry.metrics import IN_FLIGHT, JOB_SECONDS, JOBS, REQUESTS, RESTARTS, UndeclaredError
from app.telemetry.shards import MetricsShard
from tests.servers import ROOT

COUNT = """
import sys, os, signal
from pathlib import Path
from app.telemetry import metrics
folder, role, count, end = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
metrics.begin(folder, role)
for _ in range(count):
    metrics.JOBS.add(outcome="queued")
    metrics.JOB_SECONDS.observe(0.25)
metrics.IN_FLIGHT.add(1)
print("counted", flush=True)
if end == "wait":
    sys.stdin.read()
elif end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """Afterwards this process counts for itself again."""
    yield
    metrics._use(MetricsShard.in_memory())
    metrics._place = None


def process(folder: Path, count: int, end: str, role: str = "web") -> subprocess.Popen[str]:
    """A process that has counted so often; it ends, kills itself or waits until its input is closed."""
    child = subprocess.Popen(
        [sys.executable, "-c", COUNT, str(folder), role, str(count), end],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "counted\n"
    if end != "wait":
        child.communicate()
    return child


def queued(folder: Path) -> float:
    return metrics.read(folder)[JOBS]["queued",][0]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / shards.FOLDER).iterdir())


def test_sums_are_exact_over_threads(tmp_path: Path) -> None:
    metrics.begin(tmp_path, "web")

    def count() -> None:
        for _ in range(5000):
            JOBS.add(outcome="queued")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert queued(tmp_path) == 40_000


def test_processes_that_ended_are_kept_and_their_files_used_again(tmp_path: Path) -> None:
    for end in ("clean", "kill", "kill", "clean"):
        process(tmp_path, 10, end)

    assert queued(tmp_path) == 40
    assert files(tmp_path) == ["web-0"]


def test_processes_at_the_same_time_have_a_file_each(tmp_path: Path) -> None:
    first = process(tmp_path, 3, "wait")
    second = process(tmp_path, 4, "wait")
    third = process(tmp_path, 5, "wait", role="engine")

    assert queued(tmp_path) == 12
    assert files(tmp_path) == ["engine-0", "web-0", "web-1"]
    for child in (first, second, third):
        child.communicate()
    assert queued(tmp_path) == 12


def test_gauges_are_those_of_the_living(tmp_path: Path) -> None:
    living, dying = process(tmp_path, 0, "wait"), process(tmp_path, 0, "wait")

    assert metrics.read(tmp_path)[IN_FLIGHT][()] == [2]
    dying.kill()
    dying.communicate()
    assert metrics.read(tmp_path)[IN_FLIGHT][()] == [1]

    successor = process(tmp_path, 0, "wait")
    assert metrics.read(tmp_path)[IN_FLIGHT][()] == [2]
    for child in (living, successor):
        child.communicate()


def test_a_histogram_is_summed_bucket_by_bucket(tmp_path: Path) -> None:
    process(tmp_path, 3, "kill")
    metrics.begin(tmp_path, "ops")
    JOB_SECONDS.observe(0.5)
    JOB_SECONDS.observe(1e6)

    row = metrics.read(tmp_path)[JOB_SECONDS][()]

    assert row[JOB_SECONDS.buckets.index(0.5)] == 4
    assert row[len(JOB_SECONDS.buckets)] == 1
    assert row[-1] == pytest.approx(3 * 0.25 + 0.5 + 1e6)


@pytest.mark.parametrize(("end", "cause"), [("kill", "killed"), ("clean", "stopped"), ("hang", "hang")])
def test_the_successor_counts_why_the_one_before_it_ended(tmp_path: Path, end: str, cause: str) -> None:
    child = process(tmp_path, 1, "wait" if end == "hang" else end)
    if end == "hang":
        shards.note_hang(tmp_path, child.pid)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    before = metrics.read(tmp_path)[RESTARTS]
    process(tmp_path, 1, "clean")

    after = metrics.read(tmp_path)[RESTARTS]

    assert sum(row[0] for row in before.values()) == 0
    assert {labels: row[0] for labels, row in after.items() if row[0]} == {("web", cause): 1}


def test_a_fork_counts_for_itself(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from app.telemetry import metrics;"
        "metrics.begin(Path(sys.argv[1]), 'web'); metrics.JOBS.add(outcome='queued');"
        "child = os.fork(); metrics.JOBS.add(outcome='queued');"
        "child and os.waitpid(child, 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)

    assert queued(tmp_path) == 3
    assert files(tmp_path) == ["web-0", "web-1"]


def test_what_was_not_declared_cannot_be_counted(tmp_path: Path) -> None:
    with pytest.raises(UndeclaredError, match="not declared"):
        metrics.metric("cask_invented_total")
    with pytest.raises(UndeclaredError, match="'lost'"):
        JOBS.add(outcome="lost")
    with pytest.raises(UndeclaredError, match="has the labels"):
        JOBS.add()
    with pytest.raises(UndeclaredError, match="has the labels"):
        JOBS.add(outcome="queued", kind="x")
    with pytest.raises(UndeclaredError, match="looked up"):
        metrics.READY.set(1)


def test_labels_in_another_order_are_the_same_series(tmp_path: Path) -> None:
    metrics.begin(tmp_path, "web")
    REQUESTS.add(route="/x", method="GET", status="200", by="app")
    REQUESTS.add(by="app", status="200", method="GET", route="/x")

    assert metrics.read(tmp_path)[REQUESTS] == {("/x", "GET", "200", "app"): [2]}


def test_where_no_file_can_be_made_requests_are_answered_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").write_text("no folder")

    metrics.begin(tmp_path, "web")
    JOBS.add(outcome="queued")

    assert "cannot be shared" in caplog.text


def test_a_full_file_loses_counts_but_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics.begin(tmp_path, "web")
    for number in range(10_000):
        REQUESTS.add(route=f"/{number}", method="GET", status="200", by="app")
        if caplog.records:
            break

    assert "was not counted" in caplog.text
    assert len(metrics.read(tmp_path)[REQUESTS]) > 1000


def test_a_full_file_stops_nobody_who_counts_log_lines_too(tmp_path: Path) -> None:
    metrics.begin(tmp_path, "web")
    told = logs.Counter()
    metrics.log.addHandler(told)
    try:
        counting = threading.Thread(target=_fill, daemon=True)
        counting.start()
        counting.join(60)
    finally:
        metrics.log.removeHandler(told)

    assert not counting.is_alive()


def _fill() -> None:
    for number in range(10_000):
        REQUESTS.add(route=f"/{number}", method="GET", status="200", by="app")


def test_a_file_that_is_not_ours_is_left_out(tmp_path: Path) -> None:
    process(tmp_path, 2, "kill")
    (tmp_path / shards.FOLDER / "web-7").write_bytes(b"x" * 1000)
    (tmp_path / shards.FOLDER / "web-8").write_bytes(b"")

    assert queued(tmp_path) == 2


def test_counting_costs_next_to_no_files_time_or_imports() -> None:
    code = (
        "import sys, json; from app.telemetry import metrics;"
        "print(json.dumps([n for n in ('flask', 'prometheus_client', 'pydantic') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    assert json.loads(done.stdout) == []


def test_memory_is_watched_by_one_thread_however_many_apps_are_made() -> None:
    for _ in range(3):
        metrics.watch_memory("web")

    assert [thread.name for thread in threading.enumerate()].count("memory") == 1


def test_code_that_ran_once_is_let_go_while_there_is_work() -> None:
    code = (
        "import threading, time\n"
        "from app.host import machine\n"
        "from app.telemetry import metrics\n"
        "let_go, at_rest = threading.Event(), threading.Event()\n"
        "machine.forget_mapped_files, machine.trim_memory = let_go.set, at_rest.set\n"
        "metrics.LULL_PERIOD_SECONDS = metrics.FORGET_PERIOD_SECONDS = 0.02\n"
        "metrics.watch_memory('web')\n"
        "until = time.monotonic() + 60\n"
        "while not let_go.is_set() and time.monotonic() < until:\n"
        "    pass\n"
        "print(let_go.is_set(), at_rest.wait(60))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout == "True True\n"


def test_what_a_rush_freed_is_given_back_when_it_is_over() -> None:
    """In a process of its own: there is one watching thread, and what it looks at is the process's own work."""
    code = (
        "import threading, time\n"
        "from app.host import machine\n"
        "from app.telemetry import metrics\n"
        "given_back = threading.Event()\n"
        "machine.trim_memory = given_back.set\n"
        "metrics.LULL_PERIOD_SECONDS = 0.05\n"
        "metrics.watch_memory('web')\n"
        "until = time.process_time() + 0.3\n"
        "while time.process_time() < until:\n"
        "    pass\n"
        "print(given_back.wait(20))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout == "True\n"
