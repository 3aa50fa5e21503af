"""The search finds a limit that is there, promises only what passed a longer run, and gives up where nothing holds."""

from __future__ import annotations

import itertools
import random

import pytest

from loadtest.checks import Check, Verdict
from loadtest.search import RUNS_MOST, Search, search
from loadtest.statuses import LoadTestError, Status


def run(limit: float, start: float = 4.0, most: float = 4096.0, confirming_limit: float | None = None) -> Search:
    """A search on a server that bears a rate and not more; the longer run may show less."""

    def probe(rate: float, is_confirmation: bool) -> Verdict:
        bound = confirming_limit if is_confirmation and confirming_limit is not None else limit
        return Verdict(Status.PASS if rate <= bound else Status.FAIL, [], {})

    return search(probe, start, most)


@pytest.mark.parametrize("limit", [0.5, 3.0, 4.0, 37.0, 390.0, 4000.0])
def test_the_limit_is_found_from_below_within_the_resolution(limit: float) -> None:
    found = run(limit)

    assert limit / 1.05 <= found.capacity_rps <= limit
    assert found.lowest_failing_rps > limit


def test_what_passes_everywhere_is_as_much_as_may_be_tried() -> None:
    found = run(1e9, most=100)

    assert (found.capacity_rps, found.lowest_failing_rps) == (100, None)


def test_a_server_that_bears_nothing_has_no_capacity_and_is_tried_a_few_times_only() -> None:
    found = run(0)

    assert found.capacity_rps == 0
    assert len(found.steps) < 10
    assert "not even" in found.reason


def test_the_promise_is_what_the_longer_run_confirmed() -> None:
    found = run(100, confirming_limit=80)

    assert 80 / 1.05 <= found.capacity_rps <= 80
    assert found.steps[-1].is_confirmation


def test_runs_that_are_used_up_are_no_pass() -> None:
    """Every other probe says the contrary: nothing is ever sure of two ends."""
    tried: list[float] = []

    def probe(rate: float, _: bool) -> Verdict:
        tried.append(rate)
        return Verdict(Status.PASS if rate <= 100 and len(tried) % 3 else Status.FAIL, [], {})

    found = search(probe, 1.0, 4096.0)

    assert len(found.steps) <= RUNS_MOST
    assert (found.status == Status.UNDECIDED) == found.is_used_up
    assert not found.is_used_up or f"{RUNS_MOST} runs" in found.reason


def test_a_server_that_never_holds_for_long_uses_no_run_in_vain_and_is_no_pass() -> None:
    found = run(100, start=1.0, confirming_limit=0)

    assert found.status != Status.PASS
    assert found.capacity_rps == 0
    assert not any(step.is_confirmation and step.verdict.status == Status.PASS for step in found.steps)


# ── Disturbed probes ─────────────────────────────────────────────────────────────────────────────────────────────────

TRUE = 177.0


def disturbed(told: dict[int, Status], limit: float = TRUE) -> Search:
    """A server that bears a rate; the probes with these numbers, from 1 on, say something else."""
    count = itertools.count(1)

    def probe(rate: float, _: bool) -> Verdict:
        return Verdict(told.get(next(count), Status.PASS if rate <= limit else Status.FAIL), [], {})

    return search(probe, 4, 4096)


@pytest.mark.parametrize("limit", [0.5, 3.0, 37.0, TRUE, 1000.0])
@pytest.mark.parametrize("status", [Status.FAIL, Status.PASS, Status.UNDECIDED])
def test_no_single_disturbed_probe_moves_the_capacity(status: Status, limit: float) -> None:
    for number in range(1, RUNS_MOST + 1):
        found = disturbed({number: status}, limit)
        assert found.capacity_rps == pytest.approx(limit, rel=0.1), number
        assert found.status == Status.PASS
        assert len(found.steps) <= RUNS_MOST


@pytest.mark.parametrize("numbers", [(1, 2), (2, 3), (1, 3), (1, 2, 3)])
def test_the_first_probes_may_fail_together(numbers: tuple[int, ...]) -> None:
    found = disturbed(dict.fromkeys(numbers, Status.FAIL))

    assert found.capacity_rps == pytest.approx(TRUE, rel=0.1)
    assert found.status == Status.PASS
    assert len(found.steps) <= RUNS_MOST


def test_many_disturbed_searches_pass_near_the_truth_or_do_not_pass() -> None:
    """One probe in twenty says the contrary, at random."""
    far = passed = 0
    for seed in range(300):
        chance = random.Random(seed)  # noqa: S311 - chance, not a secret

        def probe(rate: float, _: bool, chance: random.Random = chance) -> Verdict:
            return Verdict(Status.PASS if (rate <= TRUE) != (chance.random() < 0.05) else Status.FAIL, [], {})

        found = search(probe, 4, 4096)
        passed += found.status == Status.PASS
        far += found.status == Status.PASS and abs(found.capacity_rps / TRUE - 1) > 0.1

    assert passed > 255
    assert far <= 12


def test_a_server_that_holds_nothing_for_long_has_no_capacity() -> None:
    found = run(5, start=4.0, confirming_limit=0)

    assert (found.capacity_rps, found.steps[-1].is_confirmation) == (0, True)
    assert found.reason


def test_a_rate_that_failed_by_a_stall_of_the_machine_is_tried_again_for_longer() -> None:
    """Bears 100 a second; short runs from 60 on fail once each, as if somebody else had the machine just then."""
    seen: set[float] = set()

    def probe(rate: float, is_confirmation: bool) -> Verdict:
        is_stalled = rate > 60 and not is_confirmation and rate not in seen and len(seen) < 4
        seen.add(rate) if is_stalled else None
        return Verdict(Status.PASS if rate <= 100 and not is_stalled else Status.FAIL, [], {})

    found = search(probe, 4, 4096)

    assert 100 / 1.05**2 <= found.capacity_rps <= 100 < found.lowest_failing_rps
    assert found.lowest_failing_rps / found.capacity_rps <= 1.051


def test_both_ends_were_seen_in_a_longer_run() -> None:
    found = run(100)

    longer = {step.rate: step.verdict.status for step in found.steps if step.is_confirmation}
    assert longer == {found.capacity_rps: Status.PASS, found.lowest_failing_rps: Status.FAIL}


def test_an_upper_end_whose_longer_run_cannot_be_measured_does_not_end_the_search() -> None:
    def probe(rate: float, is_confirmation: bool) -> Verdict:
        if rate <= 50:
            return Verdict(Status.PASS, [], {})
        return invalid() if is_confirmation else Verdict(Status.FAIL, [], {})

    found = search(probe, 4, 4096)

    assert 47 < found.capacity_rps <= 50
    assert "generator lag" in found.not_measured


def test_what_was_confirmed_needs_no_reason() -> None:
    assert run(37).reason == ""


def test_what_cannot_be_decided_is_not_promised() -> None:
    found = search(lambda rate, _: Verdict(Status.PASS if rate < 50 else Status.UNDECIDED, [], {}), 4, 4096)

    assert found.capacity_rps < 50


def invalid() -> Verdict:
    return Verdict(Status.INVALID, [Check("generator lag p99", Status.INVALID, "33.4 ms", "10 ms")], {})


def test_an_invalid_run_is_repeated_twice_and_then_ends_a_search_that_has_found_nothing() -> None:
    tried = []

    def probe(rate: float, _: bool) -> Verdict:
        tried.append(rate)
        return invalid()

    with pytest.raises(LoadTestError, match=r"generator lag p99 33\.4 ms"):
        search(probe, 4, 4096)
    assert tried == [4, 4, 4]


def test_what_cannot_be_measured_is_not_looked_beyond_and_named() -> None:
    found = search(lambda rate, _: invalid() if rate > 50 else Verdict(Status.PASS, [], {}), 4, 4096)

    assert 47 < found.capacity_rps <= 50 < (found.lowest_failing_rps or 0)
    assert found.not_measured == "could not be measured, 3 times: generator lag p99 33.4 ms"
    assert not found.reason


def test_a_limit_that_was_seen_is_not_called_unmeasured() -> None:
    def probe(rate: float, _: bool) -> Verdict:
        return invalid() if rate > 60 else Verdict(Status.PASS if rate < 50 else Status.FAIL, [], {})

    assert search(probe, 4, 4096).not_measured == ""


def test_a_confirming_run_that_cannot_be_measured_is_tried_lower() -> None:
    def probe(rate: float, is_confirmation: bool) -> Verdict:
        if is_confirmation and rate > 60:
            return invalid()
        return Verdict(Status.PASS if rate < 64 else Status.FAIL, [], {})

    found = search(probe, 4, 4096)

    assert 60 / 1.05 <= found.capacity_rps <= 60
    assert "generator lag" in found.not_measured


def test_confirming_runs_that_cannot_be_measured_at_three_rates_end_the_search() -> None:
    asked: set[float] = set()

    def probe(rate: float, is_confirmation: bool) -> Verdict:
        asked.add(rate) if is_confirmation else None
        return invalid() if is_confirmation else Verdict(Status.PASS if rate < 64 else Status.FAIL, [], {})

    with pytest.raises(LoadTestError, match="could not be measured"):
        search(probe, 4, 4096)
    assert len(asked) == 3


@pytest.mark.parametrize(("busy_from", "is_doubted"), [(0, True), (177, True), (1e9, False)])
def test_a_rate_that_fails_on_a_busy_machine_only_is_not_said_to_be_too_much(
    busy_from: float, is_doubted: bool
) -> None:
    machine = {"is_shared": True, "cores": 2, "load": 11.0, "steal_share": 0.0, "others_share": 0.9}

    def probe(rate: float, _: bool) -> Verdict:
        figures = {"machine": machine} if rate >= busy_from else {}
        return Verdict(Status.PASS if rate <= 177 else Status.FAIL, [], figures)

    found = search(probe, 4, 4096)

    assert found.status == Status.PASS
    assert ("other programs on 90% of its 2 cores, load 11.0" in found.not_measured) == is_doubted
