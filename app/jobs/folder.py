"""Where the jobs of one machine lie, and whether there are any. A leaf: it is asked before any library is there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# Below STATE_DIR.
FOLDER = "jobs"
# Below that: what is being uploaded, the images of each job, the table of jobs.
INCOMING, IMAGES, TABLE = "incoming", "images", "jobs.sqlite3"
# In Apache's server root, two folders below STATE_DIR: made at each start with jobs that lie here, and not in Redis.
ON_DISK = "jobs-on-disk"


class Look:
    """Looks again and again whether there is a job, or an upload that may become one."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER
        self._known: list[tuple[int, int]] | None = None

    def is_empty(self) -> bool:
        """Whether there is nothing to do and nothing to clear away. False as well where that cannot be seen."""
        try:
            return not any(_has_files(self._folder / name) for name in (INCOMING, IMAGES)) and self._has_no_rows()
        except OSError:
            return False

    def _has_no_rows(self) -> bool:
        """Asks the table only where it has changed since it was found empty: to open it costs more than to look."""
        table = self._folder / TABLE
        found = [each for each in map(_version, (table, table.with_name(f"{TABLE}-wal"))) if each is not None]
        if not found:
            return True
        if found != self._known:
            if _has_rows(table):
                return False
            self._known = found
        return True


def _has_files(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return any(True for _ in entries)
    return False


def _version(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _has_rows(table: Path) -> bool:
    # Imported here: where there has never been a job, there is no table.
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(f"{table.as_uri()}?mode=rw", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM jobs LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        # Another writes, or it is not yet a table, or damaged: the worker is to see.
        return True
