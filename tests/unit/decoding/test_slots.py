"""Places in a slot_queue: the first to wait is the first to go, and nobody waits beyond a deadline."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from app.decoding.slots import SlotQueue
from app.errors import DeadlineExceededError, DecodersBusyError
from tests.servers import wait_until

PATIENCE_SECONDS = 60.0


def far() -> float:
    return time.monotonic() + PATIENCE_SECONDS


def test_nobody_waits_beyond_the_deadline_where_another_takes_the_free_place() -> None:
    """As when equal requests come at once: places come free, and newcomers take them, just as the waiting ends."""
    # Python 3.11's SimpleQueue.get(timeout=…) waits for ever then, and so did a slot_queue that was made of one.
    slot_queue, began = SlotQueue(1, 100), time.monotonic()

    def come(deadline: float) -> None:
        with suppress(DeadlineExceededError), slot_queue.slot(deadline):
            pass

    threads = [threading.Thread(target=come, args=(began + 0.1 + number / 400,), daemon=True) for number in range(60)]
    with slot_queue.slot(far()):
        for each in threads:
            each.start()
    while time.monotonic() < began + 0.5:
        with suppress(DeadlineExceededError), slot_queue.slot(began + 0.5):
            # Busy, not asleep: who was told of the free place goes on only when the next has it.
            end = time.monotonic() + 0.0003
            while time.monotonic() < end:
                pass
    with slot_queue.slot(far()):
        for each in threads:
            each.join(PATIENCE_SECONDS / 4)
        assert [each for each in threads if each.is_alive()] == []


def test_places_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    slot_queue, order = SlotQueue(1, 10), list[int]()

    def come(number: int) -> None:
        with slot_queue.slot(far()):
            order.append(number)

    with ThreadPoolExecutor(5) as pool, slot_queue.slot(far()):
        for number in range(5):
            pool.submit(come, number)
            wait_until(lambda count=number + 1: slot_queue.waiting == count, PATIENCE_SECONDS, "it to wait")  # type: ignore[misc]

    assert order == [0, 1, 2, 3, 4]


def test_who_gives_up_leaves_the_place_to_the_next() -> None:
    slot_queue = SlotQueue(1, 10)
    with ThreadPoolExecutor(1) as pool:
        with slot_queue.slot(far()):
            with pytest.raises(DeadlineExceededError), slot_queue.slot(time.monotonic() + 0.01):
                pass
            patient = pool.submit(lambda: slot_queue.slot(far()).__enter__())
            wait_until(lambda: slot_queue.waiting == 1, PATIENCE_SECONDS, "it to wait")
        assert patient.result(PATIENCE_SECONDS) is None


def test_too_many_are_refused_at_once() -> None:
    slot_queue = SlotQueue(1, 0)

    with slot_queue.slot(far()), pytest.raises(DecodersBusyError), slot_queue.slot(far()):
        pass

    with slot_queue.slot(far()):
        assert slot_queue.waiting == 0
