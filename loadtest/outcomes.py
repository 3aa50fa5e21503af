"""How a request can end. A leaf."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """How a request ended."""

    RIGHT = 0
    WRONG = 1  # another answer than the right one
    MIXED_UP = 2  # an answer that belongs to another request
    REFUSED = 3  # 429 or 503: the server said no in time
    FAILED = 4  # any other status that is not success, or a body that is none
    BROKEN = 5  # the connection was refused or closed
    TIMED_OUT = 6  # no answer within the caller's patience
    DROPPED = 7  # no free slot at its moment: never sent


REFUSALS = (429, 503)
# The code of an arrival for which a scenario made no request.
SCENARIO_BROKE = "the scenario raised"
