"""One thread tells another, once."""

from __future__ import annotations

import math
import threading
import time

from app.handover import Handover


def test_who_waits_goes_on_when_it_is_told() -> None:
    handover, seen = Handover(), list[bool]()
    thread = threading.Thread(target=lambda: seen.append(handover.wait(math.inf)))
    thread.start()

    handover.set()
    thread.join(30)

    assert seen == [True]
    assert handover.is_set
    # Also a thread that asks later.
    assert handover.wait(0.0)


def test_nobody_waits_beyond_the_deadline() -> None:
    handover, began = Handover(), time.monotonic()

    assert not handover.wait(began + 0.05)
    assert not handover.wait(began - 1)
    assert time.monotonic() - began < 30
    handover.set()
    assert handover.wait(began)
