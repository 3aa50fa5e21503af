"""Whether a service runs with a STATE_DIR, by the number that Apache's first process leaves there."""

from __future__ import annotations

import contextlib
from pathlib import Path

FILE = Path("run", "httpd", "httpd.pid")
NAMES = (b"apache2", b"httpd")


def server_pid(state_dir: Path) -> int | None:
    """Apache's first process, where it runs with this STATE_DIR.

    A number that was left behind may be another program's by now, or in another container that of its first process.
    """
    with contextlib.suppress(OSError, ValueError):
        pid = int((state_dir / FILE).read_text())
        if is_server(Path(f"/proc/{pid}/cmdline").read_bytes()):
            return pid
    return None


def is_server(command: bytes) -> bool:
    """Whether a command line, as /proc has it, is that of Apache's first process."""
    # mod_wsgi-express adds its own name: «apache2 (mod_wsgi-express)».
    program = command.partition(b"\0")[0].rpartition(b"/")[2].partition(b" ")[0]
    return program in NAMES
