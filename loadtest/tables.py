"""The tables of a run's report: first figures, verdict, scenarios, what was wrong, machine, generator, origin."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from loadtest import markup, request_log
from loadtest.plans import Plan
from loadtest.request_log import Outcome
from loadtest.scenarios import NAMES
from loadtest.statistics import percentile


def tiles(figures: dict[str, Any]) -> str:
    """The figures that are read first."""
    counts, response = figures["counts"], figures["response_ms"]
    bad = counts["refused"] + counts["failed"] + counts["broken"] + counts["timed_out"]
    tiles = [
        ("right answers a second", markup.number(figures["right_rps"]), "", False),
        ("offered a second", markup.number(figures["offered_rps"]), "", False),
        *(_response(name, response[name]) for name in ("p50", "p95", "p99")),
        ("refused or failed", str(bad), f"of {counts['judged']}", bad > 0),
        ("dropped", str(counts["dropped"]), "", counts["dropped"] > 0),
        ("wrong + mixed up", f"{counts['wrong']} + {counts['mixed_up']}", "", counts["wrong"] + counts["mixed_up"] > 0),
    ]
    return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _response(name: str, value: float | None) -> tuple[str, str, str, bool]:
    """A percentile beyond which nobody was answered has no time."""
    if value is None:
        return f"{name} response", "no answer", "", True
    return f"{name} response", markup.number(value), "ms", False


def _tile(name: str, value: str, unit: str, is_bad: bool) -> str:
    small = f" <small>{escape(unit)}</small>" if unit else ""
    return (
        f'<div class="tile{" is-bad" if is_bad else ""}"><b>{escape(value)}{small}</b><span>{escape(name)}</span></div>'
    )


def checks(checks: Sequence[dict[str, Any]]) -> str:
    """Every line of the verdict."""
    lines = [
        [markup.pill(each["status"]), *(escape(each[key]) for key in ("found", "limit")), markup.soft(each["sureness"])]
        for each in checks
    ]
    table = markup.table(("check", "verdict", "found", "limit", "how sure"), [each["name"] for each in checks], lines)
    lead = (
        "A share passes when even its upper bound keeps the limit, and fails when even its lower bound breaks it. "
        "Requests that wait in one queue are late together: the bounds count how many independent ones they are worth."
    )
    return markup.section("Verdict", lead, table)


def by_scenario(found: np.ndarray) -> str:
    """Counts and percentiles of each way to call."""
    names, lines = [], []
    for number, name in enumerate(NAMES):
        part = found[found["scenario"] == number]
        if part.size:
            responses = request_log.response_ms(part)
            names.append(name)
            lines.append(
                [
                    str(part.size),
                    str(int(np.sum(part["outcome"] == Outcome.RIGHT))),
                    *(markup.milliseconds(percentile(responses, share)) for share in (0.5, 0.95, 0.99)),
                    f"{float(np.mean(part['bytes'])) / 1000:.1f} kB",
                ]
            )
    table = markup.table(("scenario", "requests", "right", "p50", "p95", "p99", "mean answer"), names, lines)
    return markup.section(
        "By scenario", "Few requests make a percentile uncertain; the verdict is on all of them.", table
    )


def examples(examples: Sequence[dict[str, Any]]) -> str:
    """The first wrong answers."""
    lines = [
        [f"{each['at']:.1f} s", escape(each["what"]), f"<code>{escape(each['request_id'])}</code>"] for each in examples
    ]
    kinds = [each["outcome"].lower().replace("_", " ") for each in examples]
    table = markup.table(("kind", "when", "what", "request id, for the server's log"), kinds, lines)
    return markup.section("What was wrong", "The first of each kind; all of them are counted above.", table)


def refusals(refusals: Sequence[dict[str, Any]]) -> str:
    """What was not answered with success, by scenario, status and problem code."""
    lines = [[str(row["count"]), str(row["status"] or "–"), escape(row["code"] or "–")] for row in refusals]
    names = [row["scenario"] for row in refusals]
    table = markup.table(("scenario", "requests", "status", "problem code, or what broke"), names, lines)
    lead = "Requests without success, the warm-up's too. docs/errors.md says what each code means."
    return markup.section("What was refused or failed", lead, table)


def machine(used: dict[str, Any]) -> str:
    """Who used the sending machine meanwhile."""
    if not used:
        return ""
    lines = [
        ("generator and server", "on one machine" if used["is_shared"] else "on different machines"),
        ("load, one minute's mean", f"{used['load']:.1f} on {used['cores']} cores"),
        ("cores busy", markup.share(used["busy_share"])),
        ("of that the generator", markup.share(used["generator_share"])),
        (
            "of that others than generator and server" if used["is_shared"] else "of that others",
            markup.share(used["others_share"]),
        ),
        ("steal: taken by other machines on this host", markup.share(used["steal_share"])),
    ]
    return markup.section(
        "This machine meanwhile", "Shares of all its cores. A busy machine makes any server slow.", markup.facts(lines)
    )


def generator(plan: Plan, figures: dict[str, Any]) -> str:
    """Whether what was measured is the server."""
    lag, cost = figures["lag_ms"], figures["generator"]["cpu_us_per_request"]
    lines = [
        (
            "start after the intended moment, p99",
            f"{markup.number(lag['p99'])} ms, at most {plan.slo.max_lag_p99_ms:g} ms",
        ),
        ("processor time a request", f"{markup.number(cost)} µs"),
        ("workers that finished", f"{figures['generator']['workers']} of {plan.workers}"),
        ("sent again, for an idle connection was closed meanwhile", str(figures["generator"].get("repeated", 0))),
        ("requests at once, a worker", f"at most {plan.slots}"),
        ("bytes that repeat", f"{plan.repeat_share:.0%} of requests"),
        ("answers that were kept", markup.share((figures.get("cache") or {}).get("hit_share"))),
        ("patience", f"{plan.timeout_seconds:g} s"),
    ]
    return markup.section(
        "The generator", "Whether what was measured is the server, and not this machine.", markup.facts(lines)
    )


def origin(fingerprint: dict[str, Any], command: str) -> str:
    """What was measured on what, and the command that repeats it."""
    lines = [(key.replace("_", " "), markup.plain(value)) for key, value in fingerprint.items()]
    return markup.section(
        "Origin", "Runs of unlike generators are not compared.", markup.facts(lines)
    ) + markup.section(
        "The same again", "The seed sends the same requests at the same moments.", f"<pre>{escape(command)}</pre>"
    )
