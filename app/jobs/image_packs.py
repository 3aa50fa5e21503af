"""The images of one job in one file: written once, read by parts, removed when the job ends.

One file and not one for each image, so that a thousand images cost one fsync, one rename and one removal.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app import errors
from app.jobs.jobs import Limits

PIECE_BYTES = 256 * 1024
# So much stays free for everything else that is written below STATE_DIR.
RESERVED_BYTES = 64 * 1024 * 1024
MAX_NAME_CHARACTERS = 120
RETRY_AFTER_SECONDS = 60.0


@dataclass(frozen=True)
class Entry:
    """Where one image lies in the file."""

    name: str
    start: int
    size_bytes: int


class Pack:
    """Images on their way into a job. Ends up in place by ``move``, or is removed by ``discard``."""

    def __init__(self, path: Path, limits: Limits) -> None:
        """Begin a file that nobody else may read. Raises StateUnusableError, StorageFullError."""
        self.path = path
        self.entries: list[Entry] = []
        self.size_bytes = 0
        self.limits = limits
        self._digest = hashlib.sha256()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file: BinaryIO = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
        except OSError as error:
            raise _unusable(error, path) from error

    def add(self, name: str, source: bytes | BinaryIO) -> None:
        """Append one image. Raises TooManyImagesError, RequestTooLargeError, ImageTooLargeError, StorageFullError."""
        if len(self.entries) >= self.limits.max_images:
            raise errors.TooManyImagesError(
                "The job has more than %(count)s images.",
                hint="Make several jobs of them; the operator of this service sets the limit.",
                count=self.limits.max_images,
            )
        start = self.size_bytes
        digest = hashlib.sha256()
        try:
            for piece in _pieces(source):
                digest.update(piece)
                self._count(name, len(piece), start)
                self._file.write(piece)
        except OSError as error:
            raise _unusable(error, self.path) from error
        shown = name.encode("utf-8", "replace").decode()[:MAX_NAME_CHARACTERS]
        self._digest.update(f"{len(shown)}:{shown}".encode() + digest.digest())
        self.entries.append(Entry(shown, start, self.size_bytes - start))

    @property
    def digest(self) -> str:
        """SHA-256 of names and contents so far, in order."""
        return self._digest.hexdigest()

    def close(self, *, is_synced: bool = True) -> None:
        """Write everything; ``is_synced``: so that it survives a loss of power.

        Raises StateUnusableError, StorageFullError.
        """
        try:
            if shutil.disk_usage(self.path.parent).free < RESERVED_BYTES:
                raise OSError(errno.ENOSPC, "too little room is left on the disk")
            self._file.flush()
            if is_synced:
                os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise _unusable(error, self.path) from error

    def move(self, path: Path) -> None:
        """Put the closed file into place, for good. Raises OSError."""
        self.path.rename(path)
        self.path = path
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove the file, wherever it is by now."""
        # What could not be flushed to a full disk goes with the file.
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _count(self, name: str, more_bytes: int, start: int) -> None:
        self.size_bytes += more_bytes
        if self.size_bytes - start > self.limits.max_image_bytes:
            raise errors.ImageTooLargeError(
                "%(name)s has more than %(count)s bytes.",
                hint="Save it smaller; the operator of this service sets the limit.",
                name=ascii(name[:MAX_NAME_CHARACTERS]),
                count=self.limits.max_image_bytes,
            )
        if self.size_bytes > self.limits.max_bytes:
            raise errors.RequestTooLargeError(
                "The images of the job have more than %(count)s bytes.",
                hint="Make several jobs of them; the operator of this service sets the limit.",
                count=self.limits.max_bytes,
            )


def read(path: Path, start: int, size_bytes: int) -> bytes:
    """One image of a pack. Raises OSError; EOFError where the file is shorter."""
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(size_bytes)
    if len(data) != size_bytes:
        raise EOFError(f"{path} ends after {start + len(data)} bytes, expected {start + size_bytes}")
    return data


def _pieces(source: bytes | BinaryIO) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    while piece := source.read(PIECE_BYTES):
        yield piece


def disk_full() -> errors.StorageFullError:
    """What a caller is told whose job finds no room."""
    return errors.StorageFullError(
        "The disk of this server has no room for the images of this job.",
        hint="Try again later; if it stays so, tell the operator of this service.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _unusable(error: OSError, path: Path) -> errors.StorageFullError | errors.StateUnusableError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full()
    return errors.StateUnusableError(
        "The folder %(name)s of the state folder cannot be used: %(reason)s.",
        hint="Tell the operator of this service: it is a matter of the folder's owner or rights.",
        name=path.parent.name,
        reason=error.strerror,
    )
