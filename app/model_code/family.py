"""The processes that a model's process has started, and what all of them have written into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

PARTS = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")


def written_bytes(pid: int) -> int:
    """Of it and its descendants, what they share counted once; 0 where it has none."""
    found = list(_descendants(pid))
    return sum(map(_written, [pid, *found])) if found else 0


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            # A thread may end meanwhile.
            with contextlib.suppress(OSError):
                for child in map(int, path.read_text().split()):
                    yield child
                    yield from _descendants(child)


def _written(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(PARTS))
