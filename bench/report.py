"""Samples as tables that read well on a terminal and as Markdown alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.statistics import Sample, Summary, by_round, contenders, measures, ratio, summarise

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """One measure as a column. ``digits``: after the point. ``is_count``: summed over the rounds."""

    measure: str
    title: str
    digits: int = 0
    is_count: bool = False


def throughput_columns(callers: Sequence[int]) -> list[Column]:
    """Images a second by callers."""
    return [Column(f"throughput_{each}_per_s", f"{each} callers", 1) for each in callers]


def latency_columns(callers: Sequence[int]) -> list[Column]:
    """Percentiles by callers, in milliseconds."""
    names = ("p50", "p95", "p99")
    return [Column(f"{name}_{each}_ms", f"{name}, {each}") for each in callers for name in names]


RESOURCES = [
    Column("memory_mb", "memory under load, MB (PSS)"),
    Column("rest_memory_mb", "4 s later, MB"),
    Column("start_s", "start to first right answer, s", 2),
    Column("agreement_percent", "agreement with the reference, %", 2),
]
OVERLOAD = [
    Column("overload_goodput_percent", "goodput, % of capacity"),
    Column("overload_p99_ms", "p99 of answers, ms"),
    Column("overload_refusal_p50_ms", "refusal p50, ms", 1),
    Column("overload_refusal_p99_ms", "refusal p99, ms", 1),
    Column("overload_refused", "refused", is_count=True),
    Column("overload_failed", "failed", is_count=True),
    Column("overload_reset", "reset", is_count=True),
    Column("overload_late", "no answer in 10 s", is_count=True),
    Column("overload_health_p99_ms", "health p99, ms"),
    Column("overload_health_failed", "health failed", is_count=True),
    Column("overload_recovery_s", "recovery, s", 1),
    Column("overload_memory_growth_mb", "memory growth, MB"),
]
HAMMER = [
    Column("hammer_kept_goodput_percent", "goodput, kept, % of capacity"),
    Column("hammer_kept_refused_per_s", "refusals/s, kept"),
    Column("hammer_new_goodput_percent", "goodput, new connections, %"),
    Column("hammer_new_refused_per_s", "refusals/s, new"),
    Column("hammer_new_reset", "reset, new", is_count=True),
]
CACHE = [
    Column("cache_miss_p50_ms", "computed, p50, ms", 2),
    Column("cache_hit_p50_ms", "kept, p50, ms", 2),
    Column("cache_hit_ratio", "kept / computed", 3),
]
ROUTES = [
    Column("plain_per_s", "route, requests/s"),
    Column("plain_p99_ms", "route p99, ms"),
    Column("plain_resets", "route resets", is_count=True),
    Column("flask_per_s", "route through Flask, requests/s"),
    Column("flask_p99_ms", "route through Flask p99, ms"),
    Column("health_per_s", "health, requests/s"),
    Column("health_p99_ms", "health p99, ms"),
    Column("static_per_s", "static file, requests/s"),
    Column("static_p99_ms", "static p99, ms"),
    Column("static_resets", "static resets", is_count=True),
]


def document(samples: Sequence[Sample], titles: dict[str, str], head: Sequence[str]) -> str:
    """All tables of a run, those without figures left out."""
    found = {int(name.split("_")[1]) for name in measures(samples) if name.startswith("throughput_")}
    callers = sorted(found)
    parts = [
        ("Images a second", throughput_columns(callers)),
        ("Latency, ms, by callers", latency_columns(callers)),
        ("Memory, start, agreement", RESOURCES),
        (
            "Processor time of the server, ms an image",
            [Column(f"processor_{n}_ms", f"{n} callers", 2) for n in callers],
        ),
        ("Four times capacity: arrivals by chance, a new connection each", OVERLOAD),
        ("880 callers that ask on at once whenever they are refused", HAMMER),
        ("A lone caller: answers computed, and answers kept from before", CACHE),
        ("Without a model, 64 connections", ROUTES),
    ]
    tables = [(title, _table(samples, titles, columns)) for title, columns in parts]
    tables += [(f"As a multiple of: {titles[other]}", _ratios(samples, titles, other)) for other in _bases(samples)]
    tables.append(("Share of the raw limit of the same model", _raw_shares(samples, titles)))
    sections = [f"## {title}\n\n{text}" for title, text in tables if text]
    return "\n\n".join(["\n".join(head), "Median (lowest–highest) over the rounds.", *sections]) + "\n"


def cell(summary: Summary, digits: int) -> str:
    """``58.1 (57.0–59.3)``; a dash where nothing was measured, the span only where there is one."""
    if math.isnan(summary.median):
        return MISSING
    text = f"{summary.median:.{digits}f}"
    span = f" ({summary.low:.{digits}f}–{summary.high:.{digits}f})"
    return text + span if summary.rounds > 1 and summary.low != summary.high else text


def align(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(rows[0]), f"|{'|'.join(f' {each} ' for each in rule)}|", *map(line, rows[1:])])


def _table(samples: Sequence[Sample], titles: dict[str, str], columns: Sequence[Column]) -> str:
    there = set(measures(samples))
    shown = [column for column in columns if column.measure in there]
    rows = []
    for name in contenders(samples):
        cells = [_figure(samples, name, column) for column in shown]
        if any(text != MISSING for text in cells):
            rows.append([titles.get(name, name), *cells])
    return align([["", *(column.title for column in shown)], *rows]) if rows else ""


def _figure(samples: Sequence[Sample], name: str, column: Column) -> str:
    values = list(by_round(samples, name, column.measure).values())
    if column.is_count:
        return f"{sum(values):.0f}" if values else MISSING
    return cell(summarise(values), column.digits)


def _bases(samples: Sequence[Sample]) -> list[str]:
    """Against whom ratios are told."""
    return [name for name in PEERS if name in contenders(samples)]


PEERS = (
    "ours-minimal",
    "ours-square",
    "gunicorn",
    "litserve",
    "bentoml",
    "gunicorn-built",
    "litserve-built",
    "bentoml-built",
    "gunicorn-twin",
    "litserve-twin",
    "bentoml-twin",
)  # ours as multiples of these
RATIO_MEASURES = ("throughput_1_per_s", "throughput_8_per_s", "throughput_32_per_s", "throughput_64_per_s")
RATIO_FURTHER = ("p50_1_ms", "p99_8_ms", "memory_mb", "start_s")


def _ratios(samples: Sequence[Sample], titles: dict[str, str], other: str) -> str:
    there = set(measures(sample for sample in samples if sample.contender == other))
    shown = [measure for measure in (*RATIO_MEASURES, *RATIO_FURTHER) if measure in there]
    rows = []
    for name in contenders(samples):
        cells = [cell(ratio(samples, measure, name, other), 2) for measure in shown]
        if name.startswith("ours") and any(text != MISSING for text in cells):
            rows.append([titles.get(name, name), *cells])
    return align([["", *(_words(measure) for measure in shown)], *rows]) if rows else ""


def _words(measure: str) -> str:
    """``throughput_32_per_s`` as ``images/s, 32``; ``p99_8_ms`` as ``p99, 8``."""
    name, *rest = measure.split("_")
    if name == "throughput":
        return f"images/s, {rest[0]}"
    return f"{name}, {rest[0]}" if len(rest) > 1 else name


def _raw_shares(samples: Sequence[Sample], titles: dict[str, str]) -> str:
    """What ours reaches of decode and predict without a server."""
    there = measures(sample for sample in samples if sample.contender.startswith("raw"))
    rows = []
    for name in contenders(samples):
        raw = name.replace("ours", "raw", 1)
        if name.startswith("ours") and raw in contenders(samples):
            rows.append([titles.get(name, name), *(cell(ratio(samples, each, name, raw), 2) for each in there)])
    return align([["", *(_words(each) for each in there)], *rows]) if rows else ""
