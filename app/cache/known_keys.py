"""Which keys may be in the file of kept answers: a bit for each, so that a new picture does not ask SQLite in vain.

The bits are a file that all web processes have in memory. A bit that is missing says for sure that there is no such
answer (or costs a hit, where two processes wrote one byte at the same time); one that is set says little. A leaf.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

# A small share of these is ever set: 64 MB hold some 200 000 answers.
BITS = 1 << 22
# The file that they belong to, by its inode, and how many were added since they were made from it.
HEAD_BYTES = 16
FILE_BYTES = HEAD_BYTES + BITS // 8
# With more than these, too many say yes for answers that went long ago.
MOST_ADDED = BITS // 8


class KnownKeys:
    """Opened beside the first requests; until then everything may be there. Thread-safe but for what is said above."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bits: memoryview | None = None
        self._head = memoryview(bytearray(HEAD_BYTES)).cast("q")

    def is_of(self, inode: int) -> bool:
        """Whether these are the bits of that file, and not too many."""
        return self._bits is not None and self._head[0] == inode and self._head[1] <= MOST_ADDED

    @property
    def is_mapped(self) -> bool:
        """Whether there is anything to ask."""
        return self._bits is not None

    def map(self) -> None:
        """Make the file where there is none, and map it. Raises OSError, ValueError."""
        with self._path.open("ab") as file:
            # All of it on the disk: to touch a hole while the disk is full would end the process (SIGBUS).
            os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
        with self._path.open("r+b") as file:
            whole = memoryview(mmap.mmap(file.fileno(), FILE_BYTES))
        self._head, self._bits = whole[:HEAD_BYTES].cast("q"), whole[HEAD_BYTES:]

    def fill(self, inode: int, keys: Iterable[str]) -> None:
        """Begin anew with the keys of the file of this inode."""
        bits, self._bits, self._head[0] = self._bits, None, 0
        if bits is not None:
            bits[:] = bytes(len(bits))
            self._head[1] = _set(bits, keys)
            self._head[0], self._bits = inode, bits

    def add(self, keys: Iterable[str]) -> None:
        """These are being written."""
        if self._bits is not None:
            self._head[1] += _set(self._bits, keys)

    def may_hold(self, key: str) -> bool:
        """Whether there may be an answer of this key."""
        if self._bits is None or not self._head[0]:
            return True
        bit = zlib.crc32(key.encode()) % BITS
        return bool(self._bits[bit >> 3] & 1 << (bit & 7))


def _set(bits: memoryview, keys: Iterable[str]) -> int:
    count = 0
    for key in keys:
        bit = zlib.crc32(key.encode()) % BITS
        bits[bit >> 3] |= 1 << (bit & 7)
        count += 1
    return count
