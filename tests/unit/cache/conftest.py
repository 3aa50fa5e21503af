"""Stores of answers, without an app around."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cache.breaker import Breaker
from app.cache.disk import DiskStore


@pytest.fixture
def disk(tmp_path: Path) -> DiskStore:
    """A file of its own, of at most a megabyte."""
    return DiskStore(tmp_path / "answers.sqlite3", 1 << 20, 60)


@pytest.fixture
def store(disk: DiskStore) -> Breaker:
    """The file behind its breaker."""
    breaker = Breaker(disk, disk.probe)
    breaker.probe()
    return breaker
