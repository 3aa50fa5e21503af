"""PASS, FAIL, INVALID or UNDECIDED, from raw rows and an SLO. Knows neither Locust nor the server nor a clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from loadtest import diagnosis, figures, profiles, schedule, soak
from loadtest import request_log as records
from loadtest.batch_means import Evidence, evidence, strata_of
from loadtest.checks import Check, Verdict, together
from loadtest.outcomes import Outcome
from loadtest.profiles import Profile, Slo, word_of
from loadtest.request_log import Record
from loadtest.statistics import least_requests, percentile
from loadtest.statuses import Status

# The service answered these itself; the others may be of the generator's making.
ANSWERED_NO = (Outcome.REFUSED, Outcome.FAILED)
FAILED = (*ANSWERED_NO, Outcome.BROKEN, Outcome.TIMED_OUT)


def judge(
    record: Record,
    profile: Profile,
    slo: Slo,
    samples: Sequence[Mapping[str, Any]] = (),
    host: Sequence[Mapping[str, Any]] = (),
    names: Sequence[str] = (),
) -> Verdict:
    """The verdict on a run. A share is judged by bounds that know how many independent observations it is made of.

    ``names``: the scenarios by their numbers in rows.
    ``samples``: what the server said of itself meanwhile, ``host``: what this machine did, both with the moment ``at``
    of the wall clock.
    """
    judged = record.rows[record.rows["intended"] >= profile.judged_from]
    seconds = _judged_seconds(record, profile)
    checks = [
        *_generator(record, judged, profile, slo),
        *_freshness(judged),
        *_correctness(record, slo),
        *_latencies(judged, profile, slo),
        *_failures(judged, profile, slo),
        *_of_scenarios(judged, profile, slo, names),
        *_of_metrics(record, profile, slo),
        *soak.checks(record, judged, profile, samples),
    ]
    if any(check.status == Status.INVALID for check in checks):
        checks += _own_faults(judged, profile, slo)
    found = figures.of_run(judged, record, seconds)
    found["scenarios"] = figures.of_scenarios(judged, names)
    found["metrics"] = figures.of_metrics(record, profile)
    found["server"] = figures.of_server(record, profile, samples)
    found["needs_seconds"] = needs_seconds(checks, seconds)
    found["machine"] = diagnosis.machine(host, found)
    status = together(checks)
    return Verdict(status, checks, found, diagnosis.of_verdict(status, checks, found))


def so_far(record: Record, profile: Profile, slo: Slo) -> Status | None:
    """What the verdict would be if the run ended now, as far as the server decides it; None before it is judged."""
    judged = record.rows[record.rows["intended"] >= profile.judged_from]
    if not judged.size:
        return None
    checks = [
        *_correctness(record, slo),
        *_latencies(judged, profile, slo),
        *_failures(judged, profile, slo),
    ]
    return together(checks)


def needs_seconds(checks: Sequence[Check], seconds: float) -> float | None:
    """How long a judged span would decide what is undecided here; None where nothing is, or no span would."""
    longer = [check.longer for check in checks if check.status == Status.UNDECIDED]
    factor = max(longer, default=math.inf)
    return math.ceil(factor * seconds) if math.isfinite(factor) else None


def _judged_seconds(record: Record, profile: Profile) -> float:
    """The span that rates are over: the plan's, or less where the run was ended early."""
    until = schedule.seconds(profile.stages)
    if any(worker.get("stopped_early") for worker in record.workers) and record.rows.size:
        until = min(until, float(record.rows["intended"][-1]))
    return max(0.0, until - profile.judged_from)


def _generator(record: Record, judged: np.ndarray, profile: Profile, slo: Slo) -> Iterator[Check]:
    lost = record.lost_workers
    hosts = ", ".join(sorted({worker["host"] for worker in record.workers if "host" in worker}))
    yield Check(
        "workers",
        Status.INVALID if lost else Status.PASS,
        f"{len(record.workers)} of {record.expected_workers} finished",
        "all",
        "a lost worker takes its requests with it" if lost else f"on {hosts}" if hosts else "",
    )
    planned = sum(worker["planned"] for worker in record.workers)
    yield from _completeness(record, profile, planned)
    yield from _sockets(record)
    if judged.size == 0:
        yield Check("requests", Status.INVALID, "none", "at least one", f"{planned} were planned")
        return
    lag_ms = _lag_ms(judged)
    is_late = lag_ms > slo.max_lag_p99_ms
    yield Check(
        diagnosis.LAG,
        Status.INVALID if is_late else Status.PASS,
        f"{lag_ms:.1f} ms",
        f"{slo.max_lag_p99_ms:g} ms",
        "this machine was too slow to send on time; free it, or add workers" if is_late else "",
    )


def _lag_ms(judged: np.ndarray) -> float:
    sent = judged[judged["outcome"] != Outcome.DROPPED]
    return percentile((sent["sent"] - sent["intended"]) * 1000, 0.99)


def _completeness(record: Record, profile: Profile, planned: int) -> Iterator[Check]:
    """Every arrival has its row: what was planned was sent or dropped, and what was written was read."""
    told = sum(worker["rows"] for worker in record.workers)
    stopped = any(worker.get("stopped_early") for worker in record.workers)
    wanted = planned if profile.model == "open" and not stopped else told
    if not record.lost_workers and not wanted == told == record.rows.size:
        yield Check("records", Status.INVALID, f"{record.rows.size} rows", f"{wanted} rows", "see locust.log")


def _sockets(record: Record) -> Iterator[Check]:
    """Requests that this machine could not even send say nothing about the server."""
    own = [row for row in figures.refusals(record) if row["code"] in records.GENERATORS_OWN]
    if own:
        told = ", ".join(f"{row['count']} × {row['code']}" for row in own)
        advice = "no file, port or name was left for a connection: ulimit -n, a smaller --slots, or more machines"
        yield Check("generator's sockets", Status.INVALID, told, "none", advice)


def _freshness(judged: np.ndarray) -> Iterator[Check]:
    """Bytes that nobody has sent before can't have been answered from what a cache kept."""
    new = judged[(judged["repeated"] == 0) & (judged["cache"] > 0)]
    kept = int(np.sum(new["cache"] != records.CACHE["miss"]))
    if kept:
        told = f"{kept} of {new.size} answers to new bytes"
        yield Check("kept answers", Status.INVALID, told, "none", "a cache was measured, not the model")


def _correctness(record: Record, slo: Slo) -> Iterator[Check]:
    for name, outcome in (("wrong answers", Outcome.WRONG), ("mixed-up answers", Outcome.MIXED_UP)):
        # Warm-up excuses slowness, never a wrong answer.
        count = int(np.sum(record.rows["outcome"] == outcome))
        yield Check(name, Status.FAIL if count else Status.PASS, str(count), "0", is_fact=True)
    reasons = sorted({worker["stopped_early"] for worker in record.workers if worker.get("stopped_early")})
    for reason in reasons:
        yield Check(diagnosis.PROTECTED, Status.FAIL, reason, "runs to its end", is_fact=True)
    # An outage is one event, of which no bound over blocks of time could be sure.
    away = sum(row["count"] for row in figures.refusals(record) if row["code"] == ConnectionRefusedError.__name__)
    if away > slo.max_failed_share * record.rows.size:
        told = f"{away} of {record.rows.size} requests found nobody"
        yield Check(diagnosis.AWAY, Status.FAIL, told, f"{slo.max_failed_share:.2%}", is_fact=True)


def _claimed(profile: Profile, slo: Slo) -> list[tuple[float, float]]:
    """Percentile share and limit in milliseconds, of those that the profile claims and the SLO limits."""
    return [(share, slo.limits_ms[share]) for share in profile.claims if share in slo.limits_ms]


def _latencies(judged: np.ndarray, profile: Profile, slo: Slo) -> Iterator[Check]:
    if judged.size:
        yield from _within(_claimed(profile, slo), judged, profile, slo, "response")


def _within(
    limits: Iterable[tuple[float, float]], rows: np.ndarray, profile: Profile, slo: Slo, name: str
) -> Iterator[Check]:
    responses, strata = records.response_ms(rows), strata_of(profile.stages, rows["intended"])
    for share, limit_ms in limits:
        seen = evidence(responses > limit_ms, responses, limit_ms, slo.confidence, strata)
        yield _latency(seen, percentile(responses, share), share, limit_ms, name)


def _of_scenarios(judged: np.ndarray, profile: Profile, slo: Slo, names: Sequence[str]) -> Iterator[Check]:
    """A scenario's own limits, where it is in this mix."""
    for name in (each for each in names if each in slo.scenarios):
        own = dict(slo.scenarios[name])
        part, failed = judged[judged["scenario"] == names.index(name)], own.pop("max_failed_share", None)
        if part.size == 0:
            yield Check(f"{name} requests", Status.INVALID, "none", "at least one", "run longer, or weight it more")
            continue
        yield from _within(profiles.limits_of(own, name).items(), part, profile, slo, name)
        if failed is not None:
            seen = _share_of(part, FAILED, profile, slo)
            yield _failure(f"{name} failed", seen, failed, 1 - max(profile.claims))


def _of_metrics(record: Record, profile: Profile, slo: Slo) -> Iterator[Check]:
    """Limits of figures that checks noted: p95_most is kept when at most 5 % are above, p5_least when 5 % are below."""
    for name, limits in slo.metrics.items():
        noted = record.metrics.get(name, np.empty((0, 2)))
        noted = noted[noted[:, 0] >= profile.judged_from]
        if not noted.size:
            yield Check(name, Status.INVALID, "never noted", "a figure", f'answer.metric("{name}", …) in a check')
            continue
        values, strata = noted[:, 1], strata_of(profile.stages, noted[:, 0])
        for key, limit in limits.items():
            ((share, _),) = profiles.limits_of({key: limit}, name, ("_most", "_least")).items()
            is_most = key.endswith("_most")
            # What is no number keeps no limit.
            beyond = ~(values <= limit if is_most else values >= limit)
            seen, allowed = evidence(beyond, values, limit, slo.confidence, strata), 1 - share if is_most else share
            status, longer = _status(seen, allowed)
            said = f"{seen.words('beyond')}, allowed {allowed:.4g}"
            word = f"at {'most' if is_most else 'least'} {limit:g}"
            label = f"{name} {word_of(share)}"
            yield Check(label, status, f"{percentile(values, share):.4g}", word, said, longer=longer)


def _latency(seen: Evidence, found_ms: float, share: float, limit_ms: float, name: str) -> Check:
    allowed = 1 - share
    status, longer = _status(seen, allowed)
    sureness = f"{seen.words('late')}, allowed {allowed:.4g}"
    if status == Status.UNDECIDED and seen.independent < (needed := least_requests(share, seen.confidence)):
        sureness += f"; {word_of(share)} needs at least {needed} independent ones"
    found_text = "no answer" if math.isinf(found_ms) else f"{found_ms:.1f} ms"
    return Check(f"{name} {word_of(share)}", status, found_text, f"{limit_ms:g} ms", sureness, longer=longer)


def _status(seen: Evidence, allowed: float) -> tuple[Status, float]:
    """PASS when even the upper bound keeps the limit, FAIL when even the lower breaks it; and how much longer."""
    lower, upper = seen.bounds
    if upper <= allowed:
        return Status.PASS, 1.0
    if lower > allowed:
        return Status.FAIL, 1.0
    return Status.UNDECIDED, seen.longer(allowed)


def _failures(judged: np.ndarray, profile: Profile, slo: Slo) -> Iterator[Check]:
    if judged.size == 0:
        return
    for name, outcomes in (("failed", FAILED), ("dropped", (Outcome.DROPPED,))):
        seen = _share_of(judged, outcomes, profile, slo)
        yield _failure(name, seen, slo.max_failed_share, 1 - max(profile.claims))


def _share_of(judged: np.ndarray, outcomes: Sequence[Outcome], profile: Profile, slo: Slo) -> Evidence:
    strata = strata_of(profile.stages, judged["intended"])
    limit_ms = max(slo.limits_ms.values(), default=1000.0)
    happened = np.isin(judged["outcome"], outcomes)
    return evidence(happened, records.response_ms(judged), limit_ms, slo.confidence, strata)


def _failure(name: str, seen: Evidence, allowed: float, claimed: float) -> Check:
    """None at all passes where the run is long enough to show the share that its finest percentile claims.

    To show 0.1 % takes 2 995 requests without a failure; a short run says how much less it shows.
    """
    status, longer = _status(seen, allowed)
    sureness = seen.words(name)
    if status == Status.UNDECIDED and not seen.count:
        status, longer = _status(seen, max(allowed, claimed))
        if status == Status.PASS:
            needed = least_requests(1 - allowed, seen.confidence) if allowed else 0
            sureness += f"; none, as far as so few can show: {allowed:.4g} takes {needed or 'more than any number'}"
    return Check(name, status, f"{seen.share:.2%}", f"{allowed:.2%}", sureness, longer=longer)


def _own_faults(judged: np.ndarray, profile: Profile, slo: Slo) -> Iterator[Check]:
    """What the service broke by itself, however slow the generator was: its own time, its own refusals."""
    if judged.size == 0:
        return
    own, strata = _own_ms(judged), strata_of(profile.stages, judged["intended"])
    for share, limit_ms in _claimed(profile, slo):
        seen = evidence(own > limit_ms, own, limit_ms, slo.confidence, strata)
        if seen.bounds[0] > 1 - share:
            found, said = f"{percentile(own, share):.1f} ms", seen.words("late by the service alone")
            yield Check(f"service's own {word_of(share)}", Status.FAIL, found, f"{limit_ms:g} ms", said, is_fact=True)
    refused = _share_of(judged, ANSWERED_NO, profile, slo)
    if refused.bounds[0] > slo.max_failed_share:
        limit, said = f"{slo.max_failed_share:.2%}", refused.words("refused or failed by the service")
        yield Check("service's own refusals", Status.FAIL, f"{refused.share:.2%}", limit, said, is_fact=True)


def _own_ms(judged: np.ndarray) -> np.ndarray:
    """What no generator explains: the time that the service tells, or that after sending less what sending lags by.

    Who was not answered for reasons of the network counts as quick, for it may be the generator's.
    """
    lag_ms = _lag_ms(judged)
    after_sending = records.service_ms(judged) - (0.0 if math.isnan(lag_ms) else lag_ms)
    own = np.fmax(after_sending, judged["app_ms"])
    own[np.isin(judged["outcome"], (Outcome.BROKEN, Outcome.DROPPED))] = 0.0
    own[np.isin(judged["outcome"], ANSWERED_NO)] = np.inf
    return np.maximum(own, 0.0)
