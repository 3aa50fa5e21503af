"""How long one image takes in each of two loaded versions, on this machine and now. Knows no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

Clock = Callable[[], float]

# A version that takes so many times as long, and so much longer, is slower; less may be chance.
SLOWER_TIMES, SLOWER_SECONDS = 1.5, 0.002
# The best of some rounds, in turn; and it must look slower each time: what else the machine does hits one or the other.
# With three measurements in a row, one in some hundred changes between equal versions under load was refused.
ROUNDS, MEASUREMENTS = 5, 8
# What disturbs goes on for a while, so the measurements are spread over longer than that.
PAUSE_SECONDS = 0.1
LIMIT_SECONDS = 10.0


class Timed(Protocol):
    """What can predict a usual image once."""

    def warm_up(self) -> None:
        """Predict once on made-up input."""


def slower(
    new: Timed, old: Timed, clock: Clock = time.perf_counter, pause: Callable[[float], None] = time.sleep
) -> tuple[float, float] | None:
    """Seconds for one image of the new and of the old version where the new one is slower; None where it is not."""
    began = clock()
    best_new = best_old = float("inf")
    for _ in range(MEASUREMENTS):
        found_new, found_old = _best(new, old, clock, began)
        best_new, best_old = min(best_new, found_new), min(best_old, found_old)
        if found_new < SLOWER_TIMES * found_old or found_new - found_old < SLOWER_SECONDS:
            return None
        pause(PAUSE_SECONDS)
    return best_new, best_old


def _best(new: Timed, old: Timed, clock: Clock, began: float) -> tuple[float, float]:
    """The best of some rounds; at least one, and no further one after the limit."""
    bests = [float("inf"), float("inf")]
    for number in range(ROUNDS):
        if number and clock() - began > LIMIT_SECONDS:
            break
        for place, each in enumerate((new, old)):
            started = clock()
            each.warm_up()
            bests[place] = min(bests[place], clock() - started)
    return bests[0], bests[1]
