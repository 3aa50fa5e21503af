"""The charts of a run's report: load and latency over time, against the rate, where the time goes, the server."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtest import charts, request_log
from loadtest.charts import Axis, Chart, Mark, Series
from loadtest.outcomes import Outcome
from loadtest.plans import Plan
from loadtest.profiles import is_shaped, word_of
from loadtest.schedule import seconds as seconds_of
from loadtest.statistics import percentile
from loadtest.tables import Section

WINDOWS_MOST = 90
WINDOW_LEAST = 8
SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def over_time(plan: Plan, found: np.ndarray) -> Section:
    """What was meant to be sent, was sent and came back, by the second."""
    edges = _windows(plan)
    middle, step = list((edges[:-1] + edges[1:]) / 2), float(edges[1] - edges[0])
    sent = found[found["outcome"] != Outcome.DROPPED]

    def rate(moments: np.ndarray) -> list[float]:
        return list(np.histogram(moments, edges)[0] / step)

    right = sent[sent["outcome"] == Outcome.RIGHT]
    series = [
        Series("offered", "grey", middle, rate(found["intended"])),
        Series("sent", "blue", middle, rate(sent["sent"])),
        Series("answered rightly", "green", middle, rate(right["done"])),
        Series("refused or failed", "amber", middle, rate(sent[sent["outcome"] != Outcome.RIGHT]["done"])),
        Series("dropped", "red", middle, rate(found[found["outcome"] == Outcome.DROPPED]["intended"])),
    ]
    shown = [one for one in series if one.name in ("offered", "sent", "answered rightly") or any(one.ys)]
    marks = [Mark(plan.profile.judged_from, "judged from here", True)] if plan.profile.judged_from else []
    chart = charts.lines(
        "Requests over time", _time(seconds_of(plan.profile.stages)), Axis("requests a second"), shown, marks
    )
    lead = "What was meant to be sent, what was sent, and what came back, by the second."
    return _section("Load over time", lead, chart)


def latency_over_time(plan: Plan, found: np.ndarray) -> Section:
    """Percentiles of the response time in each window of the run."""
    edges = _windows(plan)
    middle, windows = list((edges[:-1] + edges[1:]) / 2), _responses(found, edges)
    series = [
        Series(word_of(share), colour, middle, [percentile(window, share) for window in windows])
        for share, colour in ((0.5, "blue"), (0.95, "amber"), (0.99, "red"))
    ]
    limits = [(share, limit) for share, limit in plan.slo.limits_ms.items() if share in plan.profile.claims]
    marks = [Mark(limit, f"limit {word_of(share)}") for share, limit in limits[-1:]]
    chart = charts.lines(
        "Response time over time", _time(seconds_of(plan.profile.stages)), Axis("milliseconds", True), series, marks
    )
    lead = "From the moment a request was meant to start. A gap: more than the percentile's share had no answer."
    return _section("Response time over time", lead, chart)


def by_rate(plan: Plan, found: np.ndarray) -> Section:
    """Latency against rate, where the rate changes during the run."""
    if not is_shaped(plan.profile):
        return _section("Latency against rate", "")
    edges = _windows(plan)
    step = float(edges[1] - edges[0])
    points = sorted(
        (window.size / step, percentile(window, 0.5), percentile(window, 0.95))
        for window in _responses(found, edges)
        if window.size >= WINDOW_LEAST
    )
    rates, middle, high = (list(column) for column in zip(*points, strict=True)) if points else ([], [], [])
    series = [Series("p50", "blue", rates, middle, True), Series("p95", "amber", rates, high, True)]
    chart = charts.lines("Latency against rate", Axis("offered, requests a second"), Axis("milliseconds", True), series)
    return _section("Latency against rate", "Each pair of dots is one window of the run.", chart)


def response_and_service(found: np.ndarray) -> Section:
    """What callers felt beside what a closed loop would have told."""
    responses = request_log.response_ms(found)
    answered = found[np.isfinite(responses)]
    places = [-math.log10(1 - share) for share in SHARES]
    ticks = [(place, word_of(share)) for place, share in zip(places, SHARES, strict=True)]
    told = (
        ("response: what callers felt", "amber", responses),
        ("service: what a tool that waits its turn reports", "blue", request_log.service_ms(answered)),
    )
    series = [
        Series(name, colour, places, [percentile(times, share) for share in SHARES], True)
        for name, colour, times in told
    ]
    chart = charts.lines(
        "Response and service time", Axis("share of requests", ticks=ticks), Axis("milliseconds", True), series
    )
    lead = "Both by percentile. Where they part, requests waited before they were even sent, or got no answer."
    return _section("Response time against service time", lead, chart)


def waterfall(found: np.ndarray) -> Section:
    """Where the time of middling and of slow requests went, by the server's own account."""
    right = found[(found["outcome"] == Outcome.RIGHT) & ~np.isnan(found["engine_ms"])]
    if right.size < WINDOW_LEAST:
        return _section("Where the time goes", "")
    ordered = right[np.argsort(request_log.response_ms(right))]
    count = ordered.size
    groups = [
        ("the middle fifth", ordered[int(count * 0.4) : max(int(count * 0.6), int(count * 0.4) + 1)]),
        ("the slowest twentieth", ordered[min(int(count * 0.95), count - 1) :]),
    ]
    table = [(name, _parts(group)) for name, group in groups]
    chart = charts.stacks("Where the time goes", "ms", table)
    lead = "Means, by the server's own account (Server-Timing); the rest is network and Apache."
    return _section("Where the time goes", lead, chart)


def _parts(group: np.ndarray) -> list[tuple[str, str, float]]:
    lag = float(np.mean((group["sent"] - group["intended"]) * 1000))
    service = float(np.mean(request_log.service_ms(group)))
    decode, queue, predict, engine = (
        float(np.nanmean(group[f"{name}_ms"])) if np.isfinite(group[f"{name}_ms"]).any() else 0.0
        for name in ("decode", "queue", "predict", "engine")
    )
    inside = max(0.0, engine - queue - predict)
    outside = max(0.0, service - decode - engine)
    return [
        ("schedule lag", "grey", lag),
        ("network and Apache", "violet", outside),
        ("decode", "green", decode),
        ("queue", "red", queue),
        ("model", "blue", predict),
        ("rest of the engine", "amber", inside),
    ]


def server(samples: Sequence[dict[str, Any]], seconds: float) -> Section:
    """Memory, processor and queue of the server, on the axis of the requests."""
    shown = [each for each in samples if 0 <= each["at"] <= seconds]
    if len(shown) < 2:
        return _section("The server during the run", "")
    moments = [each["at"] for each in shown]
    parts = [
        ("Memory", "megabytes", Series("memory of all processes", "violet", moments, [_megabytes(e) for e in shown])),
        ("Processor", "cores", Series("cores that were busy", "blue", moments[1:], _busy_cores(shown))),
        (
            "Queue",
            "images waiting",
            Series("images waiting", "red", moments, [float(e["waiting"] or 0) for e in shown]),
        ),
    ]
    drawn = [
        charts.lines(title, _time(seconds), Axis(unit), [series])
        for title, unit, series in parts
        if any(value > 0 for value in series.ys)
    ]
    lead = "What the service says of itself, once a second, on a connection of its own."
    return _section("The server during the run", lead, *drawn)


def _section(title: str, lead: str, *drawn: Chart | None) -> Section:
    return Section(title, lead, charts=[chart for chart in drawn if chart])


def _megabytes(sample: dict[str, Any]) -> float:
    return float(sample["resident_bytes"]) / 1e6


def _busy_cores(samples: Sequence[dict[str, Any]]) -> list[float]:
    """Processor time that was used between two samples, a second; no number where the server did not tell."""
    return [
        max(0.0, (b["cpu_seconds"] - a["cpu_seconds"]) / (b["at"] - a["at"]))
        if a.get("cpu_seconds") is not None and b.get("cpu_seconds") is not None and b["at"] > a["at"]
        else math.nan
        for a, b in itertools.pairwise(samples)
    ]


def _windows(plan: Plan) -> np.ndarray:
    """Edges of equal spans that cover the run."""
    whole = seconds_of(plan.profile.stages)
    step = max(1.0, math.ceil(whole / WINDOWS_MOST))
    return np.arange(0.0, whole + step, step)


def _responses(found: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """Response times by the window in which a request was meant to start."""
    responses, places = request_log.response_ms(found), np.digitize(found["intended"], edges) - 1
    return [responses[places == number] for number in range(edges.size - 1)]


def _time(seconds: float) -> Axis:
    """The same on every chart over time, so that one looks straight down the page."""
    return Axis("seconds", ends=(0.0, seconds))
