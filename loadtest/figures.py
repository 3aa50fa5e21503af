"""The numbers of a run that reports and comparisons read: counts, rates, percentiles, what was used for them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loadtest import request_log as records
from loadtest import soak
from loadtest.outcomes import Outcome
from loadtest.profiles import Profile
from loadtest.request_log import Record
from loadtest.statistics import percentile


def of_server(record: Record, profile: Profile, samples: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """What the server used in the judged span: processor time a right answer, cores kept busy, memory at most."""
    judged = [
        sample for sample in soak.judged_samples(record, profile, samples) if sample.get("cpu_seconds") is not None
    ]
    if len(judged) < 2:
        return {"cores": None, "cpu_ms_per_request": None, "busy_cores": None, "resident_mb": None}
    first, last = judged[0], judged[-1]
    used, span = last["cpu_seconds"] - first["cpu_seconds"], last["at"] - first["at"]
    done = record.rows["done"] + (record.began_at or 0.0)
    right = (record.rows["outcome"] == Outcome.RIGHT) & (done >= first["at"]) & (done < last["at"])
    count = int(np.sum(right))
    return {
        "cores": last.get("cores"),
        "cpu_ms_per_request": _number(used / count * 1000) if count and used > 0 else None,
        "busy_cores": _number(used / span) if used > 0 else None,
        "resident_mb": _number(max(each["resident_bytes"] for each in judged) / 1e6),
    }


def of_run(judged: np.ndarray, record: Record, seconds: float) -> dict[str, Any]:
    """Numbers of the judged span: counts, rates a second, percentiles in milliseconds. None for no value."""
    counts = {each.name.lower(): int(np.sum(judged["outcome"] == each)) for each in Outcome}
    responses = records.response_ms(judged)
    sent = judged[judged["outcome"] != Outcome.DROPPED]
    answered = judged[np.isfinite(responses)]
    lag_ms = (sent["sent"] - sent["intended"]) * 1000
    return {
        "counts": {**counts, "judged": int(judged.size), "all": int(record.rows.size)},
        "began_at": record.began_at,
        "seconds": round(seconds, 3),
        "refusals": refusals(record),
        "offered_rps": _number(judged.size / seconds if seconds else math.nan),
        "right_rps": _number(counts["right"] / seconds if seconds else math.nan),
        "response_ms": _percentiles(responses),
        "service_ms": _percentiles(records.service_ms(answered)),
        "lag_ms": _percentiles(lag_ms),
        "generator": {
            "cpu_us_per_request": _number(
                1e6 * sum(each["cpu_seconds"] for each in record.workers) / max(1, record.rows.size)
            ),
            "cpu_seconds": _number(sum(each["cpu_seconds"] for each in record.workers)),
            "workers": len(record.workers),
            "repeated": sum(each.get("repeated", 0) for each in record.workers),
        },
        "cache": _cache(judged),
        "server_ms": {
            name: _percentiles(judged[f"{name}_ms"][~np.isnan(judged[f"{name}_ms"])])
            for name in ("decode", "queue", "predict", "engine")
        },
    }


def of_scenarios(judged: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each scenario: requests, right answers, percentiles of the response in milliseconds, mean size of answers."""
    found = {}
    for index, name in enumerate(names):
        part = judged[judged["scenario"] == index]
        if part.size:
            found[name] = {
                "requests": int(part.size),
                "right": int(np.sum(part["outcome"] == Outcome.RIGHT)),
                "response_ms": _percentiles(records.response_ms(part)),
                "bytes": _number(float(np.mean(part["bytes"]))),
            }
    return found


def of_metrics(record: Record, profile: Profile) -> dict[str, dict[str, float | None]]:
    """Of each figure that checks noted: how often, and percentiles."""
    judged = {name: rows[rows[:, 0] >= profile.judged_from, 1] for name, rows in record.metrics.items()}
    return {name: {"count": values.size, **_percentiles(values)} for name, values in judged.items()}


def refusals(record: Record) -> list[dict[str, Any]]:
    """What was not answered with success, warm-up included: scenario, status, problem code; the commonest first."""
    kinds: Counter[tuple[str, int, str]] = Counter()
    for worker in record.workers:
        for row in worker.get("refusals", ()):
            kinds[row["scenario"], row["status"], row["code"]] += row["count"]
    return records.refusal_rows(kinds)


def _cache(judged: np.ndarray) -> dict[str, float | None]:
    """Shares: of requests whose bytes were sent before, and of answers that the server says it had kept."""
    told = judged[judged["cache"] > 0]
    hits = float(np.mean(told["cache"] == records.CACHE["hit"])) if told.size else math.nan
    asked = judged[judged["outcome"] != Outcome.DROPPED]["repeated"]
    return {"repeated_share": _number(float(np.mean(asked)) if asked.size else math.nan), "hit_share": _number(hits)}


def _percentiles(values: np.ndarray) -> dict[str, float | None]:
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
    found = {name: _number(percentile(values, share)) for name, share in shares.items()}
    return {**found, "max": _number(float(values.max()) if values.size else math.nan)}


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
