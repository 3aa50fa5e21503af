"""What belongs into a backup, part by part: where each file lies, and its name in the archive.

Left out is what the next start makes again: caches, rate limit counts, sockets, environments of models.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from app import config
from app.auth import tokens
from app.config import Settings
from app.errors import BackupError
from app.jobs import disk_store
from app.storage import state_schema
from app.storage.sqlite import Database

STATE, SETTINGS, SECRETS, MODELS, PLUGINS = PARTS = ("state", "settings", "secrets", "models", "plugins")
JOBS = Path("jobs") / disk_store.TABLE
PACKS = Path("jobs") / "images"
# Tables that are copied as SQLite copies them; and what is made again.
DATABASES = {Path(tokens.FILE_NAME): tokens.MIGRATIONS, JOBS: disk_store.MIGRATIONS}
LEFT_OUT = ("run", "cache", "jobs", "limits.sqlite3", state_schema.BACKUPS)
SETTINGS_FILE = "local.env"


class Entry(NamedTuple):
    """One file: its name in the archive, and where its bytes are now."""

    name: str
    path: Path


def folders(settings: Settings) -> dict[str, Path]:
    """Where each part lies on this machine."""
    return {
        STATE: settings.state_dir,
        SETTINGS: config.ROOT / "env",
        SECRETS: _secrets(),
        MODELS: Path(settings.models_dir),
        PLUGINS: Path(settings.plugins_dir),
    }


def _secrets() -> Path:
    """Those of this checkout; in a container what it was given."""
    ours = config.ROOT / "secrets"
    return config.SECRETS_DIRECTORY if config.SECRETS_DIRECTORY.is_dir() and not ours.is_dir() else ours


@contextlib.contextmanager
def collected(settings: Settings, parts: tuple[str, ...]) -> Iterator[list[Entry]]:
    """The files of these parts, as they are at one moment. Raises StateUnusableError, BackupError.

    Jobs, and the images that they still need, are copied under the lock of the jobs: none comes or goes meanwhile.
    """
    places = folders(settings)
    with _scratch(settings.state_dir) as scratch:
        entries = [entry for part in parts for entry in _entries(part, places[part], scratch)]
        yield sorted(entries)


@contextlib.contextmanager
def _scratch(state_dir: Path) -> Iterator[Path]:
    """A folder of the state's disk, where a second name of a file costs nothing."""
    folder = state_dir / f".backup-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    except FileNotFoundError:
        raise BackupError(
            f"STATE_DIR is {state_dir}, and no such folder is there.",
            hint="Give the command the ENV and STATE_DIR of the service, or --only settings and so on.",
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _entries(part: str, folder: Path, scratch: Path) -> Iterator[Entry]:
    if part == STATE:
        yield from _state(folder, scratch)
    elif part == SETTINGS:
        yield from (Entry(f"{part}/{SETTINGS_FILE}", path) for path in [folder / SETTINGS_FILE] if path.is_file())
    else:
        yield from _below(part, folder)


def _state(folder: Path, scratch: Path) -> Iterator[Entry]:
    for name, migrations in DATABASES.items():
        if (folder / name).exists():
            copy = scratch / name.name
            packs = folder / PACKS if name == JOBS else None
            database = Database(folder / name, migrations)
            with database.transaction():
                database.copy(copy)
                kept = [] if packs is None else list(_second_names(packs, scratch / "packs"))
            yield Entry(f"{STATE}/{name}", copy)
            yield from (Entry(f"{STATE}/{PACKS}/{path.name}", path) for path in kept)
    for path in sorted(folder.iterdir()):
        is_ours = path.name.startswith((*LEFT_OUT, ".backup-", ".cache")) or path.name.partition("-")[0] in {
            str(name) for name in DATABASES
        }
        if not is_ours:
            yield from _below(f"{STATE}/{path.name}", path)


def _second_names(packs: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    for path in packs.iterdir() if packs.is_dir() else ():
        os.link(path, folder / path.name)
        yield folder / path.name


def _below(name: str, path: Path) -> Iterator[Entry]:
    """The regular files at and below a path; links and sockets are nothing that could be put back elsewhere."""
    with contextlib.suppress(FileNotFoundError):
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind):
            yield Entry(name, path)
        elif stat.S_ISDIR(kind) and path.name not in ("__pycache__", "environment", ".git"):
            for each in sorted(path.iterdir()):
                yield from _below(f"{name}/{each.name}", each)
