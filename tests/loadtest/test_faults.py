"""Real Locust against a server with ordered faults, and the real service: what is found, by count and logic."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loadtest import driver, harness, outcomes, pictures, request_log, selftest
from loadtest.selftest import Finding
from loadtest.statuses import Status
from tests import servers
from tests.loadtest.verdicts import NOTHING_AGAINST

# Far shorter than the runs that are ended here would take.
PATIENCE_SECONDS = 60.0


@pytest.mark.parametrize("check", selftest.BY_LOGIC, ids=lambda check: check.__name__)
def test_an_ordered_fault_is_found(check: Callable[[], Finding]) -> None:
    finding = check()

    assert finding.is_right, f"{finding.found}; expected {finding.expected}"


def test_the_real_service_answers_rightly_under_load(served: servers.Server, tmp_path: Path) -> None:
    ran = harness.run(
        served.url, "--mix", "callers", "--rate", "5", "--seconds", "6", "--slo", "relaxed", folder=tmp_path / "run"
    )

    assert right_answers(ran) > 0
    assert ran.figures["server_ms"]["predict"]["p50"] > 0
    assert (tmp_path / "run" / "junit.xml").exists()


def test_the_inference_protocol_answers_rightly_under_load(served: servers.Server) -> None:
    ran = harness.run(
        served.url, "--mix", "infer", "--rate", "8", "--seconds", "9", "--timeout", "20", "--slo", "patient"
    )

    # Most of them: a machine so slow that it refuses half of eight a second shows nothing.
    assert right_answers(ran) > ran.figures["counts"]["judged"] / 2 > 10, ran.printed


def test_jobs_are_followed_to_their_results_and_leave_nothing(served: servers.Server) -> None:
    # The service is everybody's in this run of tests, and others leave jobs on purpose.
    before = _jobs(served)
    ran = harness.run(served.url, "--mix", "jobs", "--rate", "3", "--seconds", "6", "--slo", "patient")

    assert right_answers(ran) > 10, ran.printed
    # Who was given up may have left one; the others took theirs away.
    assert len(_jobs(served) - before) <= ran.figures["counts"]["timed_out"]


def right_answers(ran: harness.Ran) -> int:
    """How many answers were right when no other was wrong. A slow machine may refuse some: that is calm, no fault."""
    counts = ran.figures["counts"]
    assert (counts["wrong"], counts["mixed_up"], counts["failed"], counts["broken"]) == (0, 0, 0, 0), ran.printed
    return int(counts["right"])


def _jobs(served: servers.Server) -> set[str]:
    return {job["id"] for job in served.ask("/v1/jobs?limit=200").json["jobs"]}


def test_two_processes_share_the_arrivals_and_one_verdict_is_on_both(tmp_path: Path) -> None:
    options = ("--rate", "60", "--seconds", "4", "--processes", "2", "--slo", "patient")
    with harness.faulty_server(slots=32, service_ms=5) as server:
        ran = harness.run(server.url, *options, folder=tmp_path / "run")

    kept = [request_log.read_one(tmp_path / "run" / f"rows-{worker}.bin") for worker in (0, 1)]
    assert ran.status in NOTHING_AGAINST, ran.printed
    assert ran.figures["generator"]["workers"] == 2
    # Each sends every other arrival of the same schedule, and nobody sends one twice.
    assert abs(kept[0].size - kept[1].size) <= 1
    assert not set(kept[0]["intended"]) & set(kept[1]["intended"])
    assert sum(each.size for each in kept) == ran.figures["counts"]["all"]


def test_callers_of_the_closed_model_wait_for_their_answers() -> None:
    with harness.faulty_server(slots=16, service_ms=50) as server:
        ran = harness.run(server.url, "--model", "closed", "--callers", "4", "--seconds", "4", "--slo", "patient")

    # Four callers who wait 50 ms each ask 80 times a second at most.
    assert ran.status in NOTHING_AGAINST, ran.printed
    assert 0 < ran.figures["counts"]["right"] <= 4 * 80


def test_a_target_that_breaks_is_left_alone() -> None:
    with harness.faulty_server(slots=16, fail_every=2) as server:
        ran = harness.run(server.url, "--profile", "breakpoint", "--rate", "100", "--seconds", "60")
        arrived = harness.arrived_at(server.url)

    assert ran.status == Status.FAIL, ran.printed
    assert next(each for each in ran.table["checks"] if each["name"] == "target protected")["status"] == "FAIL"
    # Half of a minute's requests would be three thousand.
    assert arrived < 1000


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_the_load_stops_when_the_driver_is_ended(ended_by: signal.Signals, tmp_path: Path) -> None:
    options = ("--mix", "classify", "--rate", "50", "--seconds", "600", "--folder", str(tmp_path / "run"))
    with harness.faulty_server(slots=16) as server:
        driver = subprocess.Popen(
            [sys.executable, "-m", "loadtest", "run", *options],
            cwd=servers.ROOT,
            env=servers.environment("test", LOADTEST_HOST=server.url),
        )
        try:
            servers.wait_until(lambda: harness.arrived_at(server.url) > 60, PATIENCE_SECONDS, "the load to begin")
            driver.send_signal(ended_by)
            driver.wait(PATIENCE_SECONDS)
            servers.wait_until(lambda: is_quiet(server.url), PATIENCE_SECONDS, "the load to stop")
        finally:
            driver.kill()

    assert driver.returncode == (Status.INVALID if ended_by == signal.SIGTERM else -signal.SIGKILL)


def test_nothing_stays_when_the_driver_is_ended_before_locust_has_begun(tmp_path: Path) -> None:
    options = ("--mix", "classify", "--rate", "5", "--seconds", "600", "--folder", str(tmp_path / "run"))
    with harness.faulty_server(slots=16) as server:
        driver = subprocess.Popen(
            [sys.executable, "-m", "loadtest", "run", *options],
            cwd=servers.ROOT,
            env=servers.environment("test", LOADTEST_HOST=server.url),
        )
        # The log is opened, and Locust started, in the same breath.
        servers.wait_until((tmp_path / "run" / "locust.log").exists, PATIENCE_SECONDS, "Locust to be started")
        driver.kill()
        driver.wait(PATIENCE_SECONDS)

        servers.wait_until(lambda: not started_for(tmp_path / "run"), PATIENCE_SECONDS, "Locust to end")


def started_for(folder: Path) -> list[int]:
    """Processes whose command names this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def is_quiet(url: str) -> bool:
    """Whether a second passes in which nobody else asks; at 50 a second nobody is missed."""
    before = harness.arrived_at(url)
    threading.Event().wait(1.0)
    return harness.arrived_at(url) == before + 1


def test_a_redirect_is_not_followed() -> None:
    with harness.faulty_server() as other, harness.faulty_server(redirect_to=f"{other.url}/v1/classify") as server:
        ran = harness.run(server.url)

        # Golden answers cannot be had from a redirect, so nothing is sent at all.
        assert ran.status == Status.INVALID
        assert harness.arrived_at(other.url) == 0


def locust(*options: str, url: str) -> subprocess.Popen[str]:
    """Locust as people start it, without our driver."""
    file = () if "-f" in options else ("-f", "loadtest/locustfile.py")
    command = [sys.executable, "-m", "locust", *file, "--mix", "classify", *options]
    environ = servers.environment("test", LOADTEST_HOST=url)
    return subprocess.Popen(
        command,
        cwd=servers.ROOT,
        env=environ,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_plain_locust_runs_headless_and_judges_answers() -> None:
    options = ("--headless", "--users", "4", "--spawn-rate", "4", "--run-time", "3s")
    with (
        harness.faulty_server(wrong_every=len(pictures.samples()) + 2, slots=16) as server,
        locust(*options, url=server.url) as process,
    ):
        printed, _ = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 1
    assert "wrong:" in printed


def test_plain_locust_runs_a_scenario_and_the_users_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(THEIRS)
    (tmp_path / "look.py").write_text("def request():\n    return {'path': '/version'}\n")
    files = f"{tmp_path}/mine.py {tmp_path}/look.py"
    options = ("--headless", "--users", "4", "--spawn-rate", "4", "--run-time", "4s", "--scenario", files, "--mix", "")
    with harness.faulty_server(slots=16) as server, locust(*options, url=server.url) as process:
        printed, _ = process.communicate(timeout=PATIENCE_SECONDS)

    assert "TURN     look" in printed, printed
    assert "TURN     mine" in printed, printed
    assert "failed: Mine: miss" in printed, printed


def test_plain_locust_refuses_a_host_that_is_not_listed() -> None:
    with harness.faulty_server() as server, harness.faulty_server() as other:
        with locust("--headless", "--run-time", "2s", "--host", other.url, url=server.url) as process:
            printed, _ = process.communicate(timeout=PATIENCE_SECONDS)

        assert process.returncode == Status.REFUSED, printed
        assert harness.arrived_at(other.url) == 0


def test_the_page_is_on_loopback_only_and_takes_no_other_host() -> None:
    port = servers.free_port()
    with (
        harness.faulty_server() as server,
        harness.faulty_server() as other,
        locust("--web-port", str(port), url=server.url) as process,
    ):
        try:
            servers.wait_until(lambda: listening(port) != set(), PATIENCE_SECONDS, "Locust's page")
            form = f"user_count=1&spawn_rate=1&host={other.url}".encode()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/swarm", form) as answer:
                told = json.load(answer)
            assert not told["success"]
            assert "REFUSED" in told["message"]
            assert other.url in told["message"]
            edited = json.dumps({"user_class_name": "CaskCaller", "host": other.url}).encode()
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/user", edited)
            assert process.stdout is not None
            assert any("REFUSED" in line and other.url in line for line in process.stdout)
        finally:
            process.terminate()
        assert harness.arrived_at(other.url) == 0


def test_a_class_of_the_users_own_runs_and_asks_the_allowed_host(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from locust import HttpUser, task\n"
        "class Mine(HttpUser):\n"
        "    @task\n"
        "    def ask(self):\n"
        "        self.client.get('/version', name='mine')\n"
    )
    options = ("-f", f"loadtest/locustfile.py,{mine}", "--headless", "--users", "1", "--run-time", "2s")
    with harness.faulty_server(slots=16) as server, locust(*options, url=server.url) as process:
        printed, _ = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 0, printed
    assert "Running Mine of yours" in printed
    assert "GET      mine" in printed


THEIRS = """
from locust import HttpUser, task

class Mine(HttpUser):
    @task(3)
    def ask(self):
        self.client.get("/version", name="mine")

    @task
    def miss(self):
        self.client.get("/nothing", name="miss")
"""


def test_a_class_of_the_users_own_runs_beside_ours_under_one_verdict(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(THEIRS)
    options = ("--scenario", str(tmp_path / "mine.py"), "--mix", "mine:1 classify:1", "--rate", "60", "--seconds", "4")
    with harness.faulty_server(slots=16, service_ms=5) as server:
        ran = harness.run(server.url, *options, "--slo", "patient", folder=tmp_path / "run")

    sent = request_log.read(tmp_path / "run", 1).rows
    theirs, ours = (sent[sent["scenario"] == index] for index in (0, 1))
    assert ran.status == Status.FAIL, ran.printed
    assert 0.3 < theirs.size / sent.size < 0.7
    # A quarter of their tasks misses, as Locust counts it; ours are all right.
    assert 0.1 < np.mean(theirs["outcome"] == outcomes.Outcome.FAILED) < 0.4
    assert set(theirs["status"]) == {200, 404}
    assert set(ours["outcome"]) == {outcomes.Outcome.RIGHT}
    assert "Mine: miss" in str(ran.table["examples"])
    assert ">mine<" in (tmp_path / "run" / "report.html").read_text()


STEPS = """
import os
from locust import HttpUser, SequentialTaskSet, task

class Order(SequentialTaskSet):
    def on_start(self):
        self.note("start")

    def on_stop(self):
        self.note("stop")

    @task
    def choose(self):
        self.note("choose")
        self.client.get("/version", name="choose")

    @task
    class Payment(SequentialTaskSet):
        @task
        def pay(self):
            self.parent.note("pay")
            self.client.get("/version", name="pay")

        @task
        def leave(self):
            self.interrupt()

    @task
    def leave(self):
        self.interrupt()

    def note(self, word):
        with open({log!r}, "a") as file:
            file.write(f"{{id(self.user)}} {{word}}\\n")

class Buyer(HttpUser):
    tasks = [Order]
"""


def test_task_sets_of_the_users_own_go_a_step_at_each_arrival(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STEPS.format(log=str(tmp_path / "log")))
    options = ("--scenario", str(tmp_path / "mine.py"), "--rate", "40", "--seconds", "4", "--slo", "patient")
    with harness.faulty_server(slots=16, service_ms=5) as server:
        ran = harness.run(server.url, *options, folder=tmp_path / "run")

    sent = request_log.read(tmp_path / "run", 1).rows
    noted = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert set(sent["outcome"]) == {outcomes.Outcome.RIGHT}, ran.printed
    for user in {who for who, _ in noted}:
        words = [word for who, word in noted if who == user]
        whole = ["start", "choose", "pay", "stop"] * (len(words) // 4 + 1)
        assert words == whole[: len(words)]
    # Each arrival sent one request: what only leaves a TaskSet is none.
    assert sum(word in ("choose", "pay") for _, word in noted) == sent.size


def test_a_class_of_the_users_own_whose_host_is_not_listed_sends_nothing(tmp_path: Path) -> None:
    with harness.faulty_server() as server, harness.faulty_server() as other:
        (tmp_path / "mine.py").write_text(THEIRS.replace("(HttpUser):", f"(HttpUser):\n    host = '{other.url}'"))
        ran = harness.run(server.url, "--scenario", str(tmp_path / "mine.py"), "--rate", "20", "--seconds", "3")

        assert ran.status == Status.INVALID, ran.printed
        assert "Mine.host" in ran.printed
        assert harness.arrived_at(other.url) == 0


def test_a_class_of_the_users_own_with_another_host_is_refused(tmp_path: Path) -> None:
    with harness.faulty_server() as server, harness.faulty_server() as other:
        mine = tmp_path / "mine.py"
        mine.write_text(
            "from locust import HttpUser, task\n"
            "class Mine(HttpUser):\n"
            f"    host = '{other.url}'\n"
            "    @task\n"
            "    def ask(self):\n"
            "        self.client.get('/version')\n"
        )
        options = ("-f", f"loadtest/locustfile.py,{mine}", "--headless", "--users", "1", "--run-time", "2s")
        with locust(*options, url=server.url) as process:
            printed, _ = process.communicate(timeout=PATIENCE_SECONDS)

        assert process.returncode == Status.REFUSED, printed
        assert "Mine.host" in printed
        assert harness.arrived_at(other.url) == 0


def listening(port: int) -> set[str]:
    """The addresses that somebody listens on with this port; fails at once for any but 127.0.0.1."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A" and int(local.split(":")[1], 16) == port:
            found.add(local.split(":")[0])
    assert found <= {"0100007F"}, found
    assert f":{port:04X} " not in Path("/proc/net/tcp6").read_text()
    return found


def test_the_generator_goes_first_where_it_may() -> None:
    command = [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, start_new_session=True, preexec_fn=driver.go_first
    )

    may = os.getuid() == 0
    assert int(done.stdout) == (driver.PRIORITY if may else os.getpriority(os.PRIO_PROCESS, 0))
