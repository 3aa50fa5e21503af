"""A scenario is one file: it runs against a service that is no Cask, and what its check says no to is wrong."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest import choice, guard, harness, reference, request_log
from loadtest.outcomes import Outcome
from loadtest.statuses import LoadTestError, Status
from tests.loadtest.verdicts import NOTHING_AGAINST
from tests.servers import ROOT, Server

FAST = ("--rate", "40", "--seconds", "3", "--slo", "patient")


SLO = "[shop]\np95_ms = 9000\nmax_failed_share = 0.01\nmax_lag_p99_ms = 5000\n"
LOGIN = "def request():\n    return {'path': '/login', 'json': {}}\n"


class Shop(http.server.BaseHTTPRequestHandler):
    """Another service: signs in, sells, and once in so many orders says another sum than was asked for."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    orders = itertools.count(1)
    wrong_every = 0
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.answer(404, {"error": "not found"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        if self.path == "/login":
            self.answer(200, {"token": "t1"})
        elif self.headers.get("Authorization") != "Bearer t1":
            self.answer(401, {"error": "sign in"})
        else:
            is_wrong = self.wrong_every and next(self.orders) % self.wrong_every == 0
            self.answer(201, {"sum": asked["price"] * asked["count"] + bool(is_wrong)})

    def answer(self, status: int, table: dict[str, object]) -> None:
        body = json.dumps(table).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def shop(wrong_every: int = 0) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    seen: list[tuple[str, str]] = []
    of_this = type("OfThis", (Shop,), {"wrong_every": wrong_every, "orders": itertools.count(1), "seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), of_this) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """The scenario in docs/loadtest.md for a service that is not Cask."""
    text = (ROOT / "docs" / "loadtest.md").read_text()
    found = re.search(r"```python orders\.py\n(.*?)```", text, re.S)
    assert found
    assert found[1].count("\n") <= 20
    path = tmp_path / "orders.py"
    path.write_text(found[1])
    return path


def test_documented_scenario_loads_a_service_that_is_not_cask(documented: Path, tmp_path: Path) -> None:
    slo = tmp_path / "shop.toml"
    slo.write_text(f"{SLO}[shop.scenarios.orders]\np95_ms = 8000\n[shop.metrics.count]\np50_least = 2\n")
    with documented.open("a") as file:
        file.write("    answer.metric('count', answer.request['json']['count'])\n")
    with shop() as (url, seen):
        options = ("--scenario", str(documented), *FAST, "--slo", f"{slo}:shop")
        ran = harness.run(url, *options, folder=tmp_path / "run")

    assert ran.status in NOTHING_AGAINST, ran.printed
    assert "orders 100%" in ran.printed
    assert {"orders p95", "count p50"} <= {check["name"] for check in ran.table["checks"]}
    assert ran.figures["counts"]["right"] > 80
    # Signed in once, at rest; the token is in no other file than the one for the workers.
    assert [path for path, _ in seen].count("/login") == 1
    assert {path for path, _ in seen} == {"/login", "/orders"}
    assert (tmp_path / "run" / "reference.json").stat().st_mode & 0o077 == 0
    assert ">orders<" in (tmp_path / "run" / "report.html").read_text()


def test_what_its_check_says_no_to_is_wrong_and_not_failed(documented: Path, tmp_path: Path) -> None:
    with shop(wrong_every=10) as (url, _):
        ran = harness.run(url, "--scenario", str(documented), *FAST, folder=tmp_path / "run")

    rows = request_log.read(tmp_path / "run", 1).rows
    assert ran.status == Status.FAIL, ran.printed
    assert abs(sum(rows["outcome"] == Outcome.WRONG) - rows.size / 10) <= 2
    assert not sum(rows["outcome"] == Outcome.FAILED)
    assert "orders.py:" in ran.table["examples"][0]["what"]


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("def request():\n    return {'path': '/orders', 'json': {}}\n", Status.INVALID, "answers 401"),
        ("def request():\n    return {'path': '/login', 'jsn': {}}\n", Status.USAGE, "has jsn; expected a dict"),
        ("def request():\n    return {'url': '/login'}\n", Status.USAGE, "expected a dict with path"),
        ("def request():\n    return 1 / 0\n", Status.USAGE, "ZeroDivisionError: division by zero (mine.py:2)"),
        ("def requst():\n    pass\n", Status.USAGE, "neither request() nor a Locust user class"),
        ("def request():\n    pass\ndef check_x(answer):\n    pass\n", Status.USAGE, "check_x, but no request_x"),
        ("async def request():\n    pass\ndef request_b():\n    pass\n", Status.USAGE, "is async"),
        ("def request(:\n", Status.USAGE, "mine.py, line 1"),
        ("raise SystemExit(0)\ndef request():\n    pass\n", Status.USAGE, "ends the program"),
        (
            f"{LOGIN}def check(answer):\n    assert answer.json()['id']\n",
            Status.FAIL,
            "before any load: KeyError: 'id' (mine.py:4)",
        ),
        (
            f"{LOGIN}def setup(ask):\n    return {{1, 2}}\n",
            Status.USAGE,
            "expected what JSON can hold",
        ),
        (
            f"{LOGIN}def check(answer):\n    return answer.json()\n",
            Status.FAIL,
            "expected True, False or nothing",
        ),
    ],
)
def test_a_mistake_in_a_scenario_is_said_before_any_load(tmp_path: Path, code: str, status: Status, words: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    settings: Any = SimpleNamespace(env="test", plugins_dir=tmp_path / "plugins", plugins=(), models_dir=tmp_path)
    with shop() as (url, seen), pytest.raises(LoadTestError) as raised:
        chosen = choice.choose(guard.target_of(url), settings, files=str(tmp_path / "mine.py"))
        reference.take(guard.target_of(url), chosen.scenarios)

    assert raised.value.status == status, raised.value
    assert words in str(raised.value)
    assert len(seen) <= 1


def test_limits_of_a_scenario_that_nobody_has_are_refused(documented: Path, tmp_path: Path) -> None:
    slo = tmp_path / "shop.toml"
    slo.write_text(f"{SLO}[shop.scenarios.ordres]\np95_ms = 800\n")
    with shop() as (url, seen):
        ran = harness.run(url, "--scenario", str(documented), "--slo", f"{slo}:shop")

    assert (ran.status, seen) == (Status.USAGE, [])
    assert "limits of 'ordres'" in ran.printed
    assert "Did you mean 'orders'?" in ran.printed


BREAKS = """
import itertools
numbers = itertools.count()

def request(turn):
    number = next(numbers)
    if number > 40 and number % 10 == 0:
        raise KeyError("no more users")
    return {"path": "/login", "json": {}}
"""


def test_a_request_that_raises_in_mid_run_is_the_generators_fault(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BREAKS)
    with shop() as (url, _):
        ran = harness.run(url, "--scenario", str(tmp_path / "mine.py"), *FAST)

    assert ran.status == Status.INVALID, ran.printed
    assert "the scenario raised" in ran.printed
    assert "KeyError: 'no more users' (mine.py:8)" in str(ran.table["examples"])


LINE = '192.0.2.7 - - [29/Nov/2026:10:00:{:02d} +0000] "{} HTTP/1.1" {} 12\n'


def test_an_access_log_is_replayed_with_the_bodies_of_a_scenario(documented: Path, tmp_path: Path) -> None:
    rows = [(second, f"GET /item/{second}", 404) for second in range(0, 20, 2)]
    rows += [(second, "POST /orders", 201) for second in range(40) for _ in range(2)]
    lines = [LINE.format(*row) for row in (*rows, (7, "DELETE /orders/1", 204))]
    (tmp_path / "access.log").write_text("".join([*lines, "no request\n"]))
    options = ("--scenario", str(documented), "--replay", str(tmp_path / "access.log"), "--speed", "10")
    with shop() as (url, seen):
        fast = harness.run(url, *options, *FAST[4:], LOADTEST_MAX_RPS="10")
        refused = len(seen)
        ran = harness.run(url, *options, *FAST[4:], folder=tmp_path / "run")

    assert (fast.status, refused) == (Status.REFUSED, 0), fast.printed
    assert ran.figures["counts"]["right"] == len(rows), ran.printed
    assert "1 lines are no request" in ran.printed
    assert "1 × DELETE /orders/1" in ran.printed
    assert "orders 89%, replayed 11%" in ran.printed
    intended = request_log.read(tmp_path / "run", 1).rows["intended"]
    assert 3.9 <= intended[-1] <= 4.0


def test_our_own_log_needs_no_scenario_and_no_closed_model(tmp_path: Path) -> None:
    line = "10:00:{:02d} ACCESS  httpd  200 POST /v1/classify?top_k=1 1234us 99b 127.0.0.1  [load-1]\n"
    (tmp_path / "cask.log").write_text("".join(line.format(second) for second in range(60)))
    options = ("--replay", str(tmp_path / "cask.log"), "--speed", "20", "--mix", "")
    with harness.faulty_server(slots=16, service_ms=5) as server:
        ran = harness.run(server.url, *options, "--slo", "patient")
        closed = harness.run(server.url, *options, "--model", "closed")

    assert ran.figures["counts"]["right"] == 60, ran.printed
    assert "classify_" in ran.printed
    assert closed.status == Status.USAGE


def test_ours_are_not_sent_to_another_service(tmp_path: Path) -> None:
    with shop() as (url, _):
        ran = harness.run(url, "--rate", "5")

    assert ran.status == Status.INVALID
    assert "is no Cask: its /status tells no environment; classify_raw needs one" in ran.printed


def test_a_file_made_from_our_own_description_runs_as_it_is_written(served: Server, tmp_path: Path) -> None:
    options = ("--openapi", f"{served.url}/openapi.json", "--name", "made", "--folder", str(tmp_path))
    written = harness.command("new", *options, url=served.url)
    made = ("--scenario", str(tmp_path / "made.py"), *FAST[4:])
    # Not every task has a model here: what cannot be answered is told at rest, all of it, and left out.
    told = harness.run(served.url, *made)
    missing = re.findall(r"(made_\w+) gets no answer at rest: .*model_not_found", told.printed)
    mix = " ".join(["made:1", *(f"{name}:0" for name in missing)])
    ran = harness.run(served.url, *made, "--mix", mix, "--rate", "8", "--seconds", "8")

    assert 0 < len(missing) < 8, told.printed
    assert ran.figures, ran.printed
    counts = ran.figures["counts"]
    assert written.returncode == 0, written.stdout + written.stderr
    assert counts["right"] > 20, ran.printed
    # A busy machine may refuse or be slow; what it answers is right.
    assert (counts["wrong"], counts["failed"]) == (0, 0), ran.printed
