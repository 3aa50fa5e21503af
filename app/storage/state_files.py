"""Are the files of STATE_DIR that nobody could make again whole, and of this program's form? Asked before a start.

``python -m app.storage.state_files`` reads the settings of this start and changes nothing; exits with 2 and one line.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from app import config
from app.auth import tokens
from app.errors import CaskError, StateUnusableError
from app.jobs import disk_store
from app.storage import state_schema

BUSY_SECONDS = 5.0
FIRST_PAGE_BYTES = 100


def check(state_dir: Path) -> None:
    """Raises StateUnusableError, its message and hint one line together, for the first file that cannot be used."""
    state_schema.check(state_dir)
    every = (
        (
            state_dir / tokens.FILE_NAME,
            len(tokens.MIGRATIONS),
            "all tokens are then made anew: flask token create NAME",
        ),
        (
            state_dir / "jobs" / disk_store.TABLE,
            len(disk_store.MIGRATIONS),
            "jobs that were left here are then gone",
        ),
    )
    for path, newest, loss in every:
        if fault := _fault(path, newest):
            raise StateUnusableError(
                f"The file {path} cannot be used: {fault}.",
                hint=f"Put a copy of it back; or set it aside (mv {path} {path}.damaged; rm -f {path}-wal {path}-shm),"
                f" and {loss}.",
            )


def _fault(path: Path, newest: int) -> str:
    """What is wrong with one file; empty where nothing is, or where there is none yet."""
    try:
        size = path.stat().st_size
        if size < FIRST_PAGE_BYTES:
            return "it is empty" if size == 0 else "it is cut off"
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=BUSY_SECONDS, uri=True)) as opened:
            return next(_faults(opened, newest), "")
    except FileNotFoundError:
        return ""
    except (sqlite3.Error, OSError) as error:
        return getattr(error, "strerror", None) or str(error)


def _faults(opened: sqlite3.Connection, newest: int) -> Iterator[str]:
    form = opened.execute("PRAGMA user_version").fetchone()[0]
    if form > newest:
        yield f"its form {form} is newer than this program's {newest}: start the newer program"
    said = opened.execute("PRAGMA quick_check(1)").fetchone()[0]
    if said != "ok":
        yield f"it is damaged ({' '.join(str(said).split())})"
    if not opened.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        yield "it holds nothing"


def main() -> int:
    """0 when all can be used; else 2, and why on stderr."""
    try:
        check(config.load().state_dir)
    except CaskError as error:
        print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
