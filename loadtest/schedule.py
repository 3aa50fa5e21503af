"""When requests are meant to start: stages of rates, constant or by chance, the same for the same seed. No clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stage:
    """A span in which the rate goes evenly from one value to another, in requests per second.

    The closed model reads ``callers`` instead: so many that each ask again once they are answered.
    """

    seconds: float
    from_rate: float
    to_rate: float
    callers: int = 0

    @property
    def expected(self) -> float:
        """How many requests are expected."""
        return self.seconds * (self.from_rate + self.to_rate) / 2


def arrivals(stages: Sequence[Stage], kind: str, seed: int) -> np.ndarray:
    """Seconds from the beginning at which each request is meant to start, rising; ``kind`` is constant or poisson.

    A rate that changes is followed by stretching time: event number n of a process of rate one happens where the
    expected number of requests reaches n (Çinlar 1975, inversion).
    """
    expected = sum(stage.expected for stage in stages)
    if kind == "constant":
        events = np.arange(1, math.floor(expected + 1e-9) + 1) - 0.5
    else:
        rng = np.random.default_rng(seed)
        most = int(expected + 10 * math.sqrt(expected) + 20)
        events = np.cumsum(rng.exponential(1.0, most))
        events = events[events < expected]
    return _moments(stages, events)


def _moments(stages: Sequence[Stage], events: np.ndarray) -> np.ndarray:
    moments, began, reached = [], 0.0, 0.0
    for stage in stages:
        inside = events[(events >= reached) & (events < reached + stage.expected)] - reached
        slope = (stage.to_rate - stage.from_rate) / stage.seconds
        if slope == 0:
            offsets = inside / stage.from_rate if stage.from_rate else inside
        else:
            # Solve from_rate·t + slope·t²/2 = events, in the form that does not cancel.
            root = np.sqrt(np.maximum(0.0, stage.from_rate**2 + 2 * slope * inside))
            offsets = 2 * inside / (stage.from_rate + root)
        moments.append(began + offsets)
        began, reached = began + stage.seconds, reached + stage.expected
    return np.concatenate(moments) if moments else np.empty(0)


def share_of_worker(moments: np.ndarray, worker: int, workers: int) -> np.ndarray:
    """Every ``workers``-th arrival, beginning with number ``worker``: together the workers send them all once."""
    return moments[worker::workers]


def seconds(stages: Sequence[Stage]) -> float:
    """How long all stages take."""
    return sum(stage.seconds for stage in stages)


def highest_rate(stages: Sequence[Stage]) -> float:
    """The highest rate of all stages, in requests per second."""
    return max((max(stage.from_rate, stage.to_rate) for stage in stages), default=0.0)
