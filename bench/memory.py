"""Memory of a tree of processes as PSS: pages that several processes share are counted once, by shares."""

from __future__ import annotations

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
