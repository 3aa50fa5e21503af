"""Which of two versions is slower: by the best of some rounds, and only where it looks so each time."""

from __future__ import annotations

import pytest

from app.engine import pace


class Machine:
    """A clock, and models that take the given milliseconds, one after the other; the last for ever."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def model(self, *milliseconds: float) -> Model:
        return Model(self, list(milliseconds))


class Model:
    def __init__(self, on: Machine, milliseconds: list[float]) -> None:
        self.on, self.milliseconds, self.times = on, milliseconds, 0

    def warm_up(self) -> None:
        self.times += 1
        self.on.now += (self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]) / 1000


@pytest.fixture
def on() -> Machine:
    return Machine()


def test_a_version_that_takes_ten_times_as_long_is_slower(on: Machine) -> None:
    assert pace.slower(on.model(45), on.model(4), on.clock, on.pause) == pytest.approx((0.045, 0.004))


@pytest.mark.parametrize(("new", "old"), [(4, 45), (4, 4), (5.5, 4), (1.5, 0.5)])
def test_what_is_as_quick_or_nearly_so_is_not_slower(on: Machine, new: float, old: float) -> None:
    assert pace.slower(on.model(new), on.model(old), on.clock, on.pause) is None


@pytest.mark.parametrize("times", range(1, pace.MEASUREMENTS))
def test_disturbed_moments_are_no_reason(on: Machine, times: int) -> None:
    # All measurements but the last are disturbed for the new one alone.
    assert pace.slower(on.model(*[40] * pace.ROUNDS * times, 4), on.model(4), on.clock, on.pause) is None


def test_slow_versions_are_not_measured_for_ever(on: Machine) -> None:
    new, old = on.model(30_000), on.model(9_000)

    assert pace.slower(new, old, on.clock, on.pause) == pytest.approx((30.0, 9.0))
    assert new.times == old.times == pace.MEASUREMENTS
