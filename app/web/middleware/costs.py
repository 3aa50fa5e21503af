"""What work costs the engine, learned from its own answers: seconds of one engine worker for one image, by kind.

Time spent waiting (for the engine, a decoder, another service, a body) is no cost, and what is answered without the
engine has none.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

# The middle one of so many counts: a hang, or the first answer of a cold engine, is not what the next will cost.
SAMPLES = 15
# What was dear so long ago may be cheap by now: then the least that was ever seen counts.
KEEP_SECONDS = 30.0
# More kinds than any store has models; the table must not grow with versions that come and go.
MAX_KINDS = 256


# What a wait was expected to be says how good expectations are where it is long; a newer one counts so much.
LEAST_EXPECTED_SHARE = 0.2
NEWEST_WEIGHT = 0.05
MOST_DELAY = 3.0
DELAY_HALF_LIFE_SECONDS = 5.0


@dataclass
class _Samples:
    """The newest ones of one kind, each with its moment, and the least of all."""

    newest: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    least: float = float("inf")
    # The middle one of those that are not too old, and until when it is that: asked several times with each request.
    typical: float = 0.0
    typical_until: float = -math.inf

    def look(self, now: float) -> None:
        """Find the middle one anew."""
        fresh = [sample for sample in self.newest if sample[0] >= now - KEEP_SECONDS]
        seconds = sorted([sample[1] for sample in fresh])
        self.typical = seconds[(len(seconds) - 1) // 2] if seconds else self.least
        self.typical_until = fresh[0][0] + KEEP_SECONDS if fresh else math.inf


@dataclass
class Costs:
    """Seconds an image by kind. Not thread-safe: its owner holds a lock."""

    clock: Callable[[], float] = time.monotonic
    _kinds: dict[str, _Samples] = field(default_factory=dict)

    def learn(self, kind: str, seconds: float) -> None:
        """An image of this kind has just kept one worker for so long."""
        samples = self._kinds.get(kind)
        if samples is None:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            samples = self._kinds[kind] = _Samples()
        samples.newest.append((self.clock(), seconds))
        samples.least = min(samples.least, seconds)
        samples.typical_until = -math.inf

    def of(self, kind: str) -> float:
        """What one image will probably take; 0 where nothing is known."""
        samples = self._kinds.get(kind)
        if samples is None:
            return 0.0
        if (now := self.clock()) > samples.typical_until:
            samples.look(now)
        return samples.typical

    def least(self) -> float:
        """What any image takes at least; 0 where nothing is known."""
        return min((self.of(kind) for kind in self._kinds), default=0.0)


@dataclass
class Delays:
    """How much longer work takes than the engine's costs say, as a factor: decoding, Python and other programs want the
    same cores. ``longest``: seconds that work may be expected to take. Not thread-safe: its owner holds a lock.
    """

    longest: float
    clock: Callable[[], float] = time.monotonic
    _above: float = 0.0
    _moment: float = 0.0

    def learn(self, expected: float, took: float) -> None:
        """Some work was expected to be done after so many seconds, and was after so many."""
        if expected >= self.longest * LEAST_EXPECTED_SHARE:
            newest = min(MOST_DELAY, max(1.0, took / expected)) - 1.0
            known = self.factor() - 1.0
            self._above, self._moment = known + NEWEST_WEIGHT * (newest - known), self.clock()

    def factor(self) -> float:
        """1: as expected. What is not seen again is forgotten."""
        return float(1.0 + self._above * 0.5 ** ((self.clock() - self._moment) / DELAY_HALF_LIFE_SECONDS))
