"""What a tree of processes uses: memory as PSS (shared pages are counted once, by shares), and processor time."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
BYTES_A_KB = 1024
BYTES_A_MB = 1_000_000


def tree_pss_mb(pid: int, proc: Path = PROC) -> float:
    """PSS of a process and all below it, in MB (10⁶ bytes). Processes that end meanwhile count as nothing."""
    kilobytes = sum(_pss_kb(proc, each) for each in tree(pid, proc))
    return kilobytes * BYTES_A_KB / BYTES_A_MB


def tree(pid: int, proc: Path = PROC) -> list[int]:
    """A process and all below it, parents first."""
    children: dict[int, list[int]] = {}
    for path in proc.glob("[0-9]*/stat"):
        parent = _parent(path)
        if parent is not None:
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def tree_cpu_seconds(pid: int, proc: Path = PROC) -> dict[str, float]:
    """Processor time used so far, in seconds, of a process and all below it; by the names that they show."""
    used: dict[str, float] = {}
    for each in tree(pid, proc):
        name = _name(proc, each)
        used[name] = used.get(name, 0.0) + _cpu_seconds(proc, each)
    return used


def tree_switches(pid: int, proc: Path = PROC) -> int:
    """How often the threads of a process and of all below it gave a core to another so far."""
    return sum(_switches(path) for each in tree(pid, proc) for path in (proc / str(each)).glob("task/*/status"))


def busy_seconds(proc: Path = PROC) -> float:
    """Processor time used so far by everything on this machine, in seconds over all cores."""
    fields = [int(each) for each in (proc / "stat").read_text().splitlines()[0].split()[1:]]
    # user, nice, system, irq, softirq and steal of proc(5); guests are in user already.
    return sum(fields[i] for i in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def _name(proc: Path, pid: int) -> str:
    """What ``ps`` shows, its first words."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return ""
    return " ".join(words[:2])


def _cpu_seconds(proc: Path, pid: int) -> float:
    try:
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    # utime and stime, the fields 14 and 15 of proc(5); two stand before the bracket.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _switches(status: Path) -> int:
    try:
        lines = status.read_text(errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if "voluntary_ctxt_switches" in line)


def _parent(stat: Path) -> int | None:
    try:
        # The name in brackets may hold anything; what follows the last bracket is state and parent (proc(5)).
        return int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _pss_kb(proc: Path, pid: int) -> int:
    try:
        lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
