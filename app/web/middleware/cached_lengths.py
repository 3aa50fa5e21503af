"""Which requests may have a kept answer, as far as that can be known before a body is read: by its length.

A body that is sent again has the same length. So of a crowd those bodies are read that are as long as one that
was answered: where the answer was kept, it costs next to nothing, whatever others cost. The table is a file that all
web processes and Apache (apache/modules/mod_arrivals.c) have in memory, so that Apache lets the same requests pass.
Where two lengths share a row, the newer one has it.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from pathlib import Path

FILE = Path("run", "lengths")
ROWS = 65536
ROW_BYTES = 4
# A row is a length and, in its last two bits, what came of it; longer bodies have no row.
STATE_BITS = 2
LONGEST = (1 << 8 * ROW_BYTES - STATE_BITS) - 1


class Outcome(IntEnum):
    """What came of a body of this length. The module of Apache knows the numbers."""

    COMPUTED = 1
    # Its answer was kept: another one of this length may be, too.
    KEPT = 2
    # It was read and then refused, like others of a crowd that happen to be as long.
    IN_VAIN = 3


class Lengths:
    """The table. Thread-safe: a row is read and written in one step."""

    def __init__(self, path: Path | None = None) -> None:
        """``path``: see ``make``; None keeps the table to this process. Raises OSError, ValueError."""
        self._rows = memoryview(_shared(path) if path else bytearray(ROWS * ROW_BYTES)).cast("I")

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


def make(path: Path) -> None:
    """An empty table where there is none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(ROWS * ROW_BYTES)
        # All of it on the disk: to touch a hole while the disk is full would end the process, Apache's too (SIGBUS).
        os.posix_fallocate(file.fileno(), 0, ROWS * ROW_BYTES)


def _shared(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), ROWS * ROW_BYTES)
