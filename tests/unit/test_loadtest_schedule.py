"""Arrivals: right in number, at the right moments, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest import profiles, schedule
from loadtest.schedule import Stage
from loadtest.statistics import least_requests
from loadtest.statuses import UsageError


def level(seconds: float, rate: float) -> Stage:
    return Stage(seconds, rate, rate)


def test_constant_arrivals_are_evenly_spaced_from_half_a_step() -> None:
    moments = schedule.arrivals([level(2, 5)], "constant", 0)

    assert moments.tolist() == pytest.approx([0.1 + 0.2 * number for number in range(10)])


def test_a_ramp_has_as_many_arrivals_as_the_area_below_it_and_grows_denser() -> None:
    moments = schedule.arrivals([Stage(10, 0, 20)], "constant", 0)

    assert moments.size == 100
    assert moments.max() < 10
    # A quarter of the area lies below half of the time.
    assert np.sum(moments < 5) == 25


def test_stages_follow_each_other() -> None:
    moments = schedule.arrivals([level(2, 10), level(3, 0), level(2, 10)], "constant", 0)

    assert [int(np.sum((moments >= begin) & (moments < end))) for begin, end in ((0, 2), (2, 5), (5, 7))] == [20, 0, 20]


def test_poisson_arrivals_come_by_chance_at_the_right_rate() -> None:
    gaps = np.diff(schedule.arrivals([level(1000, 20)], "poisson", 7))

    assert gaps.mean() == pytest.approx(1 / 20, rel=0.03)
    # Mean and spread of an exponential are the same; an even spacing has no spread.
    assert gaps.std() == pytest.approx(1 / 20, rel=0.05)


def test_the_same_seed_gives_the_same_moments_and_another_seed_others() -> None:
    first, again, other = (schedule.arrivals([level(10, 20)], "poisson", seed) for seed in (3, 3, 4))

    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_workers_together_send_every_arrival_once() -> None:
    moments = schedule.arrivals([level(10, 20)], "poisson", 3)

    shares = [schedule.share_of_worker(moments, worker, 3) for worker in range(3)]

    assert sorted(np.concatenate(shares).tolist()) == moments.tolist()


# ── Profiles ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", profiles.names())
def test_each_profile_can_be_read_and_asks_a_question(name: str) -> None:
    profile = profiles.read_profile(name, capacity_rps=50)

    assert profile.question.endswith((".", "?"))
    assert profile.model == "closed" or schedule.highest_rate(profile.stages) > 0


@pytest.mark.parametrize("name", [name for name in profiles.names() if name != "single"])
def test_each_open_profile_sends_enough_at_fifty_a_second_for_what_it_claims(name: str) -> None:
    profile = profiles.read_profile(name, capacity_rps=50)

    moments = schedule.arrivals(profile.stages, "constant", 0)

    judged = np.sum(moments >= profile.judged_from)
    assert judged >= max(least_requests(share, 0.95) for share in profile.claims)


def test_a_share_of_the_capacity_becomes_a_rate() -> None:
    assert profiles.read_profile("baseline", capacity_rps=50).stages[0].to_rate == 30


def test_a_share_without_a_measured_capacity_says_how_to_measure_it() -> None:
    with pytest.raises(UsageError, match="make loadtest-search"):
        profiles.read_profile("baseline")


def test_a_misspelt_profile_is_told_the_near_one() -> None:
    with pytest.raises(UsageError, match="Did you mean 'smoke'"):
        profiles.read_profile("smok")


def test_an_unknown_key_of_a_profile_is_named(tmp_path) -> None:
    path = tmp_path / "profiles.toml"
    path.write_text('[odd]\nquestion = "?"\nmix = "callers"\nspeed = 3\nstages = [{ seconds = 1, rate = 1 }]\n')

    with pytest.raises(UsageError, match="speed"):
        profiles.read_profile("odd", path=path)


def test_a_rate_replaces_the_stages_and_keeps_the_warm_up_on_top() -> None:
    profile = profiles.with_rate(profiles.read_profile("smoke"), rate=20, seconds=10)

    assert profile.stages == (Stage(12, 20, 20),)


def test_limits_are_read_by_percentile() -> None:
    slo = profiles.read_slo("default")

    assert set(slo.limits_ms) == {0.5, 0.95, 0.99}


def test_another_warm_up_leaves_the_judged_span_as_long() -> None:
    soak = profiles.read_profile("soak", capacity_rps=50)

    shorter = profiles.with_warm_up(soak, 2.0)

    assert (shorter.judged_from, shorter.stages[0].seconds) == (2.0, 1802.0)
    assert profiles.with_warm_up(soak, None) == soak
    with pytest.raises(UsageError, match="--warm-up"):
        profiles.with_warm_up(soak, -1.0)


def test_only_callers_who_wait_think() -> None:
    assert profiles.with_thinking(profiles.read_profile("single"), 0.5).think_seconds == 0.5
    with pytest.raises(UsageError, match="--model closed"):
        profiles.with_thinking(profiles.read_profile("smoke"), 0.5)


def test_a_rate_scales_a_shape_and_levels_what_is_level() -> None:
    spike = profiles.with_rate(profiles.read_profile("spike", 10), rate=60, seconds=None)
    level = profiles.with_rate(profiles.read_profile("smoke"), rate=60, seconds=None)

    assert [(stage.from_rate, stage.to_rate) for stage in spike.stages] == [(8, 8), (60, 60), (8, 8)]
    assert [stage.seconds for stage in spike.stages] == [20, 10, 50]
    assert spike.judged_from == 50
    assert [(stage.from_rate, stage.to_rate) for stage in level.stages] == [(60, 60)]


def test_seconds_stretch_a_shape_after_its_warm_up() -> None:
    spike = profiles.with_rate(profiles.read_profile("spike", 10), rate=None, seconds=150)
    ramp = profiles.with_rate(profiles.read_profile("ramp", 10), rate=20, seconds=45)

    assert [stage.seconds for stage in spike.stages] == [35, 20, 100]
    assert spike.judged_from == 95
    assert [(stage.seconds, stage.from_rate, stage.to_rate) for stage in ramp.stages] == [(5, 2, 2), (45, 2, 20)]


@pytest.mark.parametrize(("rate", "seconds"), [(0, None), (-1, None), (None, 0)])
def test_a_shape_takes_no_rate_and_no_length_of_nothing(rate: float | None, seconds: float | None) -> None:
    with pytest.raises(UsageError):
        profiles.with_rate(profiles.read_profile("ramp", 10), rate, seconds)
