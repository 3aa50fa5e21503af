"""One offline HTML file to hand on: the verdict, the curves, the causes, the command that repeats it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import capacity, charts, plans, probes, rows
from loadtest.charts import Axis, Mark, Series
from loadtest.plans import Plan
from loadtest.profiles import word_of
from loadtest.rows import Outcome
from loadtest.scenarios import NAMES, describe
from loadtest.schedule import seconds as seconds_of
from loadtest.statistics import percentile
from loadtest.statuses import Status, UsageError
from loadtest.summary import MEANING

FILE_NAME = "report.html"
STYLE = (Path(__file__).resolve().parent / "report.css").read_text()
WINDOWS_MOST = 90
WINDOW_LEAST = 8
SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
HEALTHY_LAG_MS = 20.0


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
    record = rows.read(folder, plan.workers)
    path.write_text(render(plan, verdict, record.rows, _since(record.began_at, probes.read(folder))), encoding="utf-8")
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


# ── A run ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def render(plan: Plan, verdict: dict[str, Any], found: np.ndarray, samples: Sequence[dict[str, Any]]) -> str:
    """The whole page of one run; ``samples`` of the server, with seconds of the run as their moment ``at``."""
    status = Status[verdict["verdict"]]
    body = [
        f'<p class="over">Load test · {escape(plan.profile.name)} · {escape(plan.env)} · {escape(plan.url)}</p>',
        f"<h1>{escape(plan.profile.question)}</h1>",
        _banner(
            status.name, f"{status.name}: {MEANING.get(status, '')}.", describe(plan.mix), verdict.get("cause", "")
        ),
        _tiles(verdict["figures"]),
        _checks(verdict["checks"]),
        _over_time(plan, found),
        _latency_over_time(plan, found),
        _curve_by_rate(plan, found),
        _response_and_service(found[found["intended"] >= plan.profile.judged_from]),
        _waterfall(found[found["intended"] >= plan.profile.judged_from]),
        _by_scenario(found[found["intended"] >= plan.profile.judged_from]),
        _server(samples, seconds_of(plan.profile.stages)),
        _refusals(verdict["figures"].get("refusals", ())),
        _examples(verdict.get("examples", ())),
        _machine(verdict["figures"].get("machine") or {}),
        _generator(plan, verdict["figures"]),
        _origin(plan.fingerprint, plan.command),
    ]
    return _page(f"{status.name}: {plan.profile.name} on {plan.url}", body)


def _page(title: str, body: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _section(title: str, lead: str, inside: str) -> str:
    if not inside:
        return ""
    return f'<section><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{inside}</section>'


def _banner(word: str, sentence: str, lead: str, cause: str = "") -> str:
    why = f'<p class="cause">{escape(cause)}</p>' if cause else ""
    return (
        f'<section class="banner {word}"><span class="word">{word}</span>'
        f'<h2>{escape(_sentence(sentence.split(": ", 1)[-1]))}</h2>{why}<p class="lead">{escape(lead)}</p></section>'
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _tiles(figures: dict[str, Any]) -> str:
    counts, response = figures["counts"], figures["response_ms"]
    bad = counts["refused"] + counts["failed"] + counts["broken"] + counts["timed_out"]
    tiles = [
        ("right answers a second", _number(figures["right_rps"]), "", False),
        ("offered a second", _number(figures["offered_rps"]), "", False),
        ("p50 response", _number(response["p50"]), "ms", False),
        ("p95 response", _number(response["p95"]), "ms", False),
        ("p99 response", _number(response["p99"]), "ms", False),
        ("refused or failed", str(bad), f"of {counts['judged']}", bad > 0),
        ("dropped", str(counts["dropped"]), "", counts["dropped"] > 0),
        ("wrong + mixed up", f"{counts['wrong']} + {counts['mixed_up']}", "", counts["wrong"] + counts["mixed_up"] > 0),
    ]
    return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _tile(name: str, value: str, unit: str, is_bad: bool) -> str:
    small = f" <small>{escape(unit)}</small>" if unit else ""
    return (
        f'<div class="tile{" is-bad" if is_bad else ""}"><b>{escape(value)}{small}</b><span>{escape(name)}</span></div>'
    )


def _checks(checks: Sequence[dict[str, Any]]) -> str:
    lines = [
        [_pill(each["status"]), *(escape(each[key]) for key in ("found", "limit")), _soft(each["sureness"])]
        for each in checks
    ]
    table = _table(("check", "verdict", "found", "limit", "how sure"), [each["name"] for each in checks], lines)
    lead = (
        "A share passes when even its upper bound keeps the limit, and fails when even its lower bound breaks it. "
        "Requests that wait in one queue are late together: the bounds count how many independent ones they are worth."
    )
    return _section("Verdict", lead, table)


def _windows(plan: Plan) -> np.ndarray:
    """Edges of equal spans that cover the run."""
    whole = seconds_of(plan.profile.stages)
    step = max(1.0, math.ceil(whole / WINDOWS_MOST))
    return np.arange(0.0, whole + step, step)


def _time(seconds: float) -> Axis:
    """The same on every chart over time, so that one looks straight down the page."""
    return Axis("seconds", ends=(0.0, seconds))


def _over_time(plan: Plan, found: np.ndarray) -> str:
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
    shown = [each for each in series if each.name in ("offered", "sent", "answered rightly") or any(each.ys)]
    marks = [Mark(plan.profile.judged_from, "judged from here", True)] if plan.profile.judged_from else []
    chart = charts.lines(
        "Requests over time", _time(seconds_of(plan.profile.stages)), Axis("requests a second"), shown, marks
    )
    lead = "What was meant to be sent, what was sent, and what came back, by the second."
    return _section("Load over time", lead, _with_legend(shown, chart))


def _latency_over_time(plan: Plan, found: np.ndarray) -> str:
    edges = _windows(plan)
    step = float(edges[1] - edges[0])
    responses = rows.response_ms(found)
    places = np.digitize(found["intended"], edges) - 1
    series = []
    for share, colour in ((0.5, "blue"), (0.95, "amber"), (0.99, "red")):
        values = [percentile(responses[places == number], share) for number in range(edges.size - 1)]
        series.append(Series(word_of(share), colour, list(edges[:-1] + step / 2), values))
    limits = [(share, limit) for share, limit in plan.promise.limits_ms.items() if share in plan.profile.claims]
    marks = [Mark(limit, f"limit {word_of(share)}") for share, limit in limits[-1:]]
    chart = charts.lines(
        "Response time over time", _time(seconds_of(plan.profile.stages)), Axis("milliseconds", True), series, marks
    )
    lead = "From the moment a request was meant to start. A gap: more than the percentile's share had no answer."
    return _section("Response time over time", lead, _with_legend(series, chart))


def _curve_by_rate(plan: Plan, found: np.ndarray) -> str:
    """Latency against rate, where the rate changes during the run."""
    if (
        len(
            {(stage.from_rate, stage.to_rate) for stage in plan.profile.stages}
            | {(s.to_rate, 0.0) for s in plan.profile.stages}
        )
        < 3
    ):
        return ""
    edges = _windows(plan)
    responses = rows.response_ms(found)
    places = np.digitize(found["intended"], edges) - 1
    step = float(edges[1] - edges[0])
    points = [
        (
            float(np.sum(places == n)) / step,
            percentile(responses[places == n], 0.5),
            percentile(responses[places == n], 0.95),
        )
        for n in range(edges.size - 1)
        if np.sum(places == n) >= WINDOW_LEAST
    ]
    points.sort()
    rates, middle, high = (list(column) for column in zip(*points, strict=True)) if points else ([], [], [])
    series = [Series("p50", "blue", rates, middle, True), Series("p95", "amber", rates, high, True)]
    chart = charts.lines("Latency against rate", Axis("offered, requests a second"), Axis("milliseconds", True), series)
    return _section("Latency against rate", "Each pair of dots is one window of the run.", _with_legend(series, chart))


def _response_and_service(found: np.ndarray) -> str:
    responses = rows.response_ms(found)
    answered = found[np.isfinite(responses)]
    places = [-math.log10(1 - share) for share in SHARES]
    ticks = [(place, word_of(share)) for place, share in zip(places, SHARES, strict=True)]
    series = [
        Series(
            "response: what callers felt", "amber", places, [percentile(responses, share) for share in SHARES], True
        ),
        Series(
            "service: what a tool that waits its turn reports",
            "blue",
            places,
            [percentile(rows.service_ms(answered), share) for share in SHARES],
            True,
        ),
    ]
    chart = charts.lines(
        "Response and service time", Axis("share of requests", ticks=ticks), Axis("milliseconds", True), series
    )
    lead = "Both by percentile. Where they part, requests waited before they were even sent, or got no answer."
    return _section("Response time against service time", lead, _with_legend(series, chart))


def _waterfall(found: np.ndarray) -> str:
    right = found[(found["outcome"] == Outcome.RIGHT) & ~np.isnan(found["engine_ms"])]
    if right.size < WINDOW_LEAST:
        return ""
    ordered = right[np.argsort(rows.response_ms(right))]
    count = ordered.size
    groups = [
        ("the middle fifth", ordered[int(count * 0.4) : max(int(count * 0.6), int(count * 0.4) + 1)]),
        ("the slowest twentieth", ordered[min(int(count * 0.95), count - 1) :]),
    ]
    table = [(name, _parts(group)) for name, group in groups]
    chart = charts.stacks("Where the time goes", "ms", table)
    key = charts.legend([(name, colour) for name, colour, _ in table[0][1]])
    lead = "Means, by the server's own account (Server-Timing); the rest is network and Apache."
    return _section("Where the time goes", lead, key + chart)


def _parts(group: np.ndarray) -> list[tuple[str, str, float]]:
    lag = float(np.mean((group["sent"] - group["intended"]) * 1000))
    service = float(np.mean(rows.service_ms(group)))
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


def _by_scenario(found: np.ndarray) -> str:
    names, lines = [], []
    for number, name in enumerate(NAMES):
        part = found[found["scenario"] == number]
        if part.size:
            responses = rows.response_ms(part)
            names.append(name)
            lines.append(
                [
                    str(part.size),
                    str(int(np.sum(part["outcome"] == Outcome.RIGHT))),
                    *(_milliseconds(percentile(responses, share)) for share in (0.5, 0.95, 0.99)),
                    f"{float(np.mean(part['bytes'])) / 1000:.1f} kB",
                ]
            )
    table = _table(("scenario", "requests", "right", "p50", "p95", "p99", "mean answer"), names, lines)
    return _section("By scenario", "Few requests make a percentile uncertain; the verdict is on all of them.", table)


def _server(samples: Sequence[dict[str, Any]], seconds: float) -> str:
    shown = [each for each in samples if 0 <= each["at"] <= seconds]
    if len(shown) < 2:
        return ""
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
    drawn = ""
    for title, unit, series in parts:
        if any(value > 0 for value in series.ys):
            drawn += _with_legend([series], charts.lines(title, _time(seconds), Axis(unit), [series]))
    lead = (
        "What the service says of itself, once a second, on a connection of its own; on the axis of the charts above."
    )
    return _section("The server meanwhile", lead, drawn)


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


def _examples(examples: Sequence[dict[str, Any]]) -> str:
    lines = [
        [f"{each['at']:.1f} s", escape(each["what"]), f"<code>{escape(each['request_id'])}</code>"] for each in examples
    ]
    kinds = [each["outcome"].lower().replace("_", " ") for each in examples]
    table = _table(("kind", "when", "what", "request id, for the server's log"), kinds, lines)
    return _section("What was wrong", "The first of each kind; all of them are counted above.", table)


def _refusals(refusals: Sequence[dict[str, Any]]) -> str:
    lines = [[str(row["count"]), str(row["status"] or "–"), escape(row["code"] or "–")] for row in refusals]
    names = [row["scenario"] for row in refusals]
    table = _table(("scenario", "requests", "status", "problem code, or what broke"), names, lines)
    lead = "Requests without success, the warm-up's too. docs/errors.md says what each code means."
    return _section("What was refused or failed", lead, table)


def _machine(used: dict[str, Any]) -> str:
    if not used:
        return ""
    lines = [
        ("generator and server", "on one machine" if used["is_shared"] else "on different machines"),
        ("load, one minute's mean", f"{used['load']:.1f} on {used['cores']} cores"),
        ("cores busy", _share(used["busy_share"])),
        ("of that the generator", _share(used["generator_share"])),
        (
            "of that others than generator and server" if used["is_shared"] else "of that others",
            _share(used["others_share"]),
        ),
        ("steal: taken by other machines on this host", _share(used["steal_share"])),
    ]
    return _section(
        "This machine meanwhile", "Shares of all its cores. A busy machine makes any server slow.", _facts(lines)
    )


def _generator(plan: Plan, figures: dict[str, Any]) -> str:
    lag, cost = figures["lag_ms"], figures["generator"]["cpu_us_per_request"]
    lines = [
        (
            "start after the intended moment, p99",
            f"{_number(lag['p99'])} ms, at most {plan.promise.max_lag_p99_ms:g} ms",
        ),
        ("processor time a request", f"{_number(cost)} µs"),
        ("workers that finished", f"{figures['generator']['workers']} of {plan.workers}"),
        ("sent again, for an idle connection was closed meanwhile", str(figures["generator"].get("repeated", 0))),
        ("requests at once, a worker", f"at most {plan.slots}"),
        ("bytes that repeat", f"{plan.repeat_share:.0%} of requests"),
        ("answers that were kept", _share((figures.get("cache") or {}).get("hit_share"))),
        ("patience", f"{plan.timeout_seconds:g} s"),
    ]
    return _section("The generator", "Whether what was measured is the server, and not this machine.", _facts(lines))


def _origin(fingerprint: dict[str, Any], command: str) -> str:
    lines = [(key.replace("_", " "), _plain(value)) for key, value in fingerprint.items()]
    return _section("Origin", "Runs of unlike generators are not compared.", _facts(lines)) + _section(
        "The same again", "The seed sends the same requests at the same moments.", f"<pre>{escape(command)}</pre>"
    )


# ── A capacity ───────────────────────────────────────────────────────────────────────────────────────────────────────


def render_card(table: dict[str, Any]) -> str:
    """The capacity card: so much, how that was found, and what it was measured on."""
    # Of a rate that was tried twice, the longer run counts.
    steps = sorted({step["rate"]: step for step in table["steps"]}.values(), key=lambda step: step["rate"])
    series = [
        Series(
            name, colour, [step["rate"] for step in steps], [_value(step["response_ms"][name]) for step in steps], True
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
            _pill(step["verdict"]),
            f"{_number(step['right_rps'])}/s",
            *(_milliseconds(_value(step["response_ms"][name])) for name in ("p50", "p95", "p99")),
        ]
        for step in table["steps"]
    ]
    tried = _table(("offered", "verdict", "right", "p50", "p95", "p99"), names, lines)
    word = table.get("verdict") or ("PASS" if table["capacity_rps"] else "FAIL")
    body = [
        f'<p class="over">Capacity · {escape(table["env"])} · {escape(table["url"])}</p>',
        f"<h1>{escape(capacity.headline(table))}</h1>",
        _banner(word, f": it is to keep {capacity.rows_of_card(table)[2][1]}.", capacity.rows_of_card(table)[1][1]),
        _section(
            "What it was measured on",
            "The figure holds for this and nothing else.",
            _facts([(a, b) for a, b in capacity.rows_of_card(table)]),
        ),
        _section(
            "Latency against rate",
            "Each dot is a run. Past the knee, every further request makes all others wait.",
            _with_legend(series, chart),
        ),
        _section("The search", "In the order in which the rates were tried.", tried),
        _origin(table["fingerprint"], table["command"]),
    ]
    return _page(capacity.headline(table), body)


# ── Words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_legend(series: Sequence[Series], chart: str) -> str:
    return charts.legend([(each.name, each.colour) for each in series]) + chart if chart else ""


def _table(heads: Sequence[str], names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; ``names`` are its first column, as text, ``lines`` the others, as HTML. Empty when there are none."""
    if not names:
        return ""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f'<tr><td class="what">{escape(name)}</td>{"".join(f"<td>{cell}</td>" for cell in line)}</tr>'
        for name, line in zip(names, lines, strict=True)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _pill(word: str) -> str:
    return f'<span class="pill {word}">{word}</span>'


def _soft(words: str) -> str:
    return f'<span class="soft">{escape(words)}</span>'


def _facts(lines: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f'<tr><td class="what">{escape(name)}</td><td>{escape(value)}</td></tr>' for name, value in lines)
    return f'<div class="wide"><table>{cells}</table></div>'


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each}" for key, each in value.items()) or "–"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _value(value: float | None) -> float:
    return math.inf if value is None else value


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if math.isfinite(value) else "no answer" if math.isinf(value) else "–"


def _share(value: float | None) -> str:
    return "not told" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
