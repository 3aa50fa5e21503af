"""What a soak asks besides: does p99 grow from the beginning to the end, does the memory of the server?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from loadtest import request_log as records
from loadtest.batch_means import correlation
from loadtest.checks import Check
from loadtest.profiles import Profile
from loadtest.request_log import Record
from loadtest.statistics import chance_of_rise, drift, percentile
from loadtest.statuses import Status

WINDOWS = 20
WINDOWS_LEAST = 5
# Correlation of what is left of neighbouring windows when the slope is taken out; beyond it they are merged.
CORRELATED_FROM = 0.2
# Fewer samples of the server's memory say nothing about its growth.
MEMORY_SAMPLES_LEAST = 8
SECONDS_AN_HOUR = 3600.0
# The chance to call what does not grow growing, and from which on a rise is called neither.
CHANCE = 0.004
CHANCE_OF_DOUBT = 0.1


def checks(record: Record, judged: np.ndarray, profile: Profile, samples: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Those that the profile asks for; none for a profile that is no soak."""
    return [*_latency(judged, profile), *_memory(record, profile, samples)]


def _latency(judged: np.ndarray, profile: Profile) -> Iterator[Check]:
    """p99 of equal windows may not climb from the first to the last by more than the profile allows."""
    if not profile.max_drift or judged.size < WINDOWS * 20:
        return
    parts = np.array_split(records.response_ms(judged), WINDOWS)
    grown, chance = growth(np.arange(WINDOWS, dtype=float), np.array([percentile(part, 0.99) for part in parts]))
    status = status_of(grown, chance, profile.max_drift)
    sureness = f"median slope over {WINDOWS} windows; so much by chance: {_chance(chance)}"
    yield Check("p99 drift", status, f"{grown:+.1%}", f"{profile.max_drift:+.0%}", sureness, longer=2.0)


def status_of(grown: float, chance: float, most: float) -> Status:
    """A rise is a fault where it is larger than allowed and no chance."""
    if grown <= most or chance > CHANCE_OF_DOUBT:
        return Status.PASS
    return Status.FAIL if chance <= CHANCE else Status.UNDECIDED


def _chance(chance: float) -> str:
    return f"{chance:.2g}" if chance >= 0.001 else "below 0.001"


def _memory(record: Record, profile: Profile, samples: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Soak: the memory of all processes may not grow by more than the profile allows."""
    if not profile.max_memory_growth:
        return
    judged = judged_samples(record, profile, samples)
    limit = f"{profile.max_memory_growth:+.0%}"
    if len(judged) < MEMORY_SAMPLES_LEAST:
        said = f"{len(judged)} samples; expected at least {MEMORY_SAMPLES_LEAST}, one a second, from /status"
        yield Check("memory growth", Status.INVALID, "not told", limit, said)
        return
    moments, values = _in_windows(judged)
    grown, chance = growth(moments, values)
    mb_an_hour = grown * float(np.median(values)) / 1e6 / (moments[-1] - moments[0]) * SECONDS_AN_HOUR
    status = status_of(grown, chance, profile.max_memory_growth)
    span = (
        f"{values[0] / 1e6:.0f} to {values[-1] / 1e6:.0f} MB in {moments[-1] - moments[0]:.0f} s, by the median slope;"
        f" so much by chance: {_chance(chance)}"
    )
    yield Check("memory growth", status, f"{grown:+.1%}, {mb_an_hour:+.0f} MB an hour", limit, span, longer=2.0)


def judged_samples(record: Record, profile: Profile, samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those between the end of the warm-up and the last intended start that say how much memory there was."""
    began = record.began_at
    if began is None or not record.rows.size:
        return []
    first, last = began + profile.judged_from, began + float(record.rows["intended"][-1])
    return [sample for sample in samples if first <= sample["at"] <= last and sample.get("resident_bytes")]


def _in_windows(samples: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Medians of equal windows, so that half an hour has as few points as a minute."""
    moments = np.array([sample["at"] for sample in samples], float)
    values = np.array([sample["resident_bytes"] for sample in samples], float)
    count = min(WINDOWS, len(samples))
    return tuple(np.array([np.median(part) for part in np.array_split(each, count)]) for each in (moments, values))  # type: ignore[return-value]


# ── Growth: a slope that a few odd windows cannot bend, and a test that it is not chance ────────────────────


def growth(moments: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """How much the values grow from first to last, as a share of their median, and the chance of that without growth.

    ``values``: of windows in order of time; one may be infinite or NaN (nothing was answered, or nothing was there).
    Windows whose remainders are correlated are merged in pairs first (Theil 1950, Sen 1968, Mann 1945).
    """
    there = ~np.isnan(values)
    moments, values = moments[there], values[there]
    if not np.isfinite(values).any():
        return 0.0, 1.0
    # As much as the highest: the slope is a median, so that one window decides nothing either way.
    values = np.minimum(values, values[np.isfinite(values)].max())
    while values.size >= 2 * WINDOWS_LEAST and correlation(_remainders(moments, values)) > CORRELATED_FROM:
        moments, values = _merged(moments), _merged(values)
    return drift(moments, values), chance_of_rise(values)


def _remainders(moments: np.ndarray, values: np.ndarray) -> np.ndarray:
    slope = drift(moments, values) * float(np.median(values)) / (moments[-1] - moments[0])
    return np.asarray(values - slope * (moments - moments[0]))


def _merged(values: np.ndarray) -> np.ndarray:
    return values[: values.size // 2 * 2].reshape(-1, 2).mean(axis=1)
