"""The report stands alone, holds what it promises, and lets nothing of a server's words become markup."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest import capacity, charts, report
from loadtest.charts import Axis, Mark, Series
from loadtest.checks import Verdict
from loadtest.outcomes import Outcome
from loadtest.plans import Plan, read
from loadtest.search import Search, Step
from loadtest.statuses import Status, UsageError
from loadtest.verdict import judge
from tests.unit.loadtest_rows import PROFILE, SLO, record, rows

PRINT = {"server_version": "0.1.0", "generator_cores": 2, "generator_cpu": "one", "computed_by": {}, "server": {}}
SAMPLES = [{"at": float(n), "resident_bytes": 5e8, "waiting": n} for n in range(4)]


SECONDS, MILLISECONDS = Axis("s"), Axis("ms")


class Checker(HTMLParser):
    """Every tag that is opened is closed, in order; collects what a page would fetch."""

    VOID = frozenset(("meta", "i/", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """Closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def plan(folder: Path) -> Plan:
    return Plan(
        folder, "http://box:8000", "test", PROFILE, SLO, {"classify_raw": 1.0}, 1, 1, 64, 10.0, 0.0, PRINT, "again"
    )


def page(folder: Path, made: np.ndarray | None = None, examples: tuple[dict[str, Any], ...] = ()) -> str:
    made = rows(400) if made is None else made
    for name in ("decode_ms", "queue_ms", "predict_ms", "engine_ms"):
        made[name] = 5.0
    table = {**judge(record(made), PROFILE, SLO).to_dict(), "examples": list(examples)}
    return report.render(plan(folder), table, made, SAMPLES)


def test_the_page_stands_alone_and_is_well_formed(tmp_path: Path) -> None:
    text = page(tmp_path)

    assert check(text).fetched == []
    assert not re.search(r"<script|@import|url\(|https?://(?!box)", text)


@pytest.mark.parametrize(
    "title",
    [
        "Verdict",
        "Load over time",
        "Response time against service time",
        "Where the time goes",
        "The generator",
        "Origin",
    ],
)
def test_the_page_has_each_part(tmp_path: Path, title: str) -> None:
    assert f"<h2>{title}</h2>" in page(tmp_path)


def test_the_page_says_how_to_repeat_the_run(tmp_path: Path) -> None:
    assert "<pre>again</pre>" in page(tmp_path)


def test_what_a_server_said_is_text(tmp_path: Path) -> None:
    example = {"outcome": "WRONG", "at": 1.0, "what": "<script>alert(1)</script>", "request_id": "load-1"}

    text = page(tmp_path, examples=(example,))

    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_a_run_without_an_answer_has_a_page_too(tmp_path: Path) -> None:
    check(page(tmp_path, rows(400, outcome=Outcome.BROKEN)))
    check(page(tmp_path, rows(0)))


def test_a_run_is_written_and_read_again_as_it_was(tmp_path: Path) -> None:
    made = plan(tmp_path)

    made.write()

    assert read(tmp_path) == made


def test_a_folder_that_holds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a finished run nor a search"):
        report.write(tmp_path)


# ── The capacity card ────────────────────────────────────────────────────────────────────────────────────────────────


def table(folder: Path, rps: float = 349.33) -> dict[str, Any]:
    verdict = judge(record(rows(400)), PROFILE, SLO)
    failed = Verdict(Status.FAIL, [], judge(record(rows(400, outcome=Outcome.REFUSED)), PROFILE, SLO).figures)
    steps = [Step(200, verdict), Step(400, failed), Step(rps or 1, verdict, True)]
    profile = dataclasses.replace(plan(folder), fingerprint=PRINT)
    return capacity.table_of(Search(rps, 366.8, steps, "" if rps else "no rate held in a longer run"), profile)


def test_the_card_says_what_the_generator_kept_busy(tmp_path: Path) -> None:
    made = table(tmp_path)
    figures = judge(record(rows(400)), PROFILE, SLO).figures

    wanted = figures["generator"]["cpu_us_per_request"] * figures["offered_rps"] / 1e6

    assert made["generator"]["busy_cores"] == pytest.approx(wanted, abs=0.001)
    assert f"{wanted:.2f} busy" in report.render_card(made)
    assert table(tmp_path, 0.0)["generator"]["busy_cores"] is not None


def test_the_card_says_the_figure_in_three_digits_and_what_it_holds_for(tmp_path: Path) -> None:
    text = report.render_card(table(tmp_path))

    check(text)
    assert "<h1>Capacity: 349 requests a second; 367 a second is too much.</h1>" in text
    assert "classify_raw 100%" in text


def test_the_card_says_what_a_request_cost(tmp_path: Path) -> None:
    made = table(tmp_path)
    made["server"] = {"cores": 2, "cpu_ms_per_request": 5.0, "busy_cores": 1.75, "resident_mb": 480.0}

    text = report.render_card(made)

    assert "5.00 ms of processor time, 1.75 cores busy" in text
    assert "2 cores; the generator has" in text


def test_a_box_that_bears_nothing_has_a_card(tmp_path: Path) -> None:
    text = report.render_card(table(tmp_path, rps=0.0))

    check(text)
    assert "<h1>No capacity found: no rate held in a longer run.</h1>" in text


def test_of_no_capacity_no_share_is_sent(tmp_path: Path) -> None:
    capacity.write(tmp_path, "staging", table(tmp_path, rps=0.0))

    assert capacity.known_rps(tmp_path, "staging") is None


def test_a_capacity_is_read_where_it_was_written(tmp_path: Path) -> None:
    assert capacity.known_rps(tmp_path, "staging") is None

    path = capacity.write(tmp_path, "staging", table(tmp_path))

    assert capacity.known_rps(tmp_path, "staging") == 349.33
    # What another service takes says nothing about this one.
    url = json.loads(capacity.path_for(tmp_path, "staging").read_text())["url"]
    assert capacity.known_rps(tmp_path, "staging", url) == 349.33
    assert capacity.known_rps(tmp_path, "staging", "http://other.example:80") is None
    json.loads(path.read_text())


# ── Charts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(series: Series, x: Axis = SECONDS, y: Axis = MILLISECONDS, marks: tuple[Mark, ...] = ()) -> charts.Chart:
    chart = charts.lines("x", x, y, [series], marks)
    assert chart
    return chart


def test_a_line_is_broken_where_there_is_no_number() -> None:
    series = Series("p95", "blue", [0, 1, 2, 3, 4], [1, 2, math.inf, 4, 5])

    assert len(drawn(series).lines) == 2


def test_all_points_lie_within_the_chart_also_when_the_limit_is_far_above() -> None:
    series = Series("p95", "blue", [0, 1], [1, 2], True)

    chart = drawn(series, y=Axis("ms", True), marks=(Mark(5000, "limit"),))

    heights = [y for _, _, y, _ in chart.dots] + [at for at, *_ in chart.marks] + [y for y, _ in chart.y_ticks]
    assert min(heights) >= 0
    assert max(heights) <= charts.HEIGHT_PX


@pytest.mark.parametrize(("rough", "step"), [(0.7, 1), (1.0, 1), (1.1, 2), (3, 5), (60, 100), (0.03, 0.05)])
def test_ticks_are_round(rough: float, step: float) -> None:
    assert charts.round_step(rough) == pytest.approx(step)


def test_nothing_to_show_is_no_chart() -> None:
    assert charts.lines("x", Axis("s"), Axis("ms"), [Series("p", "blue", [1], [math.nan])]) is None
    assert charts.stacks("x", "ms", []) is None


def test_the_ends_of_an_axis_are_on_it_though_no_point_is_there() -> None:
    series = Series("p95", "blue", [4, 6], [1, 2], True)

    places = [drawn(series, Axis("s", ends=ends)).dots[0][1] for ends in ((), (0.0, 10.0))]

    assert places[0] == charts.LEFT_PX
    assert places[1] > charts.LEFT_PX + 200
