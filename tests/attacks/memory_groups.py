"""Run a service with a memory limit, as a container would: a memory cgroup (v1 or v2) that it sees as its root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers import wait_until

CGROUP = Path("/sys/fs/cgroup")
END_SECONDS = 10.0
# A mount of its own shows the group at the place where a container finds its limits.
ENTER = 'echo $$ > "$1/cgroup.procs" && mount --bind "$1" "$2" && shift 2 && exec "$@"'


class NoMemoryGroupError(Exception):
    """No memory cgroup can be made here; the message says why."""


@dataclass(frozen=True)
class MemoryGroup:
    """A cgroup with a limit in bytes. ``is_v1`` says which of the kernel's two sets of file names it has."""

    path: Path
    is_v1: bool

    @property
    def command_prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs inside."""
        seen_at = CGROUP / "memory" if self.is_v1 else CGROUP
        return ("unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.path), str(seen_at))

    def kills(self) -> int:
        """How many processes the kernel has ended here for want of memory."""
        rows = (self.path / ("memory.oom_control" if self.is_v1 else "memory.events")).read_text().splitlines()
        return next((int(row.split()[1]) for row in rows if row.startswith("oom_kill ")), 0)

    def _set_limit(self, limit_bytes: int) -> None:
        name = "memory.limit_in_bytes" if self.is_v1 else "memory.max"
        (self.path / name).write_text(str(limit_bytes))

    def _remove(self) -> None:
        wait_until(lambda: not (self.path / "cgroup.procs").read_text().strip(), END_SECONDS, f"{self.path} to empty")
        self.path.rmdir()


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group until the block ends. Raises NoMemoryGroupError where the kernel or our rights allow none."""
    group = _make(f"cask-{os.getpid()}-{limit_bytes}")
    try:
        group._set_limit(limit_bytes)
        yield group
    finally:
        group._remove()


def _make(name: str) -> MemoryGroup:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers not in ("memory", ""):
            continue
        parent = CGROUP / ("memory" if controllers else "") / own.lstrip("/")
        limit = "memory.limit_in_bytes" if controllers else "memory.max"
        path = parent / name
        try:
            path.mkdir(exist_ok=True)
        except OSError:
            continue
        if (path / limit).exists():
            return MemoryGroup(path, bool(controllers))
        path.rmdir()
    raise NoMemoryGroupError("no memory cgroup can be made here (it needs root, and a cgroup that may have children)")
