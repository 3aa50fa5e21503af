"""Which requests may have a kept answer, as far as that can be known before a body is read: by its length.

A body that is sent again has the same length. So of a crowd those bodies are read that are as long as one that
was answered: where the answer was kept, it costs next to nothing, whatever others cost. Apache knows more: it has seen
whole bodies (apache/modules/mod_arrivals.c). Where two lengths share a row, the newer one has it.
"""

from __future__ import annotations

from enum import IntEnum

ROWS = 65536
ROW_BYTES = 4
# A row is a length and, in its last two bits, what came of it; longer bodies have no row.
STATE_BITS = 2
LONGEST = (1 << 8 * ROW_BYTES - STATE_BITS) - 1


class Outcome(IntEnum):
    """What came of a body of this length."""

    COMPUTED = 1
    # Its answer was kept: another one of this length may be, too.
    KEPT = 2
    # It was read and then refused, like others of a crowd that happen to be as long.
    IN_VAIN = 3


class Lengths:
    """The table. Thread-safe: a row is read and written in one step."""

    def __init__(self) -> None:
        self._rows = memoryview(bytearray(ROWS * ROW_BYTES)).cast("I")

    def note(self, length: int, outcome: Outcome) -> None:
        """Remember what came of a body. What was kept once stays so; what was read in vain, until one is kept."""
        if not 0 < length <= LONGEST:
            return
        row = self._rows[length % ROWS]
        known = row & (1 << STATE_BITS) - 1 if row >> STATE_BITS == length else 0
        if outcome is Outcome.KEPT or known == 0 or (outcome is Outcome.IN_VAIN and known == Outcome.COMPUTED):
            self._rows[length % ROWS] = length << STATE_BITS | outcome

    def may_be_kept(self, length: int) -> bool:
        """Whether a body of this length was answered, and others of it were not read in vain since."""
        row = self._rows[length % ROWS]
        return row in (length << STATE_BITS | Outcome.COMPUTED, length << STATE_BITS | Outcome.KEPT)
