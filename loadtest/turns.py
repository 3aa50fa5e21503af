"""One load at a time on one target from this machine: two at once would each be blamed for the other's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from loadtest.statuses import UsageError


@contextlib.contextmanager
def turn(url: str, tell: Callable[[str], None], folder: Path | None = None) -> Iterator[None]:
    """Hold the target until the block ends; wait for whoever has it, and ``tell`` that once.

    A holder that dies lets go. ``folder``: where the locks are, for a test.
    """
    path = (folder or _folder()) / re.sub(r"[^A-Za-z0-9.]+", "-", url)
    lock = _try(path)
    if lock is None:
        tell(f"Another load test is at work on {url}; this one goes on when it is done.")
    while lock is None:
        lock = _wait(path)
    with lock:
        try:
            yield
        finally:
            # While it is held: whoever waits for this file sees that it is another's by now, and takes a new one.
            path.unlink(missing_ok=True)


def _folder() -> Path:
    """This user's own. Raises UsageError where somebody else made it: what is in it would be theirs."""
    folder = Path(tempfile.gettempdir()) / f"cask-loadtest-turns-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise UsageError(
            f"{folder} belongs to user {folder.lstat().st_uid}; remove it, or set TMPDIR to another folder."
        )
    return folder


def _try(path: Path) -> IO[bytes] | None:
    try:
        return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def _wait(path: Path) -> IO[bytes] | None:
    return _lock(path, fcntl.LOCK_EX)


def _lock(path: Path, how: int) -> IO[bytes] | None:
    """The locked file; nothing where its holder has removed it meanwhile."""
    file = path.open("ab")
    try:
        fcntl.flock(file, how)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
    except BaseException:
        file.close()
        raise
    file.close()
    return None
