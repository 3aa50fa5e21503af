"""The alarm lets others run, wakes whoever waits, and does without a timer where there is none."""

from __future__ import annotations

import ctypes

import gevent
import pytest

from loadtest import precise_timer
from loadtest.precise_timer import Timer


@pytest.fixture(autouse=True)
def hub_that_knows_the_time() -> None:
    """gevent counts from when it last waited: after a test that only computed, ten seconds would be over at once."""
    gevent.get_hub().loop.update_now()


def test_others_run_meanwhile_and_the_sleeper_goes_on() -> None:
    sleeper, seen = Timer(), []

    def sleep() -> None:
        for number in range(3):
            sleeper.sleep(0.01)
            seen.append(number)

    other = gevent.spawn(lambda: [gevent.sleep(0.001) for _ in range(3)] and seen.append("other"))
    gevent.joinall([gevent.spawn(sleep), other], timeout=10, raise_error=True)
    sleeper.close()

    assert [each for each in seen if each != "other"] == [0, 1, 2]
    assert "other" in seen


def test_a_moment_that_is_over_is_not_waited_for() -> None:
    sleeper = Timer()
    sleeper.sleep(0.0)
    sleeper.sleep(-1.0)
    sleeper.close()


def test_without_a_timer_of_the_kernel_it_sleeps_as_gevent_does(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(precise_timer.gevent, "sleep", slept.append)

    sleeper = Timer()
    sleeper.sleep(0.5)
    sleeper.close()

    assert slept == [0.5]
