"""JSON files that one process writes and others follow: replaced whole, seen to change by a stamp. A leaf."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

Stamp = tuple[int, int, int]
ABSENT: Stamp = (0, 0, 0)


def replace(path: Path, table: Any, *, indent: int | None = None) -> None:
    """Write the file beside its place, put it on the disk, rename it. All users may read it.

    Raises OSError; what was there stays then, and nothing lies beside it.
    """
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.", suffix=".new", delete=False) as file:
        try:
            json.dump(table, file, indent=indent)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def stamp(path: str) -> Stamp:
    """Inode, time of change in ns and bytes of the file, ABSENT without one: equal as long as nobody replaced it.

    Costs a microsecond, so that every request can look.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib costs three times as much
    except OSError:
        return ABSENT
    return (found.st_ino, found.st_mtime_ns, found.st_size)
