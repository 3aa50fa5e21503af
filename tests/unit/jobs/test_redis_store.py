"""What only a store that machines share has to do: leases, tokens, room, and a Redis that is away."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import ROOT
from app.errors import IdempotencyError, JobsFullError, StateUnusableError, StorageFullError
from app.jobs import redis_link
from app.jobs.jobs import Limits
from app.jobs.redis_link import TIMEOUT_SECONDS, Link
from app.jobs.redis_store import LEASE_SECONDS, PREFIX, TELLING_SECONDS, RedisStore
from tests import fakes, redis_servers, servers
from tests.fakes import FakeClock
from tests.redis_servers import RedisServer
from tests.unit.jobs.conftest import LIMITS, add, add_twice, end, finish_all

Machine = Callable[..., RedisStore]


@pytest.fixture
def machine(link: Link, redis: RedisServer, tmp_path: Path, clock: FakeClock) -> Machine:
    """Another machine: a STATE_DIR of its own, the same Redis."""

    def make(limits: Limits = LIMITS) -> RedisStore:
        folder = tmp_path / os.urandom(4).hex()
        return RedisStore(folder, limits, Link(redis.url, "here"), clock)

    return make


@pytest.fixture
def store(machine: Machine) -> RedisStore:
    return machine()


def redis_seconds(link: Link) -> float:
    seconds, microseconds = (float(each) for each in link.ask("TIME"))
    return seconds + microseconds / 1e6


def counted_bytes(link: Link) -> int:
    return int(link.ask("HGET", f"{PREFIX}counts", "bytes") or 0)


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_worker_that_was_only_slow_writes_no_second_result(store: RedisStore, machine: Machine) -> None:
    job = add(store, 1)
    slow = store.claim()
    assert slow
    other = machine()
    assert other.renew() == 0
    assert other.claim() is None
    end(store)
    assert other.renew() == 1

    quick = other.claim()
    assert quick
    assert (quick.number, quick.attempt) == (1, 2)
    assert store.finish(slow, {"number": 1, "who": "slow"}) is None
    store.release(slow, is_counted=True)
    assert store.get(job.id).done == 0
    assert other.claim() is None
    ended = other.finish(quick, {"number": 1, "who": "quick"})

    assert ended is not None
    assert store.finish(slow, {"number": 1, "who": "slow"}) is None
    assert [each["who"] for each in store.results(job.id)] == ["quick"]
    assert store.get(job.id).done == 1


def test_successor_on_a_machine_need_not_wait_for_the_lease(store: RedisStore, link: Link) -> None:
    lock = store.lock()
    assert lock is not None
    add(store, 1)
    assert store.claim()
    os.close(lock)

    after = RedisStore(store.folder.parent, LIMITS, link)
    lock = after.lock()
    assert lock is not None
    assert after.recover() == 1
    assert after.recover() == 0
    os.close(lock)


def test_lease_is_for_some_seconds_of_redis_own_time(store: RedisStore, link: Link) -> None:
    before = redis_seconds(link)
    store.renew()
    until = float(link.ask("ZSCORE", f"{PREFIX}workers", store.worker))

    assert before + LEASE_SECONDS <= until <= redis_seconds(link) + LEASE_SECONDS


def test_claim_whose_answer_was_lost_is_taken_back_without_blame(store: RedisStore) -> None:
    add(store, 2)
    kept = store.claim()
    lost = store.claim()
    assert kept
    assert lost
    # As after a timeout: Redis has given it, and we have not heard.
    store._let_go(lost.token)

    store.renew()
    again = store.claim()

    assert again
    assert (again.number, again.attempt) == (lost.number, 1)
    assert store.claim() is None
    assert store.finish(lost, {"number": lost.number}) is None
    store.finish(kept, {"number": kept.number})
    assert store.finish(again, {"number": again.number}) is not None


def test_claim_that_is_made_while_the_lease_is_renewed_is_left_alone(store: RedisStore, link: Link) -> None:
    add(store, 1)
    claim = store.claim()
    assert claim
    # A renewal that looked at what is in hand before the claim.
    link.run("renew", PREFIX, store.worker, 15, "", claim.token)

    assert store.finish(claim, {"number": 1}) is not None


def test_many_workers_that_die_give_each_image_one_result(machine: Machine) -> None:
    jobs = [add(machine(), 5) for _ in range(3)]
    chance = random.Random(11)  # noqa: S311 - which worker dies is no secret
    written: list[tuple[str, int]] = []

    def work() -> None:
        store = machine()
        while any(job.is_open for job in store.list()):
            claim = store.claim()
            if claim is None:
                store.renew()
            elif chance.random() < 0.4:
                end(store)
                # Late, as one that was only slow.
                if chance.random() < 0.5 and store.finish(claim, {"number": claim.number}):
                    written.append((claim.job_id, -1))
                store = machine()
            else:
                store.finish(claim, {"number": claim.number})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(fakes.PATIENCE_SECONDS)

    store = machine()
    for job in jobs:
        assert (store.get(job.id).state, store.get(job.id).done) == ("succeeded", 5)
        assert [each["number"] for each in store.results(job.id)] == [1, 2, 3, 4, 5]
    assert store.counts() == {"succeeded": 3, "images_waiting": 0}


def test_message_is_sent_by_one_of_them(store: RedisStore, machine: Machine, clock: FakeClock) -> None:
    job = add(store, 1, webhook_url="https://ear.example/")
    finish_all(store)
    other = machine()
    assert store.has_due_webhook
    assert store.due_webhook() is not None
    assert not other.has_due_webhook
    assert other.due_webhook() is None

    clock.now += TELLING_SECONDS
    found = other.due_webhook()
    assert found is not None
    assert found[0].id == job.id
    other.note_webhook(job.id, attempts=1, error="", next_at=None)
    clock.now += TELLING_SECONDS
    assert store.due_webhook() is None
    webhook = store.get(job.id).webhook
    assert webhook is not None
    assert webhook.state == "delivered"


# ── room ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_picture_goes_with_its_prediction_and_every_byte_is_given_back(store: RedisStore, link: Link) -> None:
    job = add(store, 3)
    before = counted_bytes(link)
    claim = store.claim()
    assert claim
    store.finish(claim, {"number": 1})

    assert sorted(link.ask("HKEYS", f"{PREFIX}images:{job.id}")) == [b"2", b"3", b"n2", b"n3"]
    assert counted_bytes(link) < before
    finish_all(store, error={})
    store.retry(job.id)
    store.remove(job.id)
    assert counted_bytes(link) == 0
    assert set(link.ask("KEYS", f"{PREFIX}*")) == {f"{PREFIX}{name}".encode() for name in ("counts", "turn", "workers")}


def test_nothing_but_counts_is_left_of_an_expired_job(store: RedisStore, link: Link, clock: FakeClock) -> None:
    add(store, 2, key="mine", owner="anna")
    finish_all(store)
    clock.now += 601
    assert store.expire() == 1
    assert counted_bytes(link) == 0
    clock.now += 601
    store.expire()

    assert set(link.ask("KEYS", f"{PREFIX}*")) == {f"{PREFIX}{name}".encode() for name in ("counts", "turn", "workers")}
    assert store.counts() == {"images_waiting": 0}


def test_no_key_goes_by_itself(store: RedisStore, link: Link) -> None:
    add(store, 2, key="mine", webhook_url="https://ear.example/")
    store.claim()

    assert {link.ask("TTL", key) for key in link.ask("KEYS", f"{PREFIX}*")} == {-1}


def test_room_is_held_while_images_are_on_their_way_and_given_back(
    store: RedisStore, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    upload = RedisStore._upload

    def look(self: RedisStore, token: str, pack: Any) -> None:
        held.extend(link.ask("ZRANGE", f"{PREFIX}uploads", 0, -1))
        with pytest.raises(StorageFullError):
            self._taken(pack, 1, *self._run("reserve", "", "", "", 9, "ab", 1, int(held[0].rpartition(b":")[2]), 1))
        upload(self, token, pack)

    monkeypatch.setattr(RedisStore, "_upload", look)
    add(store, 1)

    assert len(held) == 1
    assert link.ask("ZRANGE", f"{PREFIX}uploads", 0, -1) == []


def test_upload_of_a_process_that_ended_is_swept_away_in_time(store: RedisStore, link: Link) -> None:
    link.run("reserve", PREFIX, "", "", "", 9, "ab", 100, 1000, 600)
    link.run("reserve", PREFIX, "", "", "", 9, "cd", 100, 1000, -1)
    for token in ("ab", "cd"):
        link.ask("HSET", f"{PREFIX}upload:{token}", 1, "x")

    store.sweep()

    assert link.ask("KEYS", f"{PREFIX}upload*:*") == [f"{PREFIX}upload:ab".encode()]
    assert link.ask("ZRANGE", f"{PREFIX}uploads", 0, -1) == [b"ab:100"]


def test_same_job_that_another_took_meanwhile_is_found(
    store: RedisStore, machine: Machine, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = RedisStore._upload

    def overtaken(self: RedisStore, token: str, pack: Any) -> None:
        monkeypatch.setattr(RedisStore, "_upload", upload)
        add(machine(), 1, key="mine")
        upload(self, token, pack)

    monkeypatch.setattr(RedisStore, "_upload", overtaken)
    job, is_new = add_twice(store, 1, key="mine")
    assert not is_new
    assert [each.id for each in store.list()] == [job.id]
    assert link.ask("KEYS", f"{PREFIX}upload*") == []

    monkeypatch.setattr(RedisStore, "_upload", overtaken)
    with pytest.raises(IdempotencyError):
        add(store, 2, key="mine")


def test_jobs_of_all_machines_count(store: RedisStore, machine: Machine) -> None:
    for _ in range(3):
        add(machine(), 1)
    with pytest.raises(JobsFullError, match="3 jobs wait or run"):
        add(store, 1)


def test_images_that_redis_threw_away_are_not_taken_for_a_job(
    store: RedisStore, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = RedisStore._upload

    def lost(self: RedisStore, token: str, pack: Any) -> None:
        upload(self, token, pack)
        link.ask("DEL", f"{PREFIX}upload:{token}")

    monkeypatch.setattr(RedisStore, "_upload", lost)
    with pytest.raises(StateUnusableError, match="lost in Redis"):
        add(store, 1)
    assert store.list() == []


# ── a Redis in trouble ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One that a test may harm."""
    with redis_servers.running() as server:
        yield server


@pytest.fixture
def own(own_redis: RedisServer, tmp_path: Path) -> RedisStore:
    return RedisStore(tmp_path, LIMITS, Link(own_redis.url, "here"))


def test_redis_without_memory_takes_no_job_and_lets_others_end(own: RedisStore) -> None:
    job, other = add(own, 2), add(own, 1)
    own._link.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StorageFullError, match="no memory left"):
        add(own, 1)

    own.renew()
    finish_all(own)
    own.sweep()
    own.remove(other.id)

    assert own.get(job.id).state == "succeeded"
    assert [each["number"] for each in own.results(job.id)] == [1, 2]


def test_hung_redis_costs_one_second_once_and_is_found_again(own: RedisStore, own_redis: RedisServer) -> None:
    add(own, 1)
    servers.suspend(own_redis.process.pid)
    try:
        began = time.monotonic()
        with pytest.raises(StateUnusableError, match="it does not answer") as caught:
            own.counts()
        # Less than a second try would take.
        assert time.monotonic() - began < 2 * TIMEOUT_SECONDS
        assert caught.value.retry_after_seconds
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(StateUnusableError):
                own.counts()
        # Told at once; one of them may have tried again, on a machine that stood still also another one.
        assert time.monotonic() - began < 4 * TIMEOUT_SECONDS
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)

    fakes.eventually(lambda: works(own), "it to be found again")
    assert own.counts() == {"queued": 1, "images_waiting": 1}


def test_one_caller_at_a_time_asks_a_redis_that_is_away(own: RedisStore, own_redis: RedisServer) -> None:
    clock = FakeClock()
    link = Link(own_redis.url, "here", clock)
    own_redis.process.kill()
    own_redis.process.wait()
    tried: list[float] = []

    def fails() -> bool:
        try:
            link.ask("PING")
        except StateUnusableError as error:
            if error.__cause__ is not None:
                tried.append(clock.now)
            return True
        return False

    assert all(fails() for _ in range(3))
    clock.now += redis_link.AWAY_SECONDS
    assert all(fails() for _ in range(3))

    assert tried == [100.0, 100.0 + redis_link.AWAY_SECONDS]


def test_others_are_told_at_once_while_one_waits_for_a_hung_redis(own_redis: RedisServer) -> None:
    clock = FakeClock()
    link = Link(own_redis.url, "here", clock)
    asked: list[bool] = []

    def ask() -> None:
        with pytest.raises(StateUnusableError) as caught:
            link.ask("PING")
        asked.append(caught.value.__cause__ is not None)

    servers.suspend(own_redis.process.pid)
    try:
        ask()
        clock.now += redis_link.AWAY_SECONDS
        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)

    assert sorted(asked) == [False] * 4 + [True] * 2


def test_restarted_redis_needs_no_new_start_of_ours(own: RedisStore, own_redis: RedisServer) -> None:
    assert own.counts() == {"images_waiting": 0}
    own_redis.process.kill()
    own_redis.process.wait()

    with redis_servers.running(own_redis.port):
        # The idle connection has ended and the scripts are gone: neither is noticed.
        add(own, 1)
        finish_all(own)
        assert own.counts() == {"succeeded": 1, "images_waiting": 0}


def works(store: RedisStore) -> bool:
    try:
        store.counts()
    except StateUnusableError:
        return False
    return True


def test_password_is_never_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with redis_servers.running() as server:
        Link(server.url, "here").ask("CONFIG", "SET", "requirepass", "right")
        url = f"redis://:wrong-and-secret@127.0.0.1:{server.port}/0"
        store = RedisStore(tmp_path, LIMITS, Link(url, f"127.0.0.1:{server.port}/0"))
        with pytest.raises(StateUnusableError) as caught:
            store.counts()

    assert str(server.port) in caplog.text
    assert str(server.port) not in caught.value.message + caught.value.hint
    assert "secret" not in caplog.text + caught.value.message + caught.value.hint


def test_redis_is_not_imported_for_jobs_on_disk(tmp_path: Path) -> None:
    code = (
        "import sys; from app import factory; factory.create_app();"
        "print(*sorted({'redis', 'app.jobs.redis_store'} & set(sys.modules)))"
    )
    environment = {"ENV": "test", "STATE_DIR": str(tmp_path), "PATH": os.environ["PATH"], "CACHE": "off"}

    def imported(**settings: str) -> str:
        command = [sys.executable, "-c", code]
        whole = {**environment, **settings}
        return subprocess.run(command, cwd=ROOT, env=whole, check=True, capture_output=True, text=True).stdout.strip()

    url = "redis://127.0.0.1:1/0"
    assert imported() == imported(REDIS_URL=url) == ""
    # Not even there at the start: the library takes longer than all else.
    assert imported(REDIS_URL=url, JOBS_STORE="redis") == "app.jobs.redis_store"


# ── whose clock ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("days", [-10, 10])
def test_a_machine_whose_clock_is_set_expires_nothing_and_tells_at_once(
    link: Link, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    store = RedisStore(tmp_path / "one", LIMITS, link)
    job = add(store, 1, webhook_url="http://localhost/hook")
    finish_all(store)
    wrong = time.time() + days * 86400
    monkeypatch.setattr(time, "time", lambda: wrong)
    other = RedisStore(tmp_path / "other", LIMITS, Link(redis.url, "here"))

    assert other.expire() == 0
    assert other.get(job.id).state == "succeeded"
    assert len(other.results(job.id)) == 1
    due = other.due_webhook()
    assert due is not None
    other.note_webhook(job.id, attempts=1, error="away", next_at=other.now() + 60)
    assert not other.has_due_webhook
    assert abs(other.now() - store.now()) < 1
