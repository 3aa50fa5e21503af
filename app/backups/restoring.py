"""Put a backup back: all of it is unpacked and compared beside what is there, then takes its place; the old is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from app.backups import archive, contents
from app.backups.contents import STATE
from app.config import Settings
from app.errors import BackupError
from app.host import running
from app.storage import state_schema

# Below each folder: what is being unpacked, and what was there before.
UNPACKED, KEPT = ".restoring", ".before-restore"
# Of the running service and of this machine alone.
STAYS = ("run", state_schema.BACKUPS, UNPACKED)


def restore(settings: Settings, source: IO[bytes], parts: Sequence[str]) -> tuple[dict[str, Any], list[Path]]:
    """What the archive says of itself, and the folders in which is kept what was there before.

    Raises BackupError; nothing has changed then.
    """
    _check_at_rest(settings, parts)
    places = {part: folder for part, folder in contents.folders(settings).items() if part in parts}
    with _unpacked(places) as unpacked:
        about = archive.extract(source, parts, unpacked)
        if STATE in unpacked:
            state_schema.check(unpacked[STATE])
        moment = time.strftime("%Y%m%dT%H%M%S")
        kept = [_swap(places[part], unpacked[part], moment) for part in parts if any(unpacked[part].iterdir())]
    return about, [folder for folder in kept if folder.exists()]


def _check_at_rest(settings: Settings, parts: Sequence[str]) -> None:
    if STATE not in parts:
        return
    if pid := running.server_pid(settings.state_dir):
        raise BackupError(
            f"The service runs with {settings.state_dir} (process {pid}), and would write into it.",
            hint="make stop, then restore again.",
        )


@contextlib.contextmanager
def _unpacked(places: dict[str, Path]) -> Iterator[dict[str, Path]]:
    folders = {part: folder / UNPACKED for part, folder in places.items()}
    try:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
        yield folders
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, unpacked: Path, moment: str) -> Path:
    """The folder's own files go aside, what was unpacked takes their place. Returns where the old ones are.

    File by file within the folder: it may be the root of a volume, which cannot be renamed.
    """
    kept = folder / f"{KEPT}-{moment}"
    is_whole = unpacked.parent.name != "env"
    for path in sorted(folder.iterdir()):
        is_replaced = (unpacked / path.name).exists()
        if path.name in STAYS or path.name.startswith(KEPT) or not (is_whole or is_replaced):
            continue
        kept.mkdir(mode=0o700, exist_ok=True)
        path.rename(kept / path.name)
    owner = folder.stat()
    for path in sorted(unpacked.iterdir()):
        _give(path, owner)
        path.rename(folder / path.name)
    return kept


def _give(path: Path, owner: os.stat_result) -> None:
    """Change the owner to that of the folder, where root restores."""
    if os.geteuid() != 0:
        return
    for each in (path, *(path.rglob("*") if path.is_dir() else ())):
        os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)
