"""Requests that queue are no independent ones: bounds stay true for simulated queues, and useful for quiet servers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtest import batch_means
from loadtest.batch_means import evidence
from loadtest.schedule import Stage
from loadtest.statistics import share_bounds
from tests.unit import loadtest_queues
from tests.unit.loadtest_queues import Queue

RUNS = 40
CONFIDENCE = 0.95


@pytest.mark.parametrize("queue", list(loadtest_queues.queues()), ids=lambda queue: queue.name)
def test_a_queue_that_breaks_its_promise_passes_in_at_most_one_run_of_twenty(queue: Queue) -> None:
    for broken in loadtest_queues.BROKEN:
        assert loadtest_queues.false_passes(queue, broken, RUNS) <= 0.05


def test_bounds_over_single_requests_would_not_have_been_true() -> None:
    """What this room is for: the same runs, each request counted as independent."""
    queue, rng = Queue(1, 0.01, 0.9), np.random.default_rng(1)
    limit_ms = queue.limit_ms(rng, 0.08)
    runs = [queue.responses_ms(rng, 15) for _ in range(100)]

    passed = sum(share_bounds(int(np.sum(run > limit_ms)), run.size, CONFIDENCE)[1] <= 0.05 for run in runs)

    assert passed > 20


@pytest.mark.parametrize("queue", [Queue(1, 0.01, 0.5), Queue(1, 0.001, 0.8), Queue(4, 0.01, 0.8, is_by_chance=False)])
def test_a_queue_that_keeps_its_promise_well_passes_within_a_minute(queue: Queue) -> None:
    rng = np.random.default_rng(2)
    limit_ms = queue.limit_ms(rng, 0.005)
    runs = [queue.responses_ms(rng, loadtest_queues.RUN_SECONDS) for _ in range(20)]

    passed = sum(evidence(run > limit_ms, run, limit_ms, CONFIDENCE).bounds[1] <= 0.05 for run in runs)

    assert passed >= 16


@pytest.mark.parametrize("count", [70, 200, 1000])
def test_requests_that_do_not_wait_for_each_other_are_mostly_counted_one_by_one(count: int) -> None:
    rng = np.random.default_rng(3)
    runs = [rng.lognormal(2.5, 0.5, count) for _ in range(100)]

    single = sum(evidence(run > 60, run, 60, CONFIDENCE).independent == count for run in runs)

    assert single >= 90


def test_a_wander_far_below_the_limit_is_no_queue() -> None:
    """A processor that becomes a little quicker: 12 ms, then 11, against a limit of 500 ms."""
    responses = np.linspace(12, 11, 300) + np.random.default_rng(4).normal(0, 0.1, 300)

    assert evidence(responses > 500, responses, 500, CONFIDENCE).independent == 300
    assert evidence(responses > 13, responses, 13, CONFIDENCE).independent < 30


def test_one_long_stall_is_worth_little_and_many_short_ones_more() -> None:
    once, often = np.full(1000, 10.0), np.full(1000, 10.0)
    once[400:500] = 900
    often.reshape(20, 50)[:, :5] = 900

    one, many = (evidence(each > 500, each, 500, CONFIDENCE) for each in (once, often))

    assert one.share == many.share == 0.1
    assert one.bounds[0] < 0.05 < many.bounds[0]


def test_what_the_plan_changes_is_no_chance() -> None:
    """Two rates, the second slower for everybody: each is steady in itself."""
    stages = (Stage(50, 4, 4), Stage(50, 6, 6))
    intended = np.concatenate([np.arange(200) / 4, 50 + np.arange(300) / 6])
    responses = np.where(intended < 50, 100.0, 200.0) + np.random.default_rng(5).normal(0, 5, 500)
    strata = batch_means.strata_of(stages, intended)

    assert strata is not None
    assert evidence(responses > 500, responses, 500, CONFIDENCE, strata).independent == 500
    assert evidence(responses > 500, responses, 500, CONFIDENCE).independent < 50
    assert batch_means.strata_of(stages[:1], intended) is None


def test_a_ramp_is_judged_in_pieces() -> None:
    strata = batch_means.strata_of((Stage(10, 1, 1), Stage(50, 1, 9)), np.array([5.0, 12.0, 25.0, 59.0]))

    assert strata is not None
    assert strata.tolist() == [0, 1, 2, 5]


def test_how_much_longer_decides() -> None:
    none_late = evidence(np.zeros(100, bool), np.full(100, 10.0), 500, CONFIDENCE)
    borderline = evidence(np.arange(100) % 20 == 0, np.full(100, 10.0), 500, CONFIDENCE)

    # Without a late one, p99 takes 299 requests.
    assert 2.99 <= none_late.longer(0.01) <= 2.99 * 1.25
    assert borderline.longer(0.05) == math.inf


def test_words_say_how_many_are_independent() -> None:
    steady = evidence(np.zeros(100, bool), np.full(100, 10.0), 500, CONFIDENCE)
    queued = evidence(np.zeros(400, bool), np.repeat(np.arange(20) % 5 * 100.0, 20), 500, CONFIDENCE)

    assert steady.words("late") == "0 of 100 late: 0.00% … 2.95% at 95%"
    assert "(worth" in queued.words("late")


def test_no_requests_say_nothing() -> None:
    assert evidence(np.zeros(0, bool), np.zeros(0), 500, CONFIDENCE).bounds == (0.0, 1.0)
