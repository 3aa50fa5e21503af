"""One offline HTML file to hand on: the verdict, the curves, the causes, the command that repeats it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import capacity, charts, curves, markup, plans, request_log, sampling, tables
from loadtest.charts import Axis, Mark, Series
from loadtest.plans import Plan
from loadtest.schedule import seconds as seconds_of
from loadtest.statuses import Status, UsageError
from loadtest.summary import MEANING

FILE_NAME = "report.html"


def write(folder: Path) -> Path:
    """The report of a run's folder, or of a search's. Raises UsageError when it is neither."""
    found = next(iter(sorted(folder.glob(f"*-{capacity.FILE_NAME}"))), None)
    if found:
        return write_card(found)
    try:
        plan = plans.read(folder)
        verdict = json.loads((folder / "verdict.json").read_text())
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{folder} holds neither a finished run nor a search: {error}") from None
    path = folder / FILE_NAME
    record = request_log.read(folder, plan.workers)
    path.write_text(
        render(plan, verdict, record.rows, _since(record.began_at, sampling.read(folder / sampling.SERVER_FILE))),
        encoding="utf-8",
    )
    return path


def _since(began_at: float | None, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples with seconds of the run as their moment, so that the server stands on the requests' axis."""
    zero = began_at if began_at is not None else next((each["at"] for each in samples), 0.0)
    return [{**each, "at": each["at"] - zero} for each in samples]


def write_card(capacity_file: Path) -> Path:
    """The capacity card beside a capacity file."""
    path = capacity_file.with_suffix(".html")
    path.write_text(render_card(json.loads(capacity_file.read_text())), encoding="utf-8")
    return path


def render(plan: Plan, verdict: dict[str, Any], found: np.ndarray, samples: Sequence[dict[str, Any]]) -> str:
    """The whole page of one run; ``samples`` of the server, with seconds of the run as their moment ``at``."""
    status = Status[verdict["verdict"]]
    body = [
        f'<p class="over">Load test · {escape(plan.profile.name)} · {escape(plan.env)} · {escape(plan.url)}</p>',
        f"<h1>{escape(plan.profile.question)}</h1>",
        markup.banner(
            status.name, f"{status.name}: {MEANING.get(status, '')}.", plan.callers, verdict.get("cause", "")
        ),
        tables.tiles(verdict["figures"]),
        tables.checks(verdict["checks"]),
        curves.over_time(plan, found),
        curves.latency_over_time(plan, found),
        curves.curve_by_rate(plan, found),
        curves.response_and_service(found[found["intended"] >= plan.profile.judged_from]),
        curves.waterfall(found[found["intended"] >= plan.profile.judged_from]),
        tables.by_scenario(found[found["intended"] >= plan.profile.judged_from]),
        curves.server(samples, seconds_of(plan.profile.stages)),
        tables.refusals(verdict["figures"].get("refusals", ())),
        tables.examples(verdict.get("examples", ())),
        tables.machine(verdict["figures"].get("machine") or {}),
        tables.generator(plan, verdict["figures"]),
        tables.origin(plan.fingerprint, plan.command),
    ]
    return markup.page(f"{status.name}: {plan.profile.name} on {plan.url}", body)


def render_card(table: dict[str, Any]) -> str:
    """The capacity card: so much, how that was found, and what it was measured on."""
    # Of a rate that was tried twice, the longer run counts.
    steps = sorted({step["rate"]: step for step in table["steps"]}.values(), key=lambda step: step["rate"])
    series = [
        Series(
            name,
            colour,
            [step["rate"] for step in steps],
            [markup.value(step["response_ms"][name]) for step in steps],
            True,
        )
        for name, colour in (("p50", "blue"), ("p95", "amber"), ("p99", "red"))
    ]
    limits = table["promise"]["limits_ms"]
    marks = [Mark(limit, f"limit {name}") for name, limit in list(limits.items())[-1:]]
    if table["capacity_rps"]:
        marks.append(Mark(table["capacity_rps"], f"{capacity.rate(table['capacity_rps'])} a second", True))
    x = Axis("offered, requests a second", is_log=steps[-1]["rate"] / steps[0]["rate"] > 20)
    chart = charts.lines("Latency against rate", x, Axis("milliseconds", True), series, marks)
    names = [f"{step['rate']:.1f}/s{', confirming' if step['is_confirmation'] else ''}" for step in table["steps"]]
    lines = [
        [
            markup.pill(step["verdict"]),
            f"{markup.number(step['right_rps'])}/s",
            *(markup.milliseconds(markup.value(step["response_ms"][name])) for name in ("p50", "p95", "p99")),
        ]
        for step in table["steps"]
    ]
    tried = markup.table(("offered", "verdict", "right", "p50", "p95", "p99"), names, lines)
    word = table.get("verdict") or ("PASS" if table["capacity_rps"] else "FAIL")
    body = [
        f'<p class="over">Capacity · {escape(table["env"])} · {escape(table["url"])}</p>',
        f"<h1>{escape(capacity.headline(table))}</h1>",
        markup.banner(word, f": the SLO is {capacity.rows_of_card(table)[2][1]}.", capacity.rows_of_card(table)[1][1]),
        markup.section(
            "What it was measured on",
            "The figure holds for this and nothing else.",
            markup.facts([(a, b) for a, b in capacity.rows_of_card(table)]),
        ),
        markup.section(
            "Latency against rate",
            "Each dot is a run. Past the knee, every further request makes all others wait.",
            markup.with_legend(series, chart),
        ),
        markup.section("The search", "In the order in which the rates were tried.", tried),
        tables.origin(table["fingerprint"], table["command"]),
    ]
    return markup.page(capacity.headline(table), body)
