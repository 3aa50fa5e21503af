"""The door to kept answers: found, computed once, kept; and whose trouble is whose."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.cache import single_flight
from app.cache.entries import Entry
from app.cache.guarded_store import GuardedStore
from app.cache.predictions import ANY_AGE, Computed, Freshness, PredictionCache
from app.errors import CaskError, DeadlineExceededError, EngineBusyError
from app.inference.results import Prediction
from app.storage.circuit_breaker import CircuitBreaker
from tests.fakes import PATIENCE_SECONDS, FakeClock, eventually

FAR = 3600.0


class Engine:
    """Computes answers, counts them, and can be held or made to fail."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[list[str]] = []
        self.error: CaskError | None = None
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def of(self, keys: Sequence[str]):  # type: ignore[no-untyped-def]
        def compute(numbers: Sequence[int]) -> list[Computed]:
            self.asked.append([keys[number] for number in numbers])
            self.entered.release()
            assert self.gate.wait(PATIENCE_SECONDS)
            if self.error:
                raise self.error
            return [Computed(entry(keys[number], self.clock.now), keys[number]) for number in numbers]

        return compute


def entry(label: str, kept_at: float) -> Entry:
    return Entry(64, 48, [Prediction(label, 1.0)], kept_at)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000.0)


@pytest.fixture
def engine(clock: FakeClock) -> Engine:
    return Engine(clock)


@pytest.fixture
def kept(store: GuardedStore, clock: FakeClock) -> PredictionCache:
    return PredictionCache(store, 60.0, clock)


def ask(
    kept: PredictionCache, engine: Engine, *keys: str, freshness: Freshness = ANY_AGE, seconds: float = FAR
) -> list[tuple[str, str]]:
    """Label and source of each answer."""
    found = kept.gather("classify", keys, engine.of(keys), time.monotonic() + seconds, freshness)
    return [(each.entry.answer[0].label, each.source) for each in found]


def forget_what_waits(kept: PredictionCache) -> None:
    """What is found from now on stood in the store."""
    kept.keeper.flush()
    assert not kept.keeper._waiting


def test_second_request_is_answered_from_the_store(kept: PredictionCache, engine: Engine, clock: FakeClock) -> None:
    assert ask(kept, engine, "a") == [("a", "miss")]
    forget_what_waits(kept)
    clock.now += 7
    found = kept.gather("classify", ["a"], engine.of(["a"]), time.monotonic() + FAR)

    assert [(each.source, each.age_seconds) for each in found] == [("hit", 7.0)]
    assert engine.asked == [["a"]]


def test_answer_that_is_not_written_yet_is_found(kept: PredictionCache, engine: Engine) -> None:
    ask(kept, engine, "a")

    assert ask(kept, engine, "a") == [("a", "hit")]


def test_only_what_is_missing_is_computed_and_each_key_once(kept: PredictionCache, engine: Engine) -> None:
    ask(kept, engine, "b")

    assert ask(kept, engine, "a", "b", "a", "c") == [("a", "miss"), ("b", "hit"), ("a", "miss"), ("c", "miss")]
    assert engine.asked == [["b"], ["a", "c"]]


def test_too_old_is_computed_anew(kept: PredictionCache, engine: Engine, clock: FakeClock) -> None:
    ask(kept, engine, "a")
    clock.now += 61

    assert ask(kept, engine, "a") == [("a", "miss")]


def test_callers_say_how_old_an_answer_may_be(kept: PredictionCache, engine: Engine, clock: FakeClock) -> None:
    ask(kept, engine, "a")
    clock.now += 10

    assert ask(kept, engine, "a", freshness=Freshness(10)) == [("a", "hit")]
    assert ask(kept, engine, "a", freshness=Freshness(9)) == [("a", "miss")]
    assert ask(kept, engine, "a", freshness=Freshness(0)) == [("a", "bypass")]


def test_answer_that_may_not_be_kept_is_not(kept: PredictionCache, engine: Engine) -> None:
    assert ask(kept, engine, "a", freshness=Freshness(may_keep=False)) == [("a", "bypass")]
    assert ask(kept, engine, "a") == [("a", "miss")]


def test_answer_goes_under_the_key_of_how_it_was_really_computed(kept: PredictionCache, clock: FakeClock) -> None:
    def compute(_: Sequence[int]) -> list[Computed]:
        return [Computed(entry("new form", clock.now), "a in its new form")]

    kept.gather("classify", ["a in its old form"], compute, time.monotonic() + FAR)

    assert kept.keeper.find("a in its old form") is None
    assert kept.keeper.find("a in its new form") is not None


def test_equal_requests_in_flight_are_computed_once(kept: PredictionCache, engine: Engine) -> None:
    engine.gate.clear()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(ask, kept, engine, "a")
        assert engine.entered.acquire(timeout=PATIENCE_SECONDS)
        others = [pool.submit(ask, kept, engine, "a") for _ in range(8)]
        eventually(lambda: waiting(kept, "a") == 8, "eight to wait")
        engine.gate.set()

        assert first.result() == [("a", "miss")]
        assert {each.result()[0] for each in others} == {("a", "shared")}
    assert engine.asked == [["a"]]


def waiting(kept: PredictionCache, key: str) -> int:
    flight = kept._flights._flights[key]
    return len(flight.followers)


def test_failure_of_the_first_is_its_own_and_the_next_one_computes(kept: PredictionCache, engine: Engine) -> None:
    engine.gate.clear()
    engine.error = EngineBusyError("full")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, kept, engine, "a")
        assert engine.entered.acquire(timeout=PATIENCE_SECONDS)
        others = [pool.submit(ask, kept, engine, "a") for _ in range(2)]
        eventually(lambda: waiting(kept, "a") == 2, "two to wait")
        engine.gate.set()
        with pytest.raises(EngineBusyError):
            first.result()
        engine.error = None

        # Who came next may have met the same failure; nobody hangs, and nobody gets a wrong answer.
        outcomes = [each.exception() or each.result() for each in others]
    assert all(isinstance(each, EngineBusyError) or each[0][0] == "a" for each in outcomes)
    assert kept._flights._flights == {}
    assert ask(kept, engine, "a")[0][0] == "a"


def test_whoever_vanishes_leaves_nobody_waiting(kept: PredictionCache, engine: Engine) -> None:
    def vanish(_: Sequence[int]) -> list[Computed]:
        raise SystemExit

    with pytest.raises(SystemExit):
        kept.gather("classify", ["a"], vanish, time.monotonic() + FAR)

    assert ask(kept, engine, "a") == [("a", "miss")]


def test_each_who_waits_keeps_its_own_deadline(kept: PredictionCache, engine: Engine) -> None:
    engine.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, kept, engine, "a")
        assert engine.entered.acquire(timeout=PATIENCE_SECONDS)
        with pytest.raises(DeadlineExceededError, match="equal request"):
            ask(kept, engine, "a", seconds=0.01)
        engine.gate.set()

        assert first.result() == [("a", "miss")]


def test_who_has_waited_half_of_its_time_for_another_computes_it(
    kept: PredictionCache, engine: Engine, clock: FakeClock
) -> None:
    engine.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(ask, kept, engine, "a", "b")
        assert engine.entered.acquire(timeout=PATIENCE_SECONDS)
        try:
            assert ask(kept, Engine(clock), "a", seconds=1.0) == [("a", "miss")]
        finally:
            engine.gate.set()

        assert stuck.result() == [("a", "miss"), ("b", "miss")]
    assert kept._flights._flights == {}


def test_two_who_wait_for_each_other_do_not_hang(kept: PredictionCache, engine: Engine) -> None:
    engine.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(ask, kept, engine, "a", "b")
        assert engine.entered.acquire(timeout=PATIENCE_SECONDS)
        other = pool.submit(ask, kept, engine, "c", "b", "a")
        assert engine.entered.acquire(timeout=PATIENCE_SECONDS)
        engine.gate.set()

        assert one.result(PATIENCE_SECONDS) == [("a", "miss"), ("b", "miss")]
        assert [label for label, _ in other.result(PATIENCE_SECONDS)] == ["c", "b", "a"]
    assert engine.asked == [["a", "b"], ["c"]]


def test_store_that_is_down_costs_nobody_an_answer(engine: Engine, clock: FakeClock) -> None:
    class Down:
        def get_many(self, *_: str) -> list[str]:
            raise ConnectionRefusedError

    def probe() -> None:
        raise ConnectionRefusedError

    kept = PredictionCache(GuardedStore(Down(), CircuitBreaker("store", probe)), 60.0, clock)

    assert ask(kept, engine, "a") == [("a", "miss")]
    assert ask(kept, engine, "b") == [("b", "miss")]
    assert kept.store.breaker.state == "open"


def test_what_is_too_much_is_dropped(kept: PredictionCache, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cache.writer.MAX_WAITING", 1)
    monkeypatch.setattr("app.cache.writer.PERIOD_SECONDS", FAR)

    ask(kept, engine, "a", "b", "c")

    assert list(kept.keeper._waiting) == ["a"]


def test_answer_that_comes_while_others_are_written_is_written_too(
    store: GuardedStore, clock: FakeClock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.writer.PERIOD_SECONDS", 0.0)
    kept, write, written = PredictionCache(store, 60.0, clock), store.set_many, list[str]()

    def set_many(rows: dict[str, str]) -> bool:
        if not written:
            ask(kept, engine, "late")
        written.extend(rows)
        return write(rows)

    monkeypatch.setattr(store, "set_many", set_many)
    ask(kept, engine, "early")

    eventually(lambda: written == ["early", "late"] and not kept.keeper._waiting, "both to be written")


def test_what_cannot_be_written_is_dropped_and_the_next_is_written(
    store: GuardedStore, clock: FakeClock, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.writer.PERIOD_SECONDS", 0.0)
    kept, write, tried = PredictionCache(store, 60.0, clock), store.set_many, list[str]()

    def set_many(rows: dict[str, str]) -> bool:
        tried.extend(rows)
        if "bad" in rows:
            raise ValueError("this one")
        return write(rows)

    monkeypatch.setattr(store, "set_many", set_many)
    for name in ("bad", "good"):
        ask(kept, engine, name)
        eventually(lambda: not kept.keeper._waiting, "it to be written or dropped")

    assert tried == ["bad", "good"]


def test_few_wait_for_an_equal_request_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "MOMENT_SECONDS", 0.01)
    made = single_flight.Flights(most_waiting=1)
    led, _ = made.join(["a"])
    deadline = time.monotonic() + PATIENCE_SECONDS
    with ThreadPoolExecutor(1) as pool:
        waiting_one = pool.submit(made.follow, led["a"], deadline)
        eventually(lambda: made._waiting == 1, "one to wait")
        with pytest.raises(EngineBusyError, match="Too many wait for the answer to an equal request"):
            made.follow(led["a"], deadline)
        made.land("a", led["a"], None)

        assert waiting_one.result() is True
    assert led["a"].entry is None
    with pytest.raises(DeadlineExceededError):
        made.follow(single_flight.Flight(), time.monotonic())
