"""Sleep that ends on time. gevent's own ends up to a millisecond late, for epoll counts in milliseconds."""

from __future__ import annotations

import ctypes
import os

import gevent
from gevent.hub import get_hub

READ = 1
# timerfd_create(2); Python has it from 3.13 on.
NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
CLOCK_MONOTONIC = 1
NANOSECONDS = 10**9
# Below this, gevent's own sleep: where arrivals are so close, one wake-up for two of them is half the cost.
COARSE_SECONDS = 0.001


class Timer:
    """One sleeper's alarm: the kernel's timer as a file, which epoll sees in the moment it fires."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        create = getattr(self._libc, "timerfd_create", None)
        # Where the kernel has none, gevent's own sleep has to do.
        self._file = create(CLOCK_MONOTONIC, NONBLOCK_CLOEXEC) if create else -1
        self._watcher = get_hub().loop.io(self._file, READ) if self._file >= 0 else None

    def sleep(self, seconds: float) -> None:
        """Let other greenlets run for so long."""
        if self._watcher is None or seconds < COARSE_SECONDS:
            gevent.sleep(max(0.0, seconds))
            return
        whole = max(1, int(seconds * NANOSECONDS))
        # struct itimerspec: the interval, which is none, then the first and only time.
        once = (ctypes.c_long * 4)(0, 0, whole // NANOSECONDS, whole % NANOSECONDS)
        self._libc.timerfd_settime(self._file, 0, once, None)
        get_hub().wait(self._watcher)
        os.read(self._file, 8)

    def close(self) -> None:
        """Give the timer back."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._watcher = -1, None
