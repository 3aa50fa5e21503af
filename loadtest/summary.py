"""The verdict for a person at a terminal: a table of checks, what was sent, where to read on."""

from __future__ import annotations

import textwrap
from typing import Any

from loadtest import tables
from loadtest.checks import Verdict
from loadtest.plans import Plan
from loadtest.statuses import Status

MEANING = {
    Status.PASS: "the service meets the SLO, with the confidence that was asked for",
    Status.FAIL: "the service does not meet the SLO",
    Status.INVALID: "the run did not measure the service; it says nothing about it",
    Status.UNDECIDED: "too few requests, or too strongly correlated ones, to decide",
}


def render(plan: Plan, verdict: Verdict, width: int = 0) -> str:
    """Some twenty lines of plain text, for a terminal of so many columns; 0: as wide as they are."""
    return "\n".join(
        [
            "",
            f"{verdict.status.name}: {MEANING[verdict.status]}",
            *(_wrapped(verdict.cause, width, "  ") if verdict.cause else []),
            *_wrapped(f"{plan.profile.name} on {plan.url} ({plan.env}): {plan.callers}", width, "  "),
            "",
            *(f"  {line}" for line in _checks(verdict, width)),
            "",
            *(f"  {line}" for line in _figures(verdict.figures)),
            "",
            f"  Report: {plan.folder}/report.html",
            f"  Again: {plan.command}",
        ]
    )


def _wrapped(words: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(words, width or 10**6, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def _checks(verdict: Verdict, width: int) -> list[str]:
    """All in one table where that fits, else how sure each is below it."""
    rows = [["check", "verdict", "found", "limit", "how sure"]]
    rows += [[check.name, check.status.name, check.found, check.limit, check.sureness] for check in verdict.checks]
    lines = table(rows)
    if not width or max(map(len, lines)) + 2 <= width:
        return lines
    lines = table([row[:-1] for row in rows])
    below = [[], *(_wrapped(row[-1], width - 2, "    ") for row in rows[1:])]
    return [each for line, more in zip(lines, below, strict=True) for each in (line, *more)]


def table(rows: list[list[str]]) -> list[str]:
    """Columns under each other; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _figures(figures: dict[str, Any]) -> list[str]:
    counts = figures["counts"]
    kinds = ", ".join(
        f"{counts[name]} {name.replace('_', ' ')}" for name in counts if name not in ("judged", "all") and counts[name]
    )
    rows = [["milliseconds", "p50", "p90", "p95", "p99", "p99.9", "max"]]
    for name, key in (("response, from the intended start", "response_ms"), ("service, from sending", "service_ms")):
        rows.append([name, *(_number(value) for value in figures[key].values())])
    cost = figures["generator"]["cpu_us_per_request"]
    return [
        f"{counts['judged']} judged of {counts['all']}: {kinds or 'none'}",
        f"offered {_number(figures['offered_rps'])} a second, right {_number(figures['right_rps'])}",
        f"the generator took {_number(cost)} µs of processor a request",
        *_cache(figures.get("cache") or {}),
        *table(rows),
        *_scenarios(figures.get("scenarios") or {}),
    ]


def _scenarios(found: dict[str, Any]) -> list[str]:
    """Nothing where there is one: its figures stand above."""
    heads = ["scenario", "requests", "right", "p50", "p95", "p99"]
    return ["", *table([heads, *tables.scenario_rows(found)])] if len(found) > 1 else []


def _cache(shares: dict[str, float | None]) -> list[str]:
    """Nothing where the server keeps no answers."""
    hits, repeated = shares.get("hit_share"), shares.get("repeated_share")
    return (
        [] if hits is None else [f"{hits:.1%} of the answers had been kept; {repeated or 0:.1%} of the bytes repeated"]
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
