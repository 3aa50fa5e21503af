"""The machine's share that is ours: affinity, and the quota of either kind of cgroup."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import machine


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def v1(folder: Path, quota: str, period: str = "100000") -> None:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period + "\n")


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", 8),
        ("", 8),
        ("max", 8),
        ("a b", 8),
        ("100000 0", 8),
    ],
)
def test_quota_of_a_cgroup_v2_cuts_the_cores(tmp_path: Path, cpu_max: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max + "\n")

    assert machine.available_cores(tmp_path) == cores


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("300000", 3), ("50000", 1)])
def test_quota_of_a_cgroup_v1_cuts_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    v1(tmp_path, quota)

    assert machine.available_cores(tmp_path) == cores


@pytest.mark.usefixtures("eight_cores")
def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert machine.available_cores(tmp_path) == 8


def test_memory_of_this_process_is_known() -> None:
    assert 1_000_000 < machine.resident_bytes() == pytest.approx(machine.resident_bytes(os.getpid()), rel=0.5)


def test_process_that_is_gone_has_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert machine.resident_bytes(child.pid) == 0
