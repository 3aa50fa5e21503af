"""A store of jobs in a folder of its own, with time that passes when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.jobs.jobs import Job, Limits, Wanted
from app.jobs.store import JobStore
from tests.fakes import FakeClock, picture

LIMITS = Limits(
    max_images=5,
    max_bytes=100_000,
    max_image_bytes=50_000,
    max_queued=3,
    max_disk_bytes=10_000_000,
    keep_seconds=600.0,
)

MakeStore = Callable[..., JobStore]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000.0)


@pytest.fixture
def make_store(tmp_path: Path, clock: FakeClock) -> MakeStore:
    """Another process's view of the same jobs, with other limits where given."""

    def make(**limits: Any) -> JobStore:
        return JobStore(tmp_path, replace(LIMITS, **limits), clock)

    return make


@pytest.fixture
def store(make_store: MakeStore) -> JobStore:
    return make_store()


def add(store: JobStore, count: int = 2, **wanted: Any) -> Job:
    """Leave so many pictures."""
    return add_twice(store, count, **wanted)[0]


def add_twice(store: JobStore, count: int = 2, **wanted: Any) -> tuple[Job, bool]:
    """The same, with whether it was taken anew."""
    with store.packing() as pack:
        for number in range(count):
            pack.add(f"{number}.jpg", picture(colour=(number, 0, 0)))
        return store.add(Wanted(**{"task": "detect", "wishes": {}, **wanted}), pack)


def finish_all(store: JobStore, **answer: Any) -> None:
    """Work everything off."""
    while claim := store.claim():
        store.finish(claim, {"number": claim.number, "name": claim.name, **answer})
