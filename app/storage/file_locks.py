"""Locks between processes: a file that one of them holds, until it closes it or ends. A leaf."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(path: Path, mode: int = 0o600, *, is_waiting: bool = False) -> int | None:
    """A descriptor that holds the file until it is closed; None while another process does, unless it is waited for.

    The file is made with ``mode`` where there is none. Raises OSError where it cannot be opened.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, mode)
    try:
        if hold(descriptor, is_waiting=is_waiting):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def hold(descriptor: int, *, is_waiting: bool = False, is_shared: bool = False) -> bool:
    """Hold an open file until it is closed or let go; False while another process does, unless it is waited for.

    ``is_shared``: others may hold it so at the same time. Raises OSError.
    """
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | (0 if is_waiting else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def let_go(descriptor: int) -> None:
    """Let another process hold it."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_held(path: Path) -> bool:
    """Whether a process holds the file. Looking shares its lock for a moment, so that lookers do not see each other."""
    try:
        with path.open() as file:
            return not hold(file.fileno(), is_shared=True)
    except OSError:
        return False
