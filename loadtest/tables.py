"""The sections of a run's report that are tables: verdict, scenarios, failures, machine, generator, origin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.charts import Chart
from loadtest.plans import Plan


@dataclass
class Section:
    """A part of the page; left out when it is empty. ``styles``: of each column, as report.html knows them."""

    title: str
    lead: str
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    styles: Sequence[str] = ("what",)
    charts: list[Chart] = field(default_factory=list)
    command: str = ""

    def __bool__(self) -> bool:
        return bool(self.rows or self.charts or self.command)


def tiles(figures: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """The figures that are read first: name, value, unit, and whether it is bad."""
    counts, response = figures["counts"], figures["response_ms"]
    bad = sum(counts[name] for name in ("refused", "failed", "broken", "timed_out"))
    wrong = f"{counts['wrong']} + {counts['mixed_up']}"
    return [
        ("right answers a second", number(figures["right_rps"]), "", False),
        ("offered a second", number(figures["offered_rps"]), "", False),
        *(_response_tile(name, response[name]) for name in ("p50", "p95", "p99")),
        ("refused or failed", str(bad), f"of {counts['judged']}", bad > 0),
        ("dropped", str(counts["dropped"]), "", counts["dropped"] > 0),
        ("wrong + mixed up", wrong, "", wrong != "0 + 0"),
    ]


def _response_tile(name: str, value: float | None) -> tuple[str, str, str, bool]:
    """A percentile beyond which nobody was answered has no time."""
    if value is None:
        return f"{name} response", "no answer", "", True
    return f"{name} response", number(value), "ms", False


def checks(checks: Sequence[dict[str, Any]]) -> Section:
    """Every line of the verdict."""
    lead = (
        "A share passes when even its upper bound keeps the limit, and fails when even its lower bound breaks it. "
        "Requests that wait in one queue are late together: the bounds count how many independent ones they are worth."
    )
    rows = [[check[key] for key in ("name", "status", "found", "limit", "sureness")] for check in checks]
    heads, styles = ("check", "verdict", "found", "limit", "confidence"), ("what", "pill", "", "", "soft")
    return Section("Verdict", lead, heads, rows, styles)


def by_scenario(found: dict[str, Any]) -> Section:
    """Counts and percentiles of each scenario."""
    heads = ("scenario", "requests", "right", "p50", "p95", "p99", "mean answer")
    rows = [
        [*row, f"{(each['bytes'] or 0) / 1000:.1f} kB"]
        for row, each in zip(scenario_rows(found), found.values(), strict=True)
    ]
    lead = "Few requests make a percentile uncertain; limits of a scenario's own stand in the SLO file."
    return Section("By scenario", lead, heads, rows)


def scenario_rows(found: dict[str, Any]) -> list[list[str]]:
    """Name, requests, right answers, p50, p95 and p99 of each scenario."""
    return [
        [
            name,
            str(each["requests"]),
            str(each["right"]),
            *(milliseconds(each["response_ms"][share]) for share in ("p50", "p95", "p99")),
        ]
        for name, each in found.items()
    ]


def metrics(found: dict[str, Any]) -> Section:
    """Figures that checks noted."""
    heads = ("figure", "noted", "p50", "p95", "p99", "most")
    rows = [
        [name, str(each["count"]), *(f"{each[share] or 0:.4g}" for share in ("p50", "p95", "p99", "max"))]
        for name, each in found.items()
    ]
    return Section("Own figures", "What the scenarios' checks noted of right and wrong answers.", heads, rows)


def examples(examples: Sequence[dict[str, Any]]) -> Section:
    """The first wrong answers."""
    rows = [
        [example["outcome"].lower().replace("_", " "), f"{example['at']:.1f} s", example["what"], example["request_id"]]
        for example in examples
    ]
    heads, styles = ("kind", "when", "what", "request id, for the server's log"), ("what", "", "", "code")
    return Section("What was wrong", "The first of each kind; all of them are counted above.", heads, rows, styles)


def refusals(refusals: Sequence[dict[str, Any]]) -> Section:
    """What was not answered with success, by scenario, status and problem code."""
    rows = [[row["scenario"], str(row["count"]), str(row["status"] or "–"), row["code"] or "–"] for row in refusals]
    heads = ("scenario", "requests", "status", "problem code, or what broke")
    lead = "Requests without success, the warm-up's too. docs/errors.md says what each code means."
    return Section("What was refused or failed", lead, heads, rows)


def machine(used: dict[str, Any]) -> Section:
    """Who used the sending machine during the run."""
    section = Section("This machine during the run", "Shares of all its cores. A busy machine makes any server slow.")
    if used:
        others = "of that others than generator and server" if used["is_shared"] else "of that others"
        section.rows = [
            ("generator and server", "on one machine" if used["is_shared"] else "on different machines"),
            ("load, one minute's mean", f"{used['load']:.1f} on {used['cores']} cores"),
            ("cores busy", share(used["busy_share"])),
            ("of that the generator", share(used["generator_share"])),
            (others, share(used["others_share"])),
            ("steal: taken by other machines on this host", share(used["steal_share"])),
        ]
    return section


def generator(plan: Plan, figures: dict[str, Any]) -> Section:
    """Whether what was measured is the server."""
    workers, lag = figures["generator"], f"{number(figures['lag_ms']['p99'])} ms"
    rows = [
        ("start after the intended moment, p99", f"{lag}, at most {plan.slo.max_lag_p99_ms:g} ms"),
        ("processor time a request", f"{number(workers['cpu_us_per_request'])} µs"),
        ("workers that finished", f"{workers['workers']} of {plan.workers}"),
        ("sent again, because the server had closed an idle connection", str(workers.get("repeated", 0))),
        ("concurrent requests of a worker", f"at most {plan.slots}"),
        ("repeated bytes", f"{plan.repeat_share:.0%} of requests"),
        ("answers from a cache", share((figures.get("cache") or {}).get("hit_share"))),
        ("request timeout", f"{plan.timeout_seconds:g} s"),
    ]
    return Section("The generator", "Whether what was measured is the server, and not this machine.", rows=rows)


def origin(fingerprint: dict[str, Any], command: str) -> list[Section]:
    """What was measured on what, and the command that repeats it."""
    rows = [(key.replace("_", " "), plain(value)) for key, value in fingerprint.items()]
    lead = "The seed sends the same requests at the same moments."
    return [
        Section("Origin", "Runs of different generators are not compared.", rows=rows),
        Section("Repeat this", lead, command=command),
    ]


# ── Values in words ──────────────────────────────────────────────────────────────────────────────────────────────────


def plain(value: Any) -> str:
    """A value of JSON as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each}" for key, each in value.items()) or "–"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def milliseconds(value: float | None) -> str:
    """A time; None and infinity where nobody was answered."""
    if value is None or math.isinf(value):
        return "no answer"
    return f"{value:.0f} ms" if math.isfinite(value) else "–"


def share(value: float | None) -> str:
    """A share in percent."""
    return "unknown" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """A number, one digit behind the point where that says something."""
    return "–" if value is None else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
