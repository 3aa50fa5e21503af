"""Counts what Apache answered by itself: refusals, files, errors. It writes a short line for each; we read them.

Apache keeps the file open and appends, so it can be neither renamed nor cut without losing lines. What was read is
given back to the disk as a hole (fallocate(2)), and the file takes up next to nothing however long it grows.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

from app.config import ROOT
from app.storage import file_locks
from app.telemetry import metrics
from app.web.middleware import request_metrics
from app.web.middleware.request_metrics import Routes

log = logging.getLogger("cask.ops")

# Written by apache/conf/logging.conf: status, whether it was refused for admission, method, path.
FILE = "run/httpd/counted.log"
LINE = re.compile(rb"(\d{3}|-) (\S+) (\S+) (.*)")
APPLICATION_LINE = re.compile(rb"@([a-z][a-z0-9_]{0,39}) (\d{3}|-) (\d+)")
NOT_REFUSED = "-"
PERIOD_SECONDS = 2.0
READ_BYTES = 1 << 20
PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
BLOCK_BYTES = 4096
# Admission's own answer by Apache has the app's words; the others are in apache/errors.toml.
BUSY = "engine_busy"


class ApacheLog:
    """Reads the file on from where the process before us stopped. One process at a time."""

    def __init__(self, state_dir: Path, routes: Routes) -> None:
        self._path = state_dir / FILE
        self._routes = routes
        self._codes = _codes()
        self._file: int | None = None
        self._position_file = -1
        self._position = 0
        self._punched = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """Read now and then, in a thread, until the process ends: a scrape may be rare or never."""
        threading.Thread(target=self._run, name="apache-log", daemon=True).start()

    def read(self) -> None:
        """Count what has been written since. Raises OSError where the file cannot be read."""
        with self._lock:
            if self._file is None and not self._open():
                return
            while lines := self._next():
                self._count(lines)

    def close(self) -> None:
        """Let another process count on."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                os.close(self._position_file)
                self._file = None

    def _open(self) -> bool:
        """Whether this process is the one that counts."""
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        if not file_locks.hold(file):
            os.close(file)
            return False
        self._file = file
        self._position_file = os.open(f"{self._path}.position", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        self._position = int.from_bytes(os.pread(self._position_file, 8, 0), "little")
        return True

    def _next(self) -> list[bytes]:
        """Whole lines only; the position moves on first, so that a line is never counted twice."""
        assert self._file is not None
        read = os.pread(self._file, READ_BYTES, self._position)
        whole = read[: read.rfind(b"\n") + 1]
        self._position += len(whole)
        os.pwrite(self._position_file, self._position.to_bytes(8, "little"), 0)
        self._punch()
        return whole.splitlines()

    def _count(self, lines: list[bytes]) -> None:
        for line in lines:
            if found := APPLICATION_LINE.fullmatch(line):
                plugin, status, microseconds = (part.decode() for part in found.groups())
                metrics.APPLICATION_REQUESTS.add(plugin=plugin, status=request_metrics.known(status))
                metrics.APPLICATION_SECONDS.observe(int(microseconds) / 1e6, plugin=plugin)
                continue
            found = LINE.fullmatch(line)
            if found is None:
                continue
            status, refused, method = (part.decode("ascii", "replace") for part in found.groups()[:3])
            # Apache writes \xhh for a byte that is no printable letter of ASCII.
            route = self._routes.of(found[4].decode("unicode_escape", "replace"), method)
            request_metrics.count(route, method, status, "apache")
            code = BUSY if refused != NOT_REFUSED else self._codes.get(status)
            if code is not None:
                metrics.REFUSED.add(code=code, by="apache")

    def _punch(self) -> None:
        """Give whole blocks that were read back to the disk. Where the file system cannot, the file grows."""
        until = self._position // BLOCK_BYTES * BLOCK_BYTES
        if until > self._punched and self._file is not None:
            fallocate = ctypes.CDLL(None, use_errno=True).fallocate
            fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
            fallocate(self._file, PUNCH, self._punched, until - self._punched)
            self._punched = until

    def _run(self) -> None:
        while True:
            try:
                self.read()
            except FileNotFoundError:
                # Nothing has been written yet.
                pass
            except Exception:
                log.exception("Apache's own answers could not be counted; will retry")
            time.sleep(PERIOD_SECONDS)


def _codes() -> Mapping[str, str]:
    """Status → code, of what Apache refuses."""
    table = tomllib.loads((ROOT / "apache" / "errors.toml").read_text())
    return {status: words["code"] for status, words in table.items()} | {metrics.GONE: "caller_gone"}
