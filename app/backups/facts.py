"""What an archive says of what it holds, taken from the very copies that are in it; and whether that is still so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app import __version__
from app.auth import tokens
from app.backups.contents import DATABASES, JOBS, STATE, Entry
from app.config import Settings
from app.errors import BackupError
from app.storage import state_schema
from app.storage.sqlite import Database

TOKENS = Path(tokens.FILE_NAME)
# What is counted in which table.
COUNTED = {
    "tokens": (TOKENS, "SELECT count(*) FROM tokens"),
    "jobs": (JOBS, "SELECT count(*) FROM jobs"),
    "images_waiting": (JOBS, "SELECT count(*) FROM images"),
}
# What must be the same row by row: who is let in, and what callers were answered.
COMPARED = {
    "tokens_sha256": (TOKENS, "SELECT id, name, hash, scopes, expires, revoked FROM tokens ORDER BY id"),
    "jobs_sha256": (JOBS, "SELECT id, owner, state, total FROM jobs ORDER BY id"),
    "results_sha256": (JOBS, "SELECT job, number, answer FROM results ORDER BY job, number"),
}


def about(settings: Settings, parts: Sequence[str], entries: Sequence[Entry]) -> dict[str, Any]:
    """For the first member of the archive."""
    copies = {entry.name: entry.path for entry in entries}
    files = {path: copies[name] for path in DATABASES if (name := f"{STATE}/{path}") in copies}
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "cask": __version__,
        "schema": state_schema.SCHEMA,
        "env": settings.env,
        "parts": list(parts),
        **of(files),
    }


def of(files: Mapping[Path, Path]) -> dict[str, Any]:
    """Counts and sums of tables. ``files``: where each database of the state is; one that is missing is empty.

    Raises StateUnusableError.
    """
    found: dict[str, Any] = dict.fromkeys(COUNTED, 0) | dict.fromkeys(COMPARED, hashlib.sha256().hexdigest())
    for path, file in files.items():
        database = Database(file, DATABASES[path])
        with database.reading() as connection:
            for name, (of_path, query) in (COUNTED | COMPARED).items():
                if of_path == path:
                    rows = connection.execute(query)
                    found[name] = _sum(rows) if name in COMPARED else int(rows.fetchone()[0])
        database.close()
    return found


def compare(said: Mapping[str, Any], state_dir: Path) -> dict[str, int]:
    """The counts, where all is as the archive says; what older archives do not say is not asked. Raises BackupError."""
    found = of({path: state_dir / path for path in DATABASES if (state_dir / path).exists()})
    for name, value in found.items():
        if said.get(name, value) != value:
            what = name.removesuffix("_sha256").replace("_", " ")
            words = f"other {what} than" if name in COMPARED else f"{value} {what}, not the {said[name]}"
            raise BackupError(
                f"The backup holds {words} it says.",
                hint="Take another backup; this one was changed after it was made.",
            )
    return {name: found[name] for name in COUNTED}


def _sum(rows: Iterable[Iterable[Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()
