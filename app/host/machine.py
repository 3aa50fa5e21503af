"""What this machine, or the container's share of it, gives us. A leaf."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib.util
import math
import mmap
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

CGROUP = Path("/sys/fs/cgroup")
# What NVIDIA's driver shows to processes that may use a GPU; a container has it with `--gpus`.
GPU_CONTROL = Path("/dev/nvidiactl")
# Only builds of torch for CUDA have it.
CUDA_LIBRARY = "lib/libtorch_cuda.so"
CPU = "cpu"
FIRST_GPU = "cuda:0"
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
ROUTES = Path("/proc/net/route")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Of this process.
MEMBERSHIP = Path("/proc/self/cgroup")
MAPPINGS = Path("/proc/self/smaps")
# A file's mapping that cannot be written and of which no page is the process's own: start, end (proc_pid_smaps(5)).
UNCHANGED = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) r-[-x][sp] \S+ \S+ \S+ +/.*\n(?:[A-Z].*\n)*?Anonymous: +0 kB$", re.MULTILINE
)
# Of one core: what threads that look after something use while nobody asks.
QUIET_SHARE = 0.05
# Of what was freed, so much is kept for the next batch, and of one block: glibc's own most for it.
KEPT_BYTES, KEPT_BLOCK_BYTES = 128 * 1024**2, 32 * 1024**2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def python() -> str:
    """The interpreter of this installation. In a process of Apache sys.executable need not be Python."""
    return str(Path(sys.prefix) / "bin" / "python")


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores this process may use: its CPU affinity, cut to the quota of its cgroup (v2 or v1), at least 1."""
    affinity = len(os.sched_getaffinity(0))
    quota = _quota_cores(cgroup)
    return max(1, min(affinity, math.ceil(quota)) if quota else affinity)


def available_bytes(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Memory this process may use: the machine's, cut to the limits of its cgroup (v2 or v1) and those around it."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [_read_bytes(each) for each in _memory_limits(cgroup, membership)]
    return min([installed, *(limit for limit in limits if limit)])


def resident_bytes(pid: int | None = None) -> int:
    """Memory of a process that is in RAM (VmRSS), in bytes; 0 when the process is gone."""
    try:
        pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int | None = None) -> float:
    """Processor time that a process has used, its threads' too, in seconds; 0 when the process is gone."""
    return sum(int(ticks) for ticks in _stat(pid or os.getpid())[11:13]) / os.sysconf("SC_CLK_TCK")


def proportional_bytes() -> int | None:
    """Memory of this process in RAM (PSS), what is shared divided among those who share it; None: cannot be read."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration, ValueError):
        return None


def born(pid: int) -> int | None:
    """When a process began, in clock ticks since boot: tells it from a later one with the same number; None: gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def boot_clock() -> tuple[str, float]:
    """Which boot this is, and the seconds since then: a clock that nobody can set, the same in all processes.

    Empty where the kernel does not tell one boot from another.
    """
    return _boot(), time.clock_gettime(time.CLOCK_BOOTTIME)


@functools.cache
def _boot() -> str:
    """Which boot this is, the same for as long as this process lives; empty where the kernel does not tell."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def memory_kills(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Processes of our cgroup (v2 or v1) that the kernel has ended for want of memory; 0 where it does not count."""
    limits = list(_memory_limits(cgroup, membership))
    # Our own group, where it can be seen; in a container that is the root.
    for limit in (*limits[2:], *limits[:2]):
        counts = limit.with_name("memory.events" if limit.name == "memory.max" else "memory.oom_control")
        with contextlib.suppress(OSError, StopIteration, ValueError):
            rows = counts.read_text().splitlines()
            return next(int(row.split()[1]) for row in rows if row.startswith("oom_kill "))
    return 0


def most_threads(cgroup: Path = CGROUP) -> int | None:
    """Processes and threads that the cgroup (v2 or v1) allows; None: no limit is seen."""
    limits = [_read_bytes(cgroup / name) for name in ("pids.max", "pids/pids.max")]
    return min((limit for limit in limits if limit), default=None)


def children(pid: int) -> list[int]:
    """The processes that a process of one thread has begun. Raises OSError where the kernel does not tell."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP, SIGTSTP); one that a debugger holds is not."""
    return _stat(pid)[:1] == ["T"]


def thread_seconds() -> dict[int, tuple[float, float]]:
    """For how long each thread of this process has computed, and waited for a core, by the kernel's number of it.

    Empty where the kernel does not count it (proc(5), schedstat).
    """
    found = {}
    for name in os.listdir("/proc/self/task"):  # noqa: PTH208 - pathlib costs three times as much
        try:
            with open(f"/proc/self/task/{name}/schedstat", "rb") as file:  # noqa: PTH123
                computed, waited, _ = file.read().split()
        except (OSError, ValueError):
            # It has ended meanwhile.
            continue
        found[int(name)] = int(computed) / 1e9, int(waited) / 1e9
    return found


def thread_is_runnable(number: int) -> bool:
    """Whether this thread of this process computes, or waits for a core, at the moment."""
    try:
        with open(f"/proc/self/task/{number}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] == b"R"
    except (OSError, IndexError):
        return False


def container_gateway(marks: tuple[Path, ...] = CONTAINER_MARKS, routes: Path = ROUTES) -> str:
    """The IPv4 address by which the host of this container calls it: its default route's. Empty outside of one.

    Elsewhere the default route leads to a router, which is nobody's host.
    """
    if not any(mark.exists() for mark in marks):
        return ""
    try:
        rows = [line.split() for line in routes.read_text().splitlines()[1:]]
    except OSError:
        return ""
    # Interface, destination, gateway; numbers in hexadecimal, in the order of this machine's bytes (proc(5)).
    found = next((row[2] for row in rows if len(row) > 2 and row[1] == "00000000"), "")
    return ".".join(str(byte) for byte in int(found, 16).to_bytes(4, sys.byteorder)) if found else ""


def has_gpu(control: Path = GPU_CONTROL) -> bool:
    """Whether a GPU is visible here and the installed torch was built for one.

    Looks at files: torch's own answer would cost its import, 2 s and 300 MB. It may still be unable to use the GPU.
    """
    if not control.exists():
        return False
    found = importlib.util.find_spec("torch")
    return any(Path(place, CUDA_LIBRARY).exists() for place in (found and found.submodule_search_locations) or ())


def has_torch() -> bool:
    """Whether torch is installed, without its import; a slim image has none (docs/container.md)."""
    return importlib.util.find_spec("torch") is not None


def device(requested: str) -> str:
    """``cpu`` or ``cuda:<n>`` for a value of DEVICE, as far as one can see without torch."""
    if requested == "auto":
        return FIRST_GPU if has_gpu() else CPU
    return FIRST_GPU if requested == "cuda" else requested


def keep_freed_memory() -> None:
    """Let the memory of what was freed be used again while there is work (mallopt(3), glibc only); see ``trim_memory``.

    torch makes its results anew for each batch. Given back and asked for at once, every page of them costs a fault.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)
        set_option(M_TRIM_THRESHOLD, KEPT_BYTES)


def return_memory() -> None:
    """Collect what nobody refers to, and give free memory back to the system."""
    gc.collect()
    trim_memory()


def trim_memory() -> None:
    """Give free memory back to the system (malloc_trim(3), glibc only); other threads go on meanwhile."""
    forget_mapped_files()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def forget_mapped_files() -> None:
    """Take pages of files that are mapped and unchanged out of this process's memory: model files, code of libraries.

    A runtime maps a model's weights, packs them anew for this processor, and holds the file's pages for ever; so does
    code that only the start ran. A page that is touched again comes back from the system's own memory or from the
    file, in microseconds (madvise(2)).
    """
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    try:
        mappings = MAPPINGS.read_bytes()
    except OSError:
        # Not Linux, or /proc is closed: loading a model must not fail for that.
        return
    if advise is None:
        return
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for found in UNCHANGED.finditer(mappings):
        start, end = (int(each, 16) for each in found.groups())
        advise(start, end - start, mmap.MADV_DONTNEED)


class Lull:
    """Tells when this process comes to rest after work, by the processor time that it used since the last look."""

    def __init__(
        self, processor: Callable[[], float] = time.process_time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._processor, self._clock = processor, clock
        self._looked_at, self._used = clock(), processor()
        # Whether there was work since the last one. A start is work, and the first look comes from there.
        self.is_awaited = True

    def has_begun(self) -> bool:
        """Whether this is the first look after work at which there was next to none; once for each lull."""
        moment, used = self._clock(), self._processor()
        is_quiet = used - self._used < QUIET_SHARE * (moment - self._looked_at)
        self._looked_at, self._used = moment, used
        if is_quiet and self.is_awaited:
            self.is_awaited = False
            return True
        self.is_awaited |= not is_quiet
        return False


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, field 3 of proc(5); nothing when the process is gone.

    The name before that may hold blanks and brackets, so the last closing one counts.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _memory_limits(cgroup: Path, membership: Path) -> Iterator[Path]:
    """Files that may hold a limit. A container sees its own group as the root; a unit of systemd does not."""
    yield cgroup / "memory.max"
    yield cgroup / "memory/memory.limit_in_bytes"
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # Number, controllers (none in v2), path (cgroups(7)).
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root, name = (cgroup / "memory", "memory.limit_in_bytes") if controllers else (cgroup, "memory.max")
            own = PurePosixPath(path.strip("/"))
            yield from (root / each / name for each in (own, *own.parents))


def _quota_cores(cgroup: Path) -> float | None:
    """Cores allowed by ``cpu.max`` (v2) or ``cpu.cfs_quota_us`` (v1); None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (ValueError, ZeroDivisionError):
        return None


def _read_bytes(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        # No such file, or the word "max".
        return None
