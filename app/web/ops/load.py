"""How much is asked for, and how it goes: in the last minutes, by what ops looked up, and since the start."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.supervision.supervisor import watch
from app.telemetry import metrics
from app.telemetry.metrics import Sums

PERIOD_SECONDS = 10.0
# Five minutes.
KEPT_LOOKS = 31


@dataclass(frozen=True)
class Look:
    """All counts at one moment. ``seconds``: the buckets of the histogram of answers of the app, and their sum."""

    at: float
    requests: float
    failed: float
    shed: float
    seconds: tuple[float, ...]


class Load:
    """Looks at the counts of all processes six times a minute and keeps those of five minutes."""

    def __init__(self, state_dir: Path, watched: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        """``watched``: addresses that operators and monitors ask; they are no load."""
        self._state_dir, self._watched, self._clock = state_dir, frozenset(watched), clock
        self._looks: deque[Look] = deque(maxlen=KEPT_LOOKS)

    def start(self) -> None:
        """Look in a thread until the process ends."""
        self.look()
        watch(self.look, PERIOD_SECONDS, "load")

    def look(self) -> None:
        """Once."""
        self._looks.append(self._now(metrics.read(self._state_dir)))

    def figures(self, sums: Sums) -> dict[str, Any]:
        """Rates and times since the oldest look that is kept. ``sums``: all counts of now."""
        now = self._now(sums)
        before = self._looks[0] if self._looks else now
        span = now.at - before.at
        rate = (lambda count: round(count / span, 2)) if span >= 1 else (lambda count: 0.0)
        buckets = [b - a for a, b in zip(before.seconds, now.seconds, strict=True)][:-1]
        return {
            "seconds": round(span),
            "requests_per_second": rate(now.requests - before.requests),
            "failed_per_second": rate(now.failed - before.failed),
            "shed_per_second": rate(now.shed - before.shed),
            # Without the request that asks.
            "in_flight": max(0, int(_total(sums, metrics.IN_FLIGHT)) - 1),
            "p50_seconds": quantile(buckets, 0.5),
            "p99_seconds": quantile(buckets, 0.99),
        }

    def _now(self, sums: Sums) -> Look:
        asked = {labels: row[0] for labels, row in sums.get(metrics.REQUESTS, {}).items() if self._is_load(labels)}
        seconds = [0.0] * metrics.REQUEST_SECONDS.size
        for labels, row in sums.get(metrics.REQUEST_SECONDS, {}).items():
            if self._is_load(labels):
                seconds = [a + b for a, b in zip(seconds, row, strict=True)]
        return Look(
            self._clock(),
            sum(asked.values()),
            sum(count for (_, _, status, _), count in asked.items() if status.startswith("5")),
            _total(sums, metrics.NOT_ADMITTED) + refusals(sums, "apache").get("engine_busy", 0),
            tuple(seconds),
        )

    def _is_load(self, labels: Sequence[str]) -> bool:
        return labels[0] not in self._watched


def refusals(sums: Sums, by: str = "") -> dict[str, int]:
    """Requests that got no result since the start, by code, the most frequent first. ``by``: only who refused so."""
    found: dict[str, int] = {}
    for (code, who), row in sums.get(metrics.REFUSED, {}).items():
        if row[0] and by in ("", who):
            found[code] = found.get(code, 0) + int(row[0])
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def quantile(buckets: Sequence[float], share: float) -> float | None:
    """Seconds below which that share of the values lies, evenly spread in each bucket; None where there are none.

    Beyond the last bound it is the last bound.
    """
    bounds = (0.0, *metrics.SECONDS)
    rest = share * sum(buckets)
    if rest <= 0:
        return None
    for low, high, count in zip(bounds, (*metrics.SECONDS, math.inf), buckets, strict=True):
        if rest <= count:
            return round(low + (high - low) * rest / count, 4) if high < math.inf else low
        rest -= count
    return bounds[-1]


def _total(sums: Sums, metric: metrics.Metric) -> float:
    return sum(row[0] for row in sums.get(metric, {}).values())
