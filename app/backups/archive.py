"""The archive: a plain tar whose first member says what it is, and whose last one holds the SHA-256 of all others.

``tar -xf`` and ``sha256sum -c SHA256SUMS`` read it on any machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from app.backups.contents import PARTS, Entry
from app.errors import BackupError

# A program that knows a lower number refuses the archive.
FORM = 1
ABOUT, SUMS = "backup.json", "SHA256SUMS"
CHUNK_BYTES = 1024 * 1024
OWNER_ONLY = 0o600
# Of the first and the last member: more is none of ours.
MOST_TEXT_BYTES = 64 * 1024 * 1024

Say = Callable[[str], None]


def write(target: IO[bytes], entries: Sequence[Entry], about: dict[str, Any]) -> int:
    """Write all entries. Returns the bytes of the files. Raises OSError, BackupError where one changed its length."""
    sums: list[str] = []
    total = 0
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _add_bytes(archive, ABOUT, json.dumps({"form": FORM, **about}, indent=1).encode())
        for entry in entries:
            size, digest = _add_file(archive, entry)
            total += size
            sums.append(f"{digest}  {entry.name}\n")
        _add_bytes(archive, SUMS, "".join(sums).encode())
    return total


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_head(name, len(data), time.time()), io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, entry: Entry) -> tuple[int, str]:
    with entry.path.open("rb") as file:
        found = os.fstat(file.fileno())
        counted = _Counted(file)
        try:
            archive.addfile(_head(entry.name, found.st_size, found.st_mtime), counted)
        except OSError as error:
            if counted.count < found.st_size:
                raise BackupError(
                    f"{entry.path} became shorter while it was read.", hint="Make the backup again."
                ) from error
            raise
    return found.st_size, counted.digest.hexdigest()


class _Counted:
    """A file that is added up as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self.count += len(data)
        return data


def _head(name: str, size: int, moment: float) -> tarfile.TarInfo:
    head = tarfile.TarInfo(name)
    head.size, head.mtime, head.mode = size, int(moment), OWNER_ONLY
    return head


@contextmanager
def publishing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is whole, for its owner alone."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)


def extract(source: IO[bytes], parts: Sequence[str], places: dict[str, Path]) -> dict[str, Any]:
    """Unpack these parts, each into the folder that is there for it, and compare all with the sums.

    Returns what the archive says of itself. Raises BackupError with the first thing that is wrong; OSError.
    """
    found: dict[str, str] = {}
    about: dict[str, Any] = {}
    sums = ""
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                if file is None:
                    raise _damaged(f"{member.name} is no file")
                if not about:
                    about = _about(member, file)
                elif member.name == SUMS:
                    sums = file.read(MOST_TEXT_BYTES).decode()
                else:
                    found[member.name] = _unpack(member, file, parts, places)
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise _damaged(str(error)) from error
    _compare(found, sums)
    return about


def _about(member: tarfile.TarInfo, file: IO[bytes]) -> dict[str, Any]:
    try:
        about = json.loads(file.read(MOST_TEXT_BYTES)) if member.name == ABOUT else None
        form = about["form"] if isinstance(about, dict) else None
    except (ValueError, KeyError):
        form = None
    if not isinstance(form, int):
        raise BackupError(
            f"This is no backup of Cask: its first file is {member.name}, expected {ABOUT}.",
            hint="Give a file that `make backup` wrote.",
        )
    if form > FORM:
        raise BackupError(
            f"The backup has the form {form}; this release knows {FORM}.",
            hint="Restore it with the release that made it.",
        )
    found: dict[str, Any] = about or {}
    return found


def _unpack(member: tarfile.TarInfo, file: IO[bytes], parts: Sequence[str], places: dict[str, Path]) -> str:
    """Its sum; what belongs to no part that is wanted is only added up."""
    part, *rest = PurePosixPath(member.name).parts
    if part not in PARTS or not rest or ".." in rest or member.name.startswith("/"):
        raise _damaged(f"{member.name!r} is no name in a backup")
    digest = hashlib.sha256()
    target = places[part].joinpath(*rest) if part in parts else Path(os.devnull)
    if part in parts:
        target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as copy:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            copy.write(chunk)
    if part in parts:
        target.chmod(OWNER_ONLY if part in ("state", "secrets") else 0o644)
    return digest.hexdigest()


def _compare(found: dict[str, str], sums: str) -> None:
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in sums.splitlines())}
    if not sums:
        raise _damaged("its last member, with the sums of all others, is missing")
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise _damaged(f"{name} is {'not what was backed up' if name in found else 'missing'}")


def _damaged(why: str) -> BackupError:
    return BackupError(
        f"The backup is damaged or cut off: {why}.", hint="Copy it again, or take an older one; nothing was changed."
    )
