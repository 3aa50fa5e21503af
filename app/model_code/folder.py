"""The folder of a model with code: what lies in it, and one digest for all of it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from app.errors import ModelLoadError

# Beside the model, and not part of what it is: the manifest holds the digest, the environment is made from the lock.
LEFT_OUT = frozenset({"manifest.toml", "environment", "__pycache__", ".git"})
MOST_FILES = 10_000


def files(folder: Path) -> Iterator[Path]:
    """Every file of the model, in one order on any machine. Raises ModelLoadError for what is no regular file."""
    for count, path in enumerate(sorted(_walk(folder), key=lambda path: path.relative_to(folder).parts)):
        if count >= MOST_FILES:
            raise ModelLoadError(f"{folder} holds more than {MOST_FILES} files.", hint="Pack them into one.")
        yield path


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if entry.name in LEFT_OUT:
            continue
        path = Path(entry.path)
        if not entry.name.isprintable():
            # Neither a manifest nor a message can hold it.
            raise ModelLoadError(
                f"{folder} holds a file whose name is {entry.name!a}.", hint="Name it in plain UTF-8 text."
            )
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path)
            continue
        if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            raise ModelLoadError(
                f"{path} is no regular file.", hint="Put a copy of the file there instead of a link, pipe or device."
            )
        yield path


def digest(folder: Path) -> str:
    """SHA-256 in hexadecimal over the names and bytes of all files. Raises ModelLoadError."""
    total = hashlib.sha256()
    for path in files(folder):
        name = "/".join(path.relative_to(folder).parts)
        total.update(f"{name}\0{_file_digest(path)}\n".encode())
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    try:
        # Not followed, should somebody put a link there meanwhile.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}.", hint="Open it to the service user.") from None


class Seal:
    """Whether a folder is what was added. Read whole the first time, and again once a file of it was touched."""

    def __init__(self, folder: Path, sha256: str) -> None:
        self._folder, self._sha256 = folder, sha256
        self._checked: tuple[tuple[object, ...], ...] = ()

    def check(self) -> None:
        """Raises ModelLoadError where it was altered."""
        stamps = tuple(_stamp(path) for path in files(self._folder))
        if stamps and stamps == self._checked:
            return
        found = digest(self._folder)
        if found != self._sha256:
            raise ModelLoadError(
                f"{self._folder} was altered: its digest is {found[:16]}…, the manifest has {self._sha256[:16]}…",
                hint="Add it again under another version: make model-add.",
            )
        self._checked = stamps


def _stamp(path: Path) -> tuple[object, ...]:
    # The time of the last change of the inode cannot be set back, as that of the contents can.
    found = path.stat(follow_symlinks=False)
    return path, found.st_ino, found.st_dev, found.st_size, found.st_mtime_ns, found.st_ctime_ns
