"""Stores of answers, without an app around."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cache.disk import DiskStore
from app.cache.guarded_store import GuardedStore
from app.storage.circuit_breaker import CircuitBreaker


@pytest.fixture
def disk(tmp_path: Path) -> DiskStore:
    """A file of its own, of at most a megabyte."""
    return DiskStore(tmp_path / "answers.sqlite3", 1 << 20, 60)


@pytest.fixture
def store(disk: DiskStore) -> GuardedStore:
    """The file behind its breaker."""
    return GuardedStore(disk, CircuitBreaker("store", disk.probe))
