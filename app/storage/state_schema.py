"""The form of STATE_DIR as a whole: a number, which an older release refuses and a newer one brings up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from app.auth import tokens
from app.errors import StateUnusableError
from app.jobs import disk_store

# One more with each change that an older release could not read: a file that moved, a table of another form. The forms
# of the tables stand here so that none changes without this number (tests/unit/backups/test_backups.py).
SCHEMA = 1
FORMS = {tokens.FILE_NAME: 2, disk_store.TABLE: 3}
FILE = "schema.json"
# Below STATE_DIR: what was saved before each upgrade.
BACKUPS = "backups"
SAVED = re.compile(r"schema-(\d+)-release-.+\.tar")


def found(state_dir: Path) -> dict[str, Any]:
    """What the folder says of itself: ``schema``, and the ``release`` that wrote it last. 0 and none of old folders."""
    try:
        said = json.loads((state_dir / FILE).read_text())
        return {"schema": int(said["schema"]), "release": str(said["release"])}
    except FileNotFoundError:
        return {"schema": 0, "release": ""}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateUnusableError(
            f"The file {state_dir / FILE} cannot be read: {error}.",
            hint="It says which form the folder has. Restore a backup, or remove that file where nobody upgraded.",
        ) from error


def backups(state_dir: Path) -> list[Path]:
    """What was saved before upgrades, the newest first."""
    found = [path for path in (state_dir / BACKUPS).glob("schema-*.tar") if SAVED.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def backup_name(said: dict[str, Any], moment: str) -> str:
    """What is saved of a folder that says so."""
    return f"schema-{said['schema']}-release-{said['release'] or 'unknown'}-{moment}.tar"


def check(state_dir: Path) -> None:
    """Raises StateUnusableError where a newer release has written it; the hint names the backup to go back to."""
    said = found(state_dir)
    if said["schema"] <= SCHEMA:
        return
    ours = (each for each in backups(state_dir) if int(str(SAVED.fullmatch(each.name)[1])) <= SCHEMA)  # type: ignore[index]
    saved = next(ours, None)
    back = "restore a backup from before that"
    if saved is not None:
        back = f"go back to what was saved before that: make restore FILE={saved} OPTIONS='--only state --yes'"
    raise StateUnusableError(
        f"{state_dir} has schema {said['schema']}, written by release {said['release']}; this release knows {SCHEMA}.",
        hint=f"Start that release or a newer one, or {back}.",
    )
