"""What was taken is there until it was done, once; every process sees the same."""

from __future__ import annotations

import multiprocessing
import shutil
import stat
from pathlib import Path

import pytest

from app.errors import (
    ChangeRefusedError,
    IdempotencyError,
    ImageTooLargeError,
    JobNotFoundError,
    JobsFullError,
    RequestTooLargeError,
    StateUnusableError,
    StorageFullError,
    TooManyImagesError,
)
from app.jobs import image_packs
from app.jobs.disk_store import DiskStore
from app.jobs.redis_link import Link
from app.jobs.redis_store import PREFIX, RedisStore
from app.jobs.store import JobStore
from tests.fakes import FakeClock, picture
from tests.unit.jobs.conftest import LIMITS, MakeStore, add, add_twice, ask, end, finish_all, images


def files(store: JobStore, folder: str) -> list[Path]:
    return sorted((store.folder / folder).iterdir())


def test_job_goes_from_queued_to_succeeded(store: JobStore, clock: FakeClock) -> None:
    job = add(store)
    assert (job.state, job.total, job.done) == ("queued", 2, 0)

    claim = store.claim()
    assert claim is not None
    assert (claim.number, claim.name, claim.attempt, claim.data) == (1, "0.jpg", 1, picture(colour=(0, 0, 0)))
    assert store.get(job.id).state == "running"

    clock.now += 5
    assert store.finish(claim, {"number": 1}) is None
    finish_all(store)
    ended = store.get(job.id)
    assert (ended.state, ended.done, ended.failed, ended.ended_at) == ("succeeded", 2, 0, clock.now)
    assert [row["number"] for row in store.results(job.id)] == [1, 2]


def test_job_without_any_prediction_is_failed(store: JobStore) -> None:
    job = add(store)
    finish_all(store, error={"code": "image_undecodable"})

    assert (store.get(job.id).state, store.get(job.id).failed) == ("failed", 2)


def test_job_with_one_prediction_is_succeeded(store: JobStore) -> None:
    job = add(store)
    first, second = store.claim(), store.claim()
    assert first
    assert second
    store.finish(first, {"number": 1, "error": {}})
    store.finish(second, {"number": 2})

    assert (store.get(job.id).state, store.get(job.id).failed) == ("succeeded", 1)


def test_second_result_of_an_image_is_not_written(store: JobStore) -> None:
    job = add(store, 1)
    claim = store.claim()
    assert claim
    ended = store.finish(claim, {"number": 1, "who": "first"})

    assert ended is not None
    assert store.finish(claim, {"number": 1, "who": "second"}) is None
    assert [row["who"] for row in store.results(job.id)] == ["first"]
    assert store.get(job.id).done == 1


def test_what_a_dead_worker_began_is_begun_again_and_counted(store: JobStore, make_store: MakeStore) -> None:
    job = add(store, 1)
    before = store.claim()
    assert before
    assert store.claim() is None

    end(store)
    after = make_store()
    assert after.recover() == 1
    claim = after.claim()
    assert claim
    assert (claim.number, claim.attempt) == (before.number, 2)
    assert after.finish(claim, {"number": 1}) is not None
    assert store.get(job.id).done == 1


def test_what_the_dead_worker_had_done_stays_done(store: JobStore, make_store: MakeStore) -> None:
    add(store, 2)
    claim = store.claim()
    assert claim
    store.finish(claim, {"number": 1})

    end(store)
    assert make_store().recover() == 0
    assert make_store().claim().number == 2  # type: ignore[union-attr]


def test_release_without_fault_is_not_counted(store: JobStore) -> None:
    add(store, 1)
    for is_counted, attempt in ((False, 1), (True, 1), (True, 2), (False, 3)):
        claim = store.claim()
        assert claim
        assert claim.attempt == attempt
        store.release(claim, is_counted=is_counted)


def test_result_that_could_not_be_written_is_predicted_again(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = add(store, 1)
    claim = store.claim()
    assert claim
    with monkeypatch.context() as patch:
        for name, place in (("transaction", "_quick"), ("run", "_link")):
            if hasattr(store, place):
                patch.setattr(getattr(store, place), name, refuse)
        with pytest.raises(StateUnusableError):
            store.finish(claim, {"number": 1})
        with pytest.raises(StateUnusableError):
            store.renew()
    assert store.claim() is None

    store.renew()
    again = store.claim()
    assert again
    assert (again.number, again.attempt) == (1, 1)
    assert store.finish(again, {"number": 1}) is not None
    store.renew()
    assert store.get(job.id).done == 1


def refuse(*_: object) -> None:
    raise StateUnusableError("The disk is full.")


def test_jobs_take_turns(store: JobStore) -> None:
    large, small = add(store, 4), add(store, 2)
    order = [claim.job_id for claim in iter(store.claim, None)]

    assert order == [large.id, small.id, large.id, small.id, large.id, large.id]


def test_one_process_at_a_time_is_the_worker(store: JobStore, make_store: MakeStore) -> None:
    import os

    held = store.lock()
    assert held is not None
    assert make_store().lock() is None
    os.close(held)
    assert make_store().lock() is not None


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_go_with_the_jobs_end(store: JobStore) -> None:
    job = add(store)
    store.sweep()
    assert images(store) == {job.id}
    assert files(store, "incoming") == []

    finish_all(store)
    store.sweep()
    assert images(store) == set()


def test_images_are_for_the_owner_alone(disk_store: DiskStore) -> None:
    job = add(disk_store)
    (pack,) = files(disk_store, "images")
    assert pack.name == job.id
    assert stat.S_IMODE(pack.stat().st_mode) == 0o600
    assert stat.S_IMODE(pack.parent.stat().st_mode) == 0o700


def test_upload_that_is_refused_leaves_nothing(store: JobStore) -> None:
    with pytest.raises(TooManyImagesError, match="more than 5 images"):
        add(store, 6)

    assert files(store, "incoming") == []
    assert store.list() == []


def test_upload_that_nobody_finished_is_swept_away_when_it_is_old(store: JobStore) -> None:
    import os

    add(store)
    left, fresh = store.folder / "incoming" / "left", store.folder / "incoming" / "fresh"
    left.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(left, (1, 1))

    store.sweep()

    assert [path.name for path in files(store, "incoming")] == ["fresh"]


def test_images_of_no_job_are_swept_away(disk_store: DiskStore) -> None:
    job = add(disk_store)
    (disk_store.folder / "images" / "of-no-job").write_bytes(b"x")

    disk_store.sweep()

    assert images(disk_store) == {job.id}


@pytest.mark.parametrize(
    ("limits", "kind"), [({"max_image_bytes": 100}, ImageTooLargeError), ({"max_bytes": 100}, RequestTooLargeError)]
)
def test_bytes_are_limited(make_store: MakeStore, limits: dict[str, int], kind: type[Exception]) -> None:
    with pytest.raises(kind, match="100 bytes"):
        add(make_store(**limits), 1)


def test_lost_images_are_an_error_of_the_image(store: JobStore) -> None:
    job = add(store, 1)
    if isinstance(store, RedisStore):
        ask(store, "DEL", f"{PREFIX}images:{job.id}")
    else:
        shutil.rmtree(store.folder / "images")

    claim = store.claim()

    assert claim
    assert claim.data == b""


# ── room ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_more_jobs_than_may_wait(store: JobStore) -> None:
    for _ in range(3):
        add(store, 1)
    with pytest.raises(JobsFullError, match="3 jobs wait or run; at most 3 may") as caught:
        add(store, 1)
    assert caught.value.retry_after_seconds

    finish_all(store)
    add(store, 1)


def test_no_more_bytes_than_jobs_may_take(store: JobStore, make_store: MakeStore) -> None:
    add(store, 1)
    with pytest.raises(StorageFullError, match="at most 5000 are theirs"):
        add(make_store(max_disk_bytes=5000), 1)
    assert len(store.list()) == 1


def test_full_disk_is_told_so(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_packs, "RESERVED_BYTES", 2**60)
    with pytest.raises(StorageFullError, match="no room for the images"):
        add(store, 1)
    assert files(store, "incoming") == []


def test_folder_that_cannot_be_written_is_told_so(store: JobStore, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("in the way")
    with pytest.raises(StateUnusableError):
        add(store, 1)


# ── whose ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_others_do_not_see_a_job(store: JobStore) -> None:
    job = add(store, owner="anna")

    assert store.get(job.id, "anna").id == store.get(job.id).id == job.id
    assert [each.id for each in store.list("anna")] == [job.id]
    assert store.list("bert") == []
    for call in (store.get, store.remove):
        with pytest.raises(JobNotFoundError):
            call(job.id, "bert")


def test_removed_job_is_gone_with_its_images_and_a_late_result_is_dropped(store: JobStore) -> None:
    job = add(store)
    claim = store.claim()
    assert claim
    store.remove(job.id)

    assert images(store) == set()
    assert store.finish(claim, {"number": 1}) is None
    assert store.results(job.id) == []
    with pytest.raises(JobNotFoundError, match=job.id):
        store.get(job.id)


def test_list_goes_back_page_by_page(store: JobStore, clock: FakeClock) -> None:
    ids = []
    for _ in range(3):
        clock.now += 1
        ids.append(add(store, 1).id)

    assert [job.id for job in store.list(limit=2)] == ids[:0:-1]
    assert [job.id for job in store.list(limit=2, before=ids[1])] == ids[:1]


# ── once ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_same_key_and_same_images_are_the_same_job(store: JobStore) -> None:
    job, is_new = add_twice(store, key="mine")
    again, is_new_again = add_twice(store, key="mine")

    assert (is_new, is_new_again, again.id) == (True, False, job.id)
    assert images(store) == {job.id}
    assert files(store, "incoming") == []


@pytest.mark.parametrize("other", [{"count": 1}, {"params": {"max_results": 1}}, {"task": "classify"}])
def test_same_key_for_another_job_is_refused(store: JobStore, other: dict[str, object]) -> None:
    add(store, key="mine")
    with pytest.raises(IdempotencyError, match="'mine'"):
        add(store, **{"key": "mine", **other})  # type: ignore[arg-type]
    assert len(store.list()) == 1


def test_keys_belong_to_their_owners(store: JobStore) -> None:
    assert add(store, owner="anna", key="k").id != add(store, 1, owner="bert", key="k").id


def _add_with_key(folder: Path, url: str, answers: multiprocessing.Queue[str]) -> None:
    from tests.unit.jobs.conftest import LIMITS

    store = RedisStore(folder, LIMITS, Link(url, "here")) if url else DiskStore(folder, LIMITS)
    answers.put(add(store, key="same").id)


def test_processes_that_send_the_same_at_once_get_one_job(store: JobStore, tmp_path: Path) -> None:
    # Not by fork: another thread of this process may be inside SQLite, whose locks the child would find taken for ever.
    # So they are forks of a process that has nothing but these modules.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.unit.jobs.conftest"])
    answers: multiprocessing.Queue[str] = context.Queue()
    url = store._link._redis._url if isinstance(store, RedisStore) else ""
    callers = [context.Process(target=_add_with_key, args=(tmp_path, url, answers)) for _ in range(6)]
    for caller in callers:
        caller.start()
    ids = {answers.get(timeout=60) for _ in callers}
    for caller in callers:
        caller.join()

    assert len(ids) == len(store.list()) == 1


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_results_expire_and_later_the_job_is_forgotten(store: JobStore, clock: FakeClock) -> None:
    job = add(store)
    finish_all(store)

    clock.now += 599.9
    assert store.expire() == 0
    assert store.get(job.id).state == "succeeded"

    clock.now += 0.1
    assert store.get(job.id).state == "expired"
    assert store.expire() == 1
    assert store.results(job.id) == []
    assert store.get(job.id).state == "expired"

    clock.now += 600
    store.expire()
    with pytest.raises(JobNotFoundError):
        store.get(job.id)


def test_open_jobs_do_not_expire(store: JobStore, clock: FakeClock) -> None:
    job = add(store)
    clock.now += 1e7

    assert store.expire() == 0
    assert store.get(job.id).state == "queued"


def test_counts_tell_states_and_waiting_images(store: JobStore) -> None:
    add(store, 3)
    add(store, 2)
    store.claim()

    assert store.counts() == {"queued": 1, "running": 1, "images_waiting": 5}


# ── again ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_without_a_prediction_are_tried_again(store: JobStore) -> None:
    job = add(store, 3, webhook_url="https://ear.example/")
    for number in (1, 2, 3):
        claim = store.claim()
        assert claim
        store.finish(claim, {"number": number, **({"error": {}} if number == 2 else {})})
    store.sweep()
    assert images(store) == {job.id}
    store.note_webhook(job.id, attempts=1, error="", next_at=None)

    again = store.retry(job.id)
    assert (again.state, again.done, again.failed, again.ended_at) == ("queued", 2, 0, None)
    assert again.webhook is not None
    assert again.webhook.state == "waiting"
    claim = store.claim()
    assert claim
    assert (claim.number, claim.data) == (2, picture(colour=(1, 0, 0)))
    store.finish(claim, {"number": 2})
    store.sweep()

    assert store.get(job.id).failed == 0
    assert [row["number"] for row in store.results(job.id)] == [1, 2, 3]
    assert images(store) == set()


def test_only_an_ended_job_with_failures_is_tried_again(store: JobStore, clock: FakeClock) -> None:
    good = add(store, 1)
    with pytest.raises(ChangeRefusedError, match="queued"):
        store.retry(good.id)
    finish_all(store)
    with pytest.raises(ChangeRefusedError, match="0 images"):
        store.retry(good.id)

    bad = add(store, 1)
    finish_all(store, error={})
    clock.now += 601
    with pytest.raises(ChangeRefusedError, match="expired"):
        store.retry(bad.id)
    store.expire()
    store.sweep()
    assert images(store) == set()


def test_results_outlive_a_clock_that_jumps(tmp_path: Path, clock: FakeClock) -> None:
    boot = FakeClock(50.0)
    store = DiskStore(tmp_path, LIMITS, clock, lambda: ("this boot", boot()))
    job = add(store, 1)
    finish_all(store)

    clock.now += 10 * LIMITS.keep_seconds
    boot.now += LIMITS.keep_seconds - 1
    assert store.expire() == 0
    assert store.get(job.id).state == "succeeded"
    boot.now += 1
    assert store.get(job.id).state == "expired"
    assert store.expire() == 1


def test_after_a_start_of_the_machine_the_time_of_day_counts(tmp_path: Path, clock: FakeClock) -> None:
    store = DiskStore(tmp_path, LIMITS, clock, lambda: ("this boot", 1e6))
    job = add(store, 1)
    finish_all(store)
    later = DiskStore(tmp_path, LIMITS, clock, lambda: ("the next boot", 5.0))

    assert later.get(job.id).state == "succeeded"
    clock.now += LIMITS.keep_seconds
    assert later.get(job.id).state == "expired"
