"""One offline HTML file to hand on: the verdict, the charts, the causes, the command that repeats the run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from loadtest import capacity, charts, curves, plans, request_log, sampling, tables
from loadtest.charts import Axis, Mark, Series
from loadtest.plans import Plan
from loadtest.schedule import seconds as seconds_of
from loadtest.statuses import Status, UsageError
from loadtest.summary import MEANING
from loadtest.tables import Section

FILE_NAME = "report.html"
FOLDER = Path(__file__).resolve().parent


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
    samples = _since(record.began_at, sampling.read(folder / sampling.SERVER_FILE))
    path.write_text(render(plan, verdict, record.rows, samples), encoding="utf-8")
    return path


def _since(began_at: float | None, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples with seconds of the run as their moment, so that the server stands on the requests' axis."""
    zero = began_at if began_at is not None else next((sample["at"] for sample in samples), 0.0)
    return [{**sample, "at": sample["at"] - zero} for sample in samples]


def write_card(capacity_file: Path) -> Path:
    """The capacity card beside a capacity file."""
    path = capacity_file.with_suffix(".html")
    path.write_text(render_card(json.loads(capacity_file.read_text())), encoding="utf-8")
    return path


def render(plan: Plan, verdict: dict[str, Any], found: np.ndarray, samples: Sequence[dict[str, Any]]) -> str:
    """The whole page of one run; ``samples`` of the server, with seconds of the run as their moment ``at``."""
    status, figures = Status[verdict["verdict"]], verdict["figures"]
    judged = found[found["intended"] >= plan.profile.judged_from]
    return _page(
        title=f"{status.name}: {plan.profile.name} on {plan.url}",
        over=f"Load test · {plan.profile.name} · {plan.env} · {plan.url}",
        heading=plan.profile.question,
        status=status.name,
        meaning=_sentence(MEANING.get(status, "")),
        cause=verdict.get("cause", ""),
        callers=plan.callers,
        tiles=tables.tiles(figures),
        sections=[
            tables.checks(verdict["checks"]),
            curves.over_time(plan, found),
            curves.latency_over_time(plan, found),
            curves.by_rate(plan, found),
            curves.response_and_service(judged),
            curves.waterfall(judged),
            tables.by_scenario(figures.get("scenarios", {})),
            tables.metrics(figures.get("metrics", {})),
            curves.server(samples, seconds_of(plan.profile.stages)),
            tables.refusals(figures.get("refusals", ())),
            tables.examples(verdict.get("examples", ())),
            tables.machine(figures.get("machine") or {}),
            tables.generator(plan, figures),
            *tables.origin(plan.fingerprint, plan.command),
        ],
    )


def render_card(table: dict[str, Any]) -> str:
    """The capacity card: the capacity, how it was found, and what it was measured on."""
    facts, headline = capacity.rows_of_card(table), capacity.headline(table)
    return _page(
        title=headline,
        over=f"Capacity · {table['env']} · {table['url']}",
        heading=headline,
        status=table.get("verdict") or ("PASS" if table["capacity_rps"] else "FAIL"),
        meaning=f"SLO: {facts[2][1]}.",
        callers=facts[1][1],
        sections=[
            Section("What it was measured on", "The figure holds for this and nothing else.", rows=facts),
            _capacity_curve(table),
            _steps(table["steps"]),
            *tables.origin(table["fingerprint"], table["command"]),
        ],
    )


def _capacity_curve(table: dict[str, Any]) -> Section:
    # Of a rate that was tried twice, the longer run counts.
    steps = sorted({step["rate"]: step for step in table["steps"]}.values(), key=lambda step: step["rate"])
    rates = [step["rate"] for step in steps]
    series = [
        Series(name, colour, rates, [_or_infinite(step["response_ms"][name]) for step in steps], True)
        for name, colour in (("p50", "blue"), ("p95", "amber"), ("p99", "red"))
    ]
    marks = [Mark(limit, f"limit {name}") for name, limit in list(table["promise"]["limits_ms"].items())[-1:]]
    if table["capacity_rps"]:
        marks.append(Mark(table["capacity_rps"], f"{capacity.rate(table['capacity_rps'])} a second", True))
    x = Axis("offered, requests a second", is_log=rates[-1] / rates[0] > 20)
    chart = charts.lines("Latency against rate", x, Axis("milliseconds", True), series, marks)
    lead = "Each dot is a run. Past the knee, every further request makes all others wait."
    return Section("Latency against rate", lead, charts=[chart] if chart else [])


def _steps(steps: Sequence[dict[str, Any]]) -> Section:
    rows = [
        [
            f"{step['rate']:.1f}/s{', confirming' if step['is_confirmation'] else ''}",
            step["verdict"],
            f"{tables.number(step['right_rps'])}/s",
            *(tables.milliseconds(step["response_ms"][name]) for name in ("p50", "p95", "p99")),
        ]
        for step in steps
    ]
    heads = ("offered", "verdict", "right", "p50", "p95", "p99")
    return Section("The search", "In the order in which the rates were tried.", heads, rows, ("what", "pill"))


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _page(**parts: Any) -> str:
    """What a server said is escaped here: it is text, whatever it looks like."""
    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.ChainableUndefined)
    return environment.get_template("report.html").render(**parts) + "\n"
