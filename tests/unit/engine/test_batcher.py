"""The batcher: who goes together, in which order, how many may wait, and when somebody must look again."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.engine.batcher import Batch, Batcher, Limits, Work
from app.errors import EngineBusyError

NEVER = 1e9


def work(model_key: str = "a", shape: object = 1, arrived: float = 0.0, deadline: float = NEVER) -> Work:
    return Work(model_key, shape, arrived, deadline)


def batcher(max_queue_size: int = 100, **limits: Limits) -> Batcher:
    made = Batcher(max_queue_size)
    for key, each in (limits or {"a": Limits(4)}).items():
        made.register(key, each)
    return made


def taken(batch: Batch | None) -> list[Work]:
    assert batch is not None
    return batch.works


def test_whoever_is_free_takes_at_once_what_waits() -> None:
    queue = batcher(a=Limits(8, max_queue_delay_ms=0))
    works = [work(), work()]
    queue.submit(works)

    assert taken(queue.take(0.0)) == works
    assert queue.take(0.0) is None


def test_batch_is_never_larger_than_its_limit_and_oldest_go_first() -> None:
    queue = batcher(a=Limits(2))
    works = [work() for _ in range(5)]
    queue.submit(works)

    batches = [taken(queue.take(0.0)) for _ in range(3)]

    assert batches == [works[:2], works[2:4], works[4:]]


@pytest.mark.parametrize(("waiting", "sizes"), [(1, [1]), (2, [1, 1]), (7, [4, 2, 1]), (20, [8, 6, 3, 2, 1])])
def test_each_worker_takes_its_part_so_that_none_stands_idle(waiting: int, sizes: list[int]) -> None:
    queue = Batcher(100, workers=2)
    queue.register("a", Limits(8))
    queue.submit([work() for _ in range(waiting)])

    assert [len(taken(queue.take(0.0))) for _ in sizes] == sizes
    assert queue.take(0.0) is None


def test_batch_that_is_not_full_waits_for_others_to_join() -> None:
    queue = batcher(a=Limits(3, max_queue_delay_ms=50))
    first, second = work(arrived=10.0), work(arrived=10.03)
    queue.submit([first])
    queue.submit([second])

    assert queue.take(10.049) is None
    assert taken(queue.take(10.05)) == [first, second]


def test_full_batch_does_not_wait() -> None:
    queue = batcher(a=Limits(2, max_queue_delay_ms=1000))
    works = [work(arrived=10.0), work(arrived=10.0)]
    queue.submit(works)

    assert taken(queue.take(10.0)) == works


def test_shapes_are_not_mixed_and_a_rare_shape_keeps_its_turn() -> None:
    queue = batcher(a=Limits(4))
    wide, tall = [work(shape="wide") for _ in range(3)], [work(shape="tall") for _ in range(2)]
    queue.submit([wide[0], tall[0], wide[1], tall[1], wide[2]])

    assert taken(queue.take(0.0)) == wide
    assert taken(queue.take(0.0)) == tall


def test_models_take_turns() -> None:
    queue = batcher(a=Limits(1), b=Limits(1))
    queue.submit([work("a") for _ in range(3)] + [work("b")])

    turns = [queue.take(0.0) for _ in range(4)]

    assert [batch.model_key for batch in turns if batch] == ["a", "b", "a", "a"]


def test_model_whose_batch_is_not_due_does_not_hold_up_another() -> None:
    queue = batcher(a=Limits(8, max_queue_delay_ms=1000), b=Limits(8))
    queue.submit([work("a"), work("b")])

    assert taken(queue.take(0.0))[0].model_key == "b"
    assert queue.take(0.0) is None


def test_works_that_do_not_all_fit_are_all_refused() -> None:
    queue = batcher(max_queue_size=3)
    queue.submit([work(), work()])

    with pytest.raises(EngineBusyError, match="2 images wait already; at most 3 may") as caught:
        queue.submit([work(), work()])

    assert len(queue) == 2
    assert caught.value.retry_after_seconds


def test_queue_is_bounded_over_all_models_together() -> None:
    queue = batcher(max_queue_size=2, a=Limits(), b=Limits())
    queue.submit([work("a"), work("b")])

    with pytest.raises(EngineBusyError):
        queue.submit([work("b")])


def test_place_in_the_queue_is_free_again_when_work_is_taken() -> None:
    queue = batcher(max_queue_size=1)
    queue.submit([work()])
    queue.take(0.0)

    queue.submit([work()])

    assert len(queue) == 1


def test_sweep_takes_out_what_is_past_its_deadline() -> None:
    queue = batcher()
    late, timely = work(deadline=5.0), work(deadline=5.1)
    queue.submit([late, timely])

    assert queue.sweep(5.0) == [late]
    assert taken(queue.take(5.0)) == [timely]


def test_sweep_takes_out_what_nobody_waits_for() -> None:
    queue = batcher()
    given_up, wanted = work(), work()
    queue.submit([given_up, wanted])
    given_up.is_cancelled = True

    assert queue.sweep(0.0) == [given_up]
    assert (len(queue), taken(queue.take(0.0))) == (1, [wanted])


def test_nothing_waits_so_nobody_need_wake() -> None:
    assert batcher().wake_at() is None


def test_wake_at_is_when_the_batch_is_due() -> None:
    queue = batcher(a=Limits(4, max_queue_delay_ms=250))
    queue.submit([work(arrived=10.0)])

    assert queue.wake_at() == 10.25


def test_wake_at_is_when_the_first_deadline_passes_if_that_is_earlier() -> None:
    queue = batcher(a=Limits(4, max_queue_delay_ms=1000), b=Limits(4, max_queue_delay_ms=1000))
    queue.submit([work("a", arrived=10.0), work("b", arrived=10.0, deadline=10.1)])

    assert queue.wake_at() == 10.1


def test_limits_of_a_model_can_be_changed_while_work_waits() -> None:
    queue = batcher(a=Limits(4))
    queue.submit([work(), work()])

    queue.register("a", Limits(1))

    assert len(taken(queue.take(0.0))) == 1


def test_drain_takes_out_everything() -> None:
    queue = batcher(a=Limits(), b=Limits())
    works = [work("a"), work("b"), work("a")]
    queue.submit(works)

    assert sorted(map(id, queue.drain())) == sorted(map(id, works))
    assert (len(queue), queue.take(NEVER), queue.wake_at()) == (0, None, None)


@given(
    steps=st.lists(st.sampled_from(["slow", "slow", "slow", "a", "b", "take"]), max_size=200),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_no_model_is_shut_out_or_passed_over_by_another(steps: list[str], sizes: tuple[int, int]) -> None:
    """However one model floods the queue: whoever has little in it gets in and has its turn."""
    queue = batcher(max_queue_size=12, slow=Limits(sizes[0]), a=Limits(sizes[1]), b=Limits(1))
    passed_over: Counter[str] = Counter()
    for step in steps:
        if step == "take":
            batch = queue.take(0.0)
            for name in ("slow", "a", "b"):
                passed_over[name] += batch is not None and queue.waiting(name) > 0
            if batch is not None:
                passed_over[batch.model_key] = 0
        else:
            try:
                queue.submit([work(step)])
            except EngineBusyError:
                # Half of the last quarter, as there are two others.
                assert queue.waiting(step) + 1 > 12 / 4 / 2
        # Between two turns of a model every other one has one at most.
        assert max(passed_over.values(), default=0) <= 2


def test_versions_of_one_model_share_its_part_and_one_model_alone_has_the_whole_queue() -> None:
    queue = Batcher(4)
    queue.register("a@1", Limits())
    queue.register("a@2", Limits())

    queue.submit([work("a@1") for _ in range(4)])

    assert len(queue) == 4


class BatcherMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: nothing is lost, doubled, mixed or overtaken."""

    MAX_QUEUE_SIZE = 12

    @initialize(size=st.integers(1, 4), delay_ms=st.sampled_from([0, 10, 1000]))
    def begin(self, size: int, delay_ms: float) -> None:
        self.now = 0.0
        self.limits = Limits(size, delay_ms)
        self.queue = batcher(self.MAX_QUEUE_SIZE, a=self.limits, b=self.limits)
        self.waiting: list[Work] = []

    @rule(
        rows=st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.floats(0.001, 5)),
            max_size=MAX_QUEUE_SIZE + 1,
        )
    )
    def submit(self, rows: list[tuple[str, int, float]]) -> None:
        works = [work(key, shape, self.now, self.now + left) for key, shape, left in rows]
        fits = self._fits(works)
        try:
            self.queue.submit(works)
        except EngineBusyError:
            assert not fits
        else:
            assert fits
            self.waiting += works

    @rule(seconds=st.floats(0, 2))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=st.integers(0, 100))
    def cancel(self, number: int) -> None:
        if self.waiting:
            self.waiting[number % len(self.waiting)].is_cancelled = True

    @rule()
    def take(self) -> None:
        gone = self.queue.sweep(self.now)
        assert all(each.is_cancelled or each.deadline <= self.now for each in gone)
        self._remove(gone)
        batch = self.queue.take(self.now)
        if batch is None:
            assert all(self.now < each.arrived + self.limits.max_queue_delay_ms / 1000 for each in self._oldest())
            return
        alike = [each for each in self.waiting if self._kind(each) == self._kind(batch.works[0])]
        assert batch.works == alike[: self.limits.max_batch_size]
        assert not any(each.is_cancelled or each.deadline <= self.now for each in batch.works)
        self._remove(batch.works)

    @rule()
    def drain(self) -> None:
        self._remove(self.queue.drain())
        assert self.waiting == []

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "queue"):
            assert len(self.queue) == len(self.waiting)
            assert (self.queue.wake_at() is None) == (not self.waiting)

    def _fits(self, works: list[Work]) -> bool:
        """The last quarter is for models that have no more than those three places."""
        after = [*self.waiting, *works]
        busy = {each.model_key for each in works if self._count(after, each.model_key) > 3}
        return len(after) <= (9 if busy else self.MAX_QUEUE_SIZE)

    def _count(self, works: list[Work], key: str) -> int:
        return sum(each.model_key == key for each in works)

    def _kind(self, each: Work) -> tuple[str, object]:
        return each.model_key, each.shape

    def _oldest(self) -> list[Work]:
        firsts: dict[str, Work] = {}
        for each in self.waiting:
            firsts.setdefault(each.model_key, each)
        return list(firsts.values())

    def _remove(self, works: list[Work]) -> None:
        assert len(set(map(id, works))) == len(works)
        for each in works:
            self.waiting.remove(each)


TestBatcherMachine = BatcherMachine.TestCase
TestBatcherMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
