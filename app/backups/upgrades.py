"""Before another release than the last one serves from STATE_DIR: what it holds is saved, then brought up to date."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app import __version__, config
from app.backups import archive, contents, facts
from app.backups.contents import STATE, Entry
from app.config import Settings
from app.errors import BackupError, StateUnusableError
from app.storage import json_files, state_schema

log = logging.getLogger("cask.start")

KEPT = 5
# Built models are made again by `make model-build`; all else is small, or cannot be made again.
LEFT_OUT = f"{STATE}/built/"
ROOM_BYTES = 50_000_000
# From one schema to the next. The first brings a folder without a number to schema 1, which is the same but for it.
MIGRATIONS: Sequence[Callable[[Path], None]] = (lambda state_dir: None,)


def release() -> str:
    """What runs here: the version, with the revision where an image has one."""
    try:
        revision = str(json.loads((config.ROOT / "build-info.json").read_text())["revision"])
    except (OSError, ValueError, KeyError):
        revision = ""
    return f"{__version__}+{revision[:12]}" if revision else __version__


def prepare(settings: Settings) -> None:
    """Save and upgrade STATE_DIR where another release wrote it last. Raises StateUnusableError, OSError.

    A folder that cannot be saved is not upgraded; where only the release is another one, it is used all the same.
    """
    state_dir = settings.state_dir
    state_schema.check(state_dir)
    said = state_schema.found(state_dir)
    if said == {"schema": state_schema.SCHEMA, "release": release()}:
        return
    is_upgrade = said["schema"] < state_schema.SCHEMA
    if _holds_something(state_dir):
        try:
            saved = save(settings, said)
            log.info("another release (%s) wrote %s last: saved in %s", said["release"] or "unknown", state_dir, saved)
        except (BackupError, OSError) as error:
            if is_upgrade and said["release"]:
                raise StateUnusableError(
                    f"{state_dir} has schema {said['schema']} and is to become {state_schema.SCHEMA},"
                    f" but could not be saved before: {error}",
                    hint="Make room, or remove old files of its folder backups.",
                ) from error
            log.warning("%s was not saved before this release uses it: %s", state_dir, error)
    for migrate in MIGRATIONS[said["schema"] :]:
        migrate(state_dir)
    state_dir.mkdir(parents=True, exist_ok=True)
    json_files.replace(state_dir / state_schema.FILE, {"schema": state_schema.SCHEMA, "release": release()})


def save(settings: Settings, said: dict[str, Any]) -> Path:
    """Write the state's archive below STATE_DIR/backups and keep the newest five. Raises BackupError, OSError."""
    folder = settings.state_dir / state_schema.BACKUPS
    path = folder / state_schema.backup_name(said, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    with contents.collected(settings, (STATE,)) as found:
        entries = [entry for entry in found if not entry.name.startswith(LEFT_OUT)]
        _check_room(folder.parent, entries)
        with archive.publishing(path) as target:
            archive.write(target, entries, facts.about(settings, (STATE,), entries))
    for old in state_schema.backups(settings.state_dir)[KEPT:]:
        old.unlink()
    return path


def _holds_something(state_dir: Path) -> bool:
    """Whether there is more than the start itself made."""
    return any((state_dir / path).exists() for path in contents.DATABASES) or any(state_dir.glob("*.json"))


def _check_room(folder: Path, entries: Sequence[Entry]) -> None:
    needed = sum(entry.path.stat().st_size for entry in entries) + ROOM_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BackupError(f"it needs {needed / 1e6:.0f} MB on the disk of {folder}, found {free / 1e6:.0f} MB")
