"""PASS, FAIL, INVALID or UNDECIDED, from raw rows and a promise. Knows neither Locust nor the server nor a clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadtest import rows as records
from loadtest import schedule
from loadtest.profiles import Profile, Promise, word_of
from loadtest.rows import Outcome, Record
from loadtest.statistics import drift, least_requests, percentile, share_bounds
from loadtest.statuses import Status

DRIFT_WINDOWS = 20
# Fewer samples of the server's memory say nothing about its growth.
MEMORY_SAMPLES_LEAST = 8
SECONDS_AN_HOUR = 3600.0
# What no slow generator and no small number excuses.
FACTS = ("wrong answers", "mixed-up answers", "target protected")


@dataclass(frozen=True)
class Check:
    """One line of the verdict: what was asked for, what was found, how sure that is."""

    name: str
    status: Status
    found: str
    limit: str
    sureness: str = ""


@dataclass(frozen=True)
class Verdict:
    """The whole verdict: every check, and the figures that reports and comparisons read."""

    status: Status
    checks: list[Check]
    figures: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in verdict.json; statuses by name."""
        checks = [{**asdict(each), "status": each.status.name} for each in self.checks]
        return {"verdict": self.status.name, "exit_status": int(self.status), "checks": checks, "figures": self.figures}


def judge(record: Record, profile: Profile, promise: Promise, samples: Sequence[Mapping[str, Any]] = ()) -> Verdict:
    """The verdict on a run. A share is judged by its binomial bound, as MLPerf LoadGen does for its early stopping.

    ``samples``: what the server said of itself meanwhile, with the moment ``at`` of the wall clock.
    """
    judged = record.rows[record.rows["intended"] >= profile.judged_from]
    checks = [
        *_generator(record, judged, profile, promise),
        *_freshness(judged),
        *_correctness(record),
        *_latencies(judged, profile, promise),
        *_failures(judged, promise),
        *_drift(judged, profile),
        *_memory(record, profile, samples),
    ]
    found = figures(judged, record, _judged_seconds(record, profile))
    return Verdict(_together(checks), checks, {**found, "server": server_figures(record, profile, samples)})


def so_far(record: Record, profile: Profile, promise: Promise) -> Status | None:
    """What the verdict would be if the run ended now, as far as the server decides it; None before it is judged.

    Too few requests are no reason yet, so INVALID is UNDECIDED here.
    """
    judged = record.rows[record.rows["intended"] >= profile.judged_from]
    if not judged.size:
        return None
    checks = [*_correctness(record), *_latencies(judged, profile, promise), *_failures(judged, promise)]
    found = {each.status for each in checks}
    if Status.FAIL in found:
        return Status.FAIL
    return Status.PASS if found == {Status.PASS} else Status.UNDECIDED


def _judged_seconds(record: Record, profile: Profile) -> float:
    """The span that rates are over: the plan's, or less where the run was ended early."""
    until = schedule.seconds(profile.stages)
    if any(each.get("stopped_early") for each in record.workers) and record.rows.size:
        until = min(until, float(record.rows["intended"][-1]))
    return max(0.0, until - profile.judged_from)


def _together(checks: list[Check]) -> Status:
    found = {each.status for each in checks}
    if any(each.status == Status.FAIL and each.name in FACTS for each in checks):
        return Status.FAIL
    for status in (Status.INVALID, Status.FAIL, Status.UNDECIDED):
        if status in found:
            return status
    return Status.PASS


def _generator(record: Record, judged: np.ndarray, profile: Profile, promise: Promise) -> Iterator[Check]:
    lost = record.lost_workers
    yield Check(
        "workers",
        Status.INVALID if lost else Status.PASS,
        f"{len(record.workers)} of {record.expected_workers} finished",
        "all",
        "a lost worker takes its requests with it" if lost else "",
    )
    planned = sum(each["planned"] for each in record.workers)
    yield from _completeness(record, profile, planned)
    if judged.size == 0:
        yield Check("requests", Status.INVALID, "none", "at least one", f"{planned} were planned")
        return
    sent = judged[judged["outcome"] != Outcome.DROPPED]
    lag_ms = percentile((sent["sent"] - sent["intended"]) * 1000, 0.99)
    yield Check(
        "generator lag p99",
        Status.PASS if lag_ms <= promise.max_lag_p99_ms or math.isnan(lag_ms) else Status.INVALID,
        f"{lag_ms:.1f} ms",
        f"{promise.max_lag_p99_ms:g} ms",
        ""
        if not lag_ms > promise.max_lag_p99_ms
        else "this machine was too slow to send on time; free it, or add workers",
    )


def _completeness(record: Record, profile: Profile, planned: int) -> Iterator[Check]:
    """Every arrival has its row: what was planned was sent or dropped, and what was written was read."""
    told = sum(each["rows"] for each in record.workers)
    stopped = any(each.get("stopped_early") for each in record.workers)
    wanted = planned if profile.model == "open" and not stopped else told
    if not record.lost_workers and not wanted == told == record.rows.size:
        yield Check("records", Status.INVALID, f"{record.rows.size} rows", f"{wanted} rows", "see locust.log")


def _freshness(judged: np.ndarray) -> Iterator[Check]:
    """Bytes that nobody has sent before can't have been answered from what a cache kept."""
    new = judged[(judged["repeated"] == 0) & (judged["cache"] > 0)]
    kept = int(np.sum(new["cache"] != records.CACHE["miss"]))
    if kept:
        told = f"{kept} of {new.size} answers to new bytes"
        yield Check("kept answers", Status.INVALID, told, "none", "a cache was measured, not the model")


def _correctness(record: Record) -> Iterator[Check]:
    for name, outcome in (("wrong answers", Outcome.WRONG), ("mixed-up answers", Outcome.MIXED_UP)):
        # Warm-up excuses slowness, never a wrong answer.
        count = int(np.sum(record.rows["outcome"] == outcome))
        yield Check(name, Status.FAIL if count else Status.PASS, str(count), "0")
    reasons = sorted({each["stopped_early"] for each in record.workers if each.get("stopped_early")})
    for reason in reasons:
        yield Check("target protected", Status.FAIL, reason, "runs to its end")


def _latencies(judged: np.ndarray, profile: Profile, promise: Promise) -> Iterator[Check]:
    if judged.size == 0:
        return
    responses = records.response_ms(judged)
    for share in profile.claims:
        if share in promise.limits_ms:
            yield _latency(responses, share, promise.limits_ms[share], promise.confidence)


def _latency(responses: np.ndarray, share: float, limit_ms: float, confidence: float) -> Check:
    late, total = int(np.sum(responses > limit_ms)), int(responses.size)
    lower, upper = share_bounds(late, total, confidence)
    allowed = 1 - share
    needed = least_requests(share, confidence)
    found = percentile(responses, share)
    if upper <= allowed:
        status = Status.PASS
    elif lower > allowed:
        status = Status.FAIL
    else:
        status = Status.INVALID if total < needed else Status.UNDECIDED
    sureness = f"{late} of {total} late: {lower:.2%} … {upper:.2%} at {confidence:.0%}, allowed {allowed:.4g}"
    if status == Status.INVALID:
        sureness = f"{total} requests; {word_of(share)} needs at least {needed}"
    found_text = "no answer" if math.isinf(found) else f"{found:.1f} ms"
    return Check(f"response {word_of(share)}", status, found_text, f"{limit_ms:g} ms", sureness)


def _failures(judged: np.ndarray, promise: Promise) -> Iterator[Check]:
    if judged.size == 0:
        return
    for name, outcomes in (
        ("failed", (Outcome.REFUSED, Outcome.FAILED, Outcome.BROKEN, Outcome.TIMED_OUT)),
        ("dropped", (Outcome.DROPPED,)),
    ):
        count, total = int(np.isin(judged["outcome"], outcomes).sum()), int(judged.size)
        lower, upper = share_bounds(count, total, promise.confidence)
        limit = promise.max_failed_share
        status = Status.FAIL if lower > limit else Status.UNDECIDED
        if count <= limit * total:
            status = Status.PASS
        sureness = f"{count} of {total}: {lower:.2%} … {upper:.2%} at {promise.confidence:.0%}"
        yield Check(name, status, f"{count / total:.2%}", f"{limit:.2%}", sureness)


def _drift(judged: np.ndarray, profile: Profile) -> Iterator[Check]:
    """Soak: p99 of equal windows may not climb from the first to the last by more than the profile allows."""
    if not profile.max_drift or judged.size < DRIFT_WINDOWS * 20:
        return
    parts = np.array_split(records.response_ms(judged), DRIFT_WINDOWS)
    values = np.array([percentile(part, 0.99) for part in parts])
    grown = drift(np.arange(DRIFT_WINDOWS, dtype=float), values) if np.isfinite(values).all() else math.inf
    status = Status.PASS if grown <= profile.max_drift else Status.FAIL
    yield Check("p99 drift", status, f"{grown:+.1%}", f"{profile.max_drift:+.0%}", "median slope over 20 windows")


def _memory(record: Record, profile: Profile, samples: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Soak: the memory of all processes may not grow by more than the profile allows."""
    if not profile.max_memory_growth:
        return
    judged = _judged_samples(record, profile, samples)
    limit = f"{profile.max_memory_growth:+.0%}"
    if len(judged) < MEMORY_SAMPLES_LEAST:
        said = f"{len(judged)} samples; expected at least {MEMORY_SAMPLES_LEAST}, one a second, from /status"
        yield Check("memory growth", Status.INVALID, "not told", limit, said)
        return
    moments, values = _in_windows(judged)
    grown = drift(moments, values)
    mb_an_hour = grown * float(np.median(values)) / 1e6 / (moments[-1] - moments[0]) * SECONDS_AN_HOUR
    status = Status.PASS if grown <= profile.max_memory_growth else Status.FAIL
    span = (
        f"{values[0] / 1e6:.0f} to {values[-1] / 1e6:.0f} MB in {moments[-1] - moments[0]:.0f} s, by the median slope"
    )
    yield Check("memory growth", status, f"{grown:+.1%}, {mb_an_hour:+.0f} MB an hour", limit, span)


def _judged_samples(record: Record, profile: Profile, samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those between the end of the warm-up and the last intended start that say how much memory there was."""
    began = record.began_at
    if began is None or not record.rows.size:
        return []
    first, last = began + profile.judged_from, began + float(record.rows["intended"][-1])
    return [each for each in samples if first <= each["at"] <= last and each.get("resident_bytes")]


def _in_windows(samples: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Medians of equal windows, so that half an hour has as few points as a minute."""
    moments = np.array([each["at"] for each in samples], float)
    values = np.array([each["resident_bytes"] for each in samples], float)
    count = min(DRIFT_WINDOWS, len(samples))
    return tuple(np.array([np.median(part) for part in np.array_split(each, count)]) for each in (moments, values))  # type: ignore[return-value]


def server_figures(
    record: Record, profile: Profile, samples: Sequence[Mapping[str, Any]]
) -> dict[str, float | int | None]:
    """What the server used in the judged span: processor time a right answer, cores kept busy, memory at most."""
    judged = [each for each in _judged_samples(record, profile, samples) if each.get("cpu_seconds") is not None]
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


def figures(judged: np.ndarray, record: Record, seconds: float) -> dict[str, Any]:
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
        "offered_rps": _number(judged.size / seconds if seconds else math.nan),
        "right_rps": _number(counts["right"] / seconds if seconds else math.nan),
        "response_ms": _percentiles(responses),
        "service_ms": _percentiles(records.service_ms(answered)),
        "lag_ms": _percentiles(lag_ms),
        "generator": {
            "cpu_us_per_request": _number(
                1e6 * sum(each["cpu_seconds"] for each in record.workers) / max(1, record.rows.size)
            ),
            "workers": len(record.workers),
        },
        "cache": _cache(judged),
        "server_ms": {
            name: _percentiles(judged[f"{name}_ms"][~np.isnan(judged[f"{name}_ms"])])
            for name in ("decode", "queue", "predict", "engine")
        },
    }


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
