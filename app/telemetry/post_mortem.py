"""Why a process ended that could not say so: asked by the one that takes its place. A leaf.

Three sources. mod_wsgi tells a process why it is to end, which it notes. A crash in C leaves a stack, written by
Python's faulthandler. And the kernel counts the processes that it killed for memory in our cgroup: each count explains
one end, so that a later ``kill -9`` is not put down to it. Other processes were killed from outside, or ended
themselves without a log line (``os._exit``).
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.host import machine
from app.storage import file_locks
from app.telemetry.shards import Ended

log = logging.getLogger("cask.ops")

# Below STATE_DIR; removed at each start (apache/serve.sh).
FOLDER = "run/post-mortem"
KILLS, ENDS = "memory-kills", "ends.jsonl"
KEPT_ENDS = 20
TRACE_BYTES = 16384
# After this time without a replacement, what the kernel killed was a child of ours, or a shell.
UNCLAIMED_SECONDS = 60.0
PERIOD_SECONDS = 5.0
# mod_wsgi's words for why a process is to end → ours; any other is an orderly stop.
REASONS: dict[str, Ended] = {
    **dict.fromkeys(("maximum_requests", "graceful_signal", "eviction_signal"), "recycled"),
    **dict.fromkeys(
        ("request_timeout", "startup_timeout", "deadlock_timeout", "cpu_time_limit", "inactivity_timeout"), "timeout"
    ),
}
WORDS: dict[Ended, str] = {
    "crash": "crashed",
    "killed": "ended without logging why: killed from outside, or by os._exit",
    "memory": "was ended by the kernel for want of memory",
    "timeout": "was ended by mod_wsgi, as a request or the start took too long",
}

_state_dir: Path | None = None
# Open for as long as the process lives: faulthandler writes to it.
_trace: int | None = None


@dataclass(frozen=True)
class End:
    """How one process ended. ``words``: for the log; empty where nothing was amiss."""

    cause: Ended
    words: str = ""


def examine(state_dir: Path, name: str, ended: Ended) -> End:
    """How the process ended whose file of numbers has that name. ``ended``: what that file says."""
    cause, trace = ended, _read_trace(state_dir / FOLDER / f"{name}.trace") if ended == "killed" else ""
    if trace:
        cause = "crash"
    elif ended == "killed" and was_out_of_memory(state_dir):
        cause = "memory"
    words = WORDS.get(cause, "")
    end = End(cause, f"{words}: {trace}" if trace else words)
    _record(state_dir, name.rpartition("-")[0], end)
    return end


def begin(state_dir: Path, name: str) -> None:
    """From now on this process leaves what the next one needs. Does without where no file can be made."""
    global _state_dir, _trace
    _state_dir, before = state_dir, _trace
    try:
        (state_dir / FOLDER).mkdir(parents=True, exist_ok=True)
        path = state_dir / FOLDER / f"{name}.trace"
        _trace = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        faulthandler.enable(_trace)
        with _kills(state_dir):
            pass
    except OSError as error:
        log.warning("a crash of this process will not tell where: %s", error)
    if before is not None and before != _trace:
        os.close(before)


def listen(note: Callable[[Ended], None]) -> None:
    """Have ``note`` told why mod_wsgi ends this process; nothing elsewhere."""
    module = sys.modules.get("mod_wsgi")
    subscribe = getattr(module, "subscribe_shutdown", None) if hasattr(module, "process_group") else None
    if subscribe is not None:
        subscribe(lambda _event, **told: note(REASONS.get(str(told.get("shutdown_reason")), "stopped")))


def was_out_of_memory(state_dir: Path | None = None) -> bool:
    """Whether the kernel has ended a process that no end was put down to yet; now one is."""
    state_dir = state_dir or _state_dir
    if state_dir is None:
        return False
    try:
        with _kills(state_dir) as (counted, told, write):
            if counted > told:
                write(told + 1)
            return counted > told
    except OSError:
        return False


def ends(state_dir: Path) -> list[dict[str, Any]]:
    """The latest ends: time, role, cause, words; the newest last."""
    try:
        lines = (state_dir / FOLDER / ENDS).read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []


class MemoryKills:
    """Tells of processes that the kernel ended and whose place nobody took. Runs in ops."""

    def __init__(self, state_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._state_dir, self._clock = state_dir, clock
        self._since: float | None = None

    def look(self) -> None:
        """Write off what stood there for too long. Raises OSError."""
        with _kills(self._state_dir) as (counted, told, write):
            if counted <= told:
                self._since = None
            elif self._since is None:
                self._since = self._clock()
            elif self._clock() - self._since >= UNCLAIMED_SECONDS:
                write(counted)
                self._since = None
                log.error(
                    "the kernel ended %d processes here for want of memory besides those told: decoders, a build,"
                    " or programs that were started beside the service",
                    counted - told,
                )


@contextlib.contextmanager
def _kills(state_dir: Path) -> Iterator[tuple[int, int, Callable[[int], None]]]:
    """How many the kernel counts, how many are told, and how to write the latter; one process at a time."""
    descriptor = file_locks.take(state_dir / FOLDER / KILLS, 0o640, is_waiting=True)
    assert descriptor is not None
    try:
        counted, text = machine.memory_kills(), os.pread(descriptor, 32, 0)

        def write(number: int) -> None:
            os.pwrite(descriptor, b"%20d" % number, 0)

        if not text:
            # What was before this start is nobody's of ours.
            write(counted)
        yield counted, int(text or counted), write
    finally:
        os.close(descriptor)


def _read_trace(path: Path) -> str:
    """The crash and the line it was in; empty where there was none."""
    try:
        with path.open(errors="replace") as file:
            lines = file.read(TRACE_BYTES).splitlines()
    except OSError:
        return ""
    if not lines:
        return ""
    # Of all threads the one that crashed; it may be a library's own, which Python knows nothing of.
    crashed = itertools.dropwhile(lambda line: not line.startswith("Current thread "), lines)
    frames = itertools.takewhile(lambda line: line.startswith("  File "), itertools.islice(crashed, 1, None))
    return ", ".join([lines[0].removeprefix("Fatal Python error: "), *map(str.strip, itertools.islice(frames, 3))])


def _record(state_dir: Path, role: str, end: End) -> None:
    path = state_dir / FOLDER / ENDS
    row = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "role": role, "cause": end.cause}
    with contextlib.suppress(OSError), _kills(state_dir):
        kept = [*ends(state_dir), row | {"words": end.words}][-KEPT_ENDS:]
        path.write_text("".join(json.dumps(each) + "\n" for each in kept))
