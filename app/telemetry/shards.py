"""Numbers that several processes count together: a file a process, mapped into memory, outliving the process. A leaf.

A file belongs to the process that holds its lock. When a process ends, its numbers stay in its file; the next process
of its role takes the file over and counts on. So nothing is lost, nothing is merged, and there are never more files
than there were processes at one time.

Head (twelve numbers of 8 bytes): form · pid · born · how it ended · bytes used · last sign of life (ns since boot) ·
for how long stuck (ms) · mood · requests answered · three in reserve. Then a record for each series: bytes of its key,
how many values (4 bytes each), the key as JSON filled up to 8 bytes, values as doubles.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.host import machine
from app.storage import file_locks

FOLDER = "run/metrics"
FORM = int.from_bytes(b"CASKMET2", "little")
HEAD = struct.Struct("<12q")
FORM_AT, PID_AT, BORN_AT, END_AT, USED_AT, BEAT_AT, STUCK_AT, MOOD_AT, ANSWERED_AT = range(9)
RECORD = struct.Struct("<II")
# About two thousand series; reserved on disk at once, for a full disk would else end the process (SIGBUS).
FILE_BYTES = 512 * 1024
MAX_FILES = 1024

Ended = Literal["crash", "killed", "memory", "hang", "timeout", "recycled", "stopped"]
# What a file says of how its process ended: nothing, what that wrote itself, or the watchdog for it. Of those that
# wrote nothing, post_mortem.py tells who crashed and who had no memory.
ENDS: dict[int, Ended] = {0: "killed", 1: "stopped", 2: "hang", 3: "recycled", 4: "timeout"}
NUMBERS = {name: number for number, name in ENDS.items()}
# What a process says of itself: it serves; it loads a model and may be silent for long; it finishes and then ends.
SERVING, LOADING, STOPPING = 0, 1, 2


@dataclass(frozen=True)
class Series:
    """One line of numbers: of which metric, with which values of its labels."""

    kind: str
    name: str
    labels: tuple[str, ...]

    def key(self) -> bytes:
        """As it stands in a file."""
        return json.dumps([self.kind, self.name, self.labels], separators=(",", ":")).encode()


class MetricsShard:
    """The numbers of this process. Its owner holds a lock around ``find``; values are changed by index."""

    def __init__(self, memory: mmap.mmap | bytearray, lock: int | None = None, name: str = "") -> None:
        self.name = name
        self._memory = memory
        self._release = None if lock is None else weakref.finalize(self, os.close, lock)
        self._head = memoryview(memory)[: HEAD.size].cast("q")
        self.values = memoryview(memory).cast("d")
        self._found = {series: at for series, at, _ in _records(memory)}

    @classmethod
    def in_memory(cls) -> MetricsShard:
        """Numbers that nobody else sees: before the process has a file, or where it can have none."""
        memory = bytearray(FILE_BYTES)
        HEAD.pack_into(memory, 0, FORM, 0, 0, 0, HEAD.size, *[0] * 7)
        return cls(memory)

    @classmethod
    def claim(cls, state_dir: Path, role: str) -> tuple[MetricsShard, Ended | None]:
        """A file of this role for this process alone, and how the one before it ended, if there was one.

        Raises OSError where no file can be made.
        """
        folder = state_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(MAX_FILES):
            name = f"{role}-{number}"
            lock = file_locks.take(folder / name, 0o640)
            if lock is not None:
                return _take_over(lock, name)
        raise OSError(f"{MAX_FILES} processes of the role {role} hold a file in {folder}")

    def find(self, series: Series, count: int) -> int:
        """The index in ``values`` at which ``count`` values of a series begin. Raises OverflowError when full."""
        at = self._found.get(series)
        if at is None:
            at = self._found[series] = self._append(series, count)
        return at

    def stop(self, why: Ended = "stopped") -> None:
        """This process ends by itself; its numbers stay. The first reason is the one that counts."""
        self._head[END_AT] = self._head[END_AT] or NUMBERS[why]

    def beat(self, stuck_seconds: float, mood: int) -> None:
        """Say that this process lives. Written into memory that is reserved: a full disk does not hinder it."""
        self._head[STUCK_AT], self._head[MOOD_AT] = int(stuck_seconds * 1000), mood
        self._head[BEAT_AT] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def answered(self) -> None:
        """One more request was answered. Now and then one is missed: it is to be seen that they are, not how many."""
        self._head[ANSWERED_AT] += 1

    def abandon(self) -> None:
        """After a fork, in the child: the file is the parent's."""
        if self._release is not None:
            self._release()

    def _append(self, series: Series, count: int) -> int:
        key, used = series.key(), self._head[USED_AT]
        at = used + RECORD.size + _padded(len(key))
        end = at + 8 * count
        if end > len(self._memory):
            raise OverflowError(f"no room for {series}")
        RECORD.pack_into(self._memory, used, len(key), count)
        self._memory[used + RECORD.size : used + RECORD.size + len(key)] = key
        # Last: a concurrent reader sees the whole record or nothing of it.
        self._head[USED_AT] = end
        return at // 8


@dataclass(frozen=True)
class Found:
    """What one file says. ``is_alive``: the process that wrote it still runs."""

    role: str
    pid: int
    is_alive: bool
    series: dict[Series, tuple[float, ...]]


@dataclass(frozen=True)
class Sign:
    """The last sign of life of one process that still runs. ``beat``: 0 when it has given none yet, else when.

    ``stuck_seconds``: for how long some part of it has made no progress, by its own word.
    """

    role: str
    pid: int
    born: int
    beat: int
    stuck_seconds: float
    mood: int
    answered: int

    @property
    def age_seconds(self) -> float:
        """How long ago it was given, time in which the machine slept included."""
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.beat) / 1e9 if self.beat else 0.0


def signs(state_dir: Path) -> list[Sign]:
    """Of all processes that live, by the kernel's word: a number that another process has by now is not one."""
    found = (_sign(path) for path in sorted((state_dir / FOLDER).glob("*-*")))
    return [sign for sign in found if sign is not None and machine.born(sign.pid) == sign.born]


def _sign(path: Path) -> Sign | None:
    try:
        with path.open("rb", buffering=0) as file:
            head = HEAD.unpack(file.read(HEAD.size))
    except (OSError, struct.error):
        return None
    if head[FORM_AT] != FORM:
        return None
    role, stuck = path.name.rpartition("-")[0], head[STUCK_AT] / 1000
    return Sign(role, head[PID_AT], head[BORN_AT], head[BEAT_AT], stuck, head[MOOD_AT], head[ANSWERED_AT])


def read(state_dir: Path) -> list[Found]:
    """What all processes of this start have counted, those that ended included."""
    return [found for path in sorted((state_dir / FOLDER).glob("*-*")) if (found := _read(path)) is not None]


def note_hang(state_dir: Path, pid: int) -> None:
    """Write for a process that is about to be killed that it hung."""
    for path in (state_dir / FOLDER).glob("*-*"):
        with contextlib.suppress(OSError, ValueError), path.open("r+b") as file:
            head = HEAD.unpack(file.read(HEAD.size))
            if head[PID_AT] == pid:
                os.pwrite(file.fileno(), NUMBERS["hang"].to_bytes(8, "little"), END_AT * 8)


def _take_over(lock: int, name: str) -> tuple[MetricsShard, Ended | None]:
    try:
        os.posix_fallocate(lock, 0, FILE_BYTES)
        memory = mmap.mmap(lock, FILE_BYTES)
    except OSError:
        os.close(lock)
        raise
    head = HEAD.unpack_from(memory)
    is_ours = head[FORM_AT] == FORM
    ended = ENDS.get(head[END_AT], "killed") if is_ours else None
    used = head[USED_AT] if is_ours else HEAD.size
    for series, at, count in _records(memory) if is_ours else ():
        if series.kind == "gauge":
            # How it stood in a process that is gone.
            memory[at * 8 : (at + count) * 8] = bytes(count * 8)
    HEAD.pack_into(memory, 0, FORM, os.getpid(), machine.born(os.getpid()) or 0, 0, used, *[0] * 7)
    return MetricsShard(memory, lock, name), ended


def _read(path: Path) -> Found | None:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            head = HEAD.unpack_from(memory)
            if head[FORM_AT] != FORM:
                return None
            with memoryview(memory) as whole, whole.cast("d") as values:
                series = {record: tuple(values[at : at + count]) for record, at, count in _records(memory)}
    except (OSError, ValueError, struct.error):
        # Being made at this moment, or not ours.
        return None
    role, pid = path.name.rpartition("-")[0], head[PID_AT]
    return Found(role, pid, machine.born(pid) == head[BORN_AT], series)


def _records(memory: mmap.mmap | bytearray) -> Iterator[tuple[Series, int, int]]:
    """Each series, the index of its first value, how many values it has."""
    at, used = HEAD.size, HEAD.unpack_from(memory)[USED_AT]
    while at < used:
        key_bytes, count = RECORD.unpack_from(memory, at)
        key_at = at + RECORD.size
        kind, name, labels = json.loads(memory[key_at : key_at + key_bytes])
        at = key_at + _padded(key_bytes)
        yield Series(kind, name, tuple(labels)), at // 8, count
        at += 8 * count


def _padded(count: int) -> int:
    return -(-count // 8) * 8
