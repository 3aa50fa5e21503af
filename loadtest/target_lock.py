"""One load test of a target at a time from this machine: two at once would measure each other."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from app.storage import file_locks
from loadtest.statuses import UsageError


@contextlib.contextmanager
def hold(url: str, say: Callable[[str], None], folder: Path | None = None) -> Iterator[None]:
    """Lock the target until the block ends. Where another run holds it, ``say`` so once and wait.

    The kernel frees the lock of a process that dies; the empty file stays. ``folder``: where the locks are, for a test.
    """
    path = (folder or _folder()) / re.sub(r"[^A-Za-z0-9.]+", "-", url)
    with path.open("ab") as lock:
        if not file_locks.hold(lock.fileno()):
            say(f"Another load test of {url} is running; this one continues when it has ended.")
            file_locks.hold(lock.fileno(), is_waiting=True)
        yield


def _folder() -> Path:
    """A folder of this user's own. Raises UsageError where another user made it."""
    folder = Path(tempfile.gettempdir()) / f"cask-loadtest-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise UsageError(
            f"{folder} belongs to user {folder.lstat().st_uid}; remove it, or set TMPDIR to another folder."
        )
    return folder
