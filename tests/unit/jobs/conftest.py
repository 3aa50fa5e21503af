"""A store of jobs for each test, on disk and in a real Redis, with time that passes when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.jobs.disk_store import DiskStore
from app.jobs.jobs import Job, Limits, Wanted
from app.jobs.redis_link import Link
from app.jobs.redis_store import PREFIX, RedisStore
from app.jobs.store import JobStore
from tests import redis_servers
from tests.fakes import FakeClock, picture
from tests.redis_servers import RedisServer

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


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """One for all tests that do it no harm."""
    with redis_servers.running() as server:
        yield server


@pytest.fixture
def link(redis: RedisServer) -> Link:
    """An empty Redis."""
    link = Link(redis.url, f"127.0.0.1:{redis.port}/1")
    link.ask("FLUSHDB")
    return link


@pytest.fixture(params=["disk", "redis"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> MakeStore:
    """Another process's view of the same jobs, with other limits where given."""
    link = request.getfixturevalue("link") if request.param == "redis" else None

    def make(**limits: Any) -> JobStore:
        wanted = replace(LIMITS, **limits)
        if link is None:
            return DiskStore(tmp_path, wanted, clock, lambda: ("this boot", clock()))
        return RedisStore(tmp_path, wanted, link, clock)

    return make


@pytest.fixture
def store(make_store: MakeStore) -> JobStore:
    return make_store()


@pytest.fixture
def disk_store(tmp_path: Path, clock: FakeClock) -> DiskStore:
    """For what does not depend on where jobs lie."""
    return DiskStore(tmp_path, LIMITS, clock, lambda: ("this boot", clock()))


def add(store: JobStore, count: int = 2, **wanted: Any) -> Job:
    """Leave so many pictures."""
    return add_twice(store, count, **wanted)[0]


def add_twice(store: JobStore, count: int = 2, **wanted: Any) -> tuple[Job, bool]:
    """The same, with whether it was taken anew."""
    with store.packing() as pack:
        for number in range(count):
            pack.add(f"{number}.jpg", picture(colour=(number, 0, 0)))
        return store.add(Wanted(**{"task": "detect", "params": {}, **wanted}), pack)


def images(store: JobStore) -> set[str]:
    """Jobs with images that are kept."""
    if isinstance(store, DiskStore):
        return {path.name for path in (store.folder / "images").iterdir()}
    keys = ask(store, "KEYS", f"{PREFIX}images:*")
    return {key.decode().rpartition(":")[2] for key in keys}


def end(store: JobStore) -> None:
    """The worker that uses it is dead: the kernel, or time, says so to all others."""
    if isinstance(store, RedisStore):
        ask(store, "ZADD", f"{PREFIX}workers", 1, store.worker)


def ask(store: JobStore, *command: Any) -> Any:
    """One command to its Redis."""
    assert isinstance(store, RedisStore)
    return store._link.ask(*command)


def finish_all(store: JobStore, **answer: Any) -> None:
    """Work everything off."""
    while claim := store.claim():
        store.finish(claim, {"number": claim.number, "name": claim.name, **answer})
