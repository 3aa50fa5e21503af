"""A bounded number of slots, and a bounded queue for them: slow images have a queue of their own."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from app.errors import DeadlineExceededError, DecodersBusyError
from app.handover import Handover


class SlotQueue:
    """Slots for images, given in the order in which they are requested. Thread-safe.

    A freed slot goes to the first that waits, never to one that has just come. Not a queue.SimpleQueue: its
    ``get`` waits beyond its timeout, in Python 3.11 for ever, when another takes what it was woken for
    (docs/decisions/0051-waiting.md).
    """

    def __init__(self, slots: int, most_waiting: int) -> None:
        self._free = slots
        self._line = deque[Handover]()
        self._most_waiting = most_waiting
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._line)

    @contextlib.contextmanager
    def slot(self, deadline: float) -> Iterator[None]:
        """A slot for as long as a block lasts, waited for until ``deadline``, a moment of ``time.monotonic``.

        To enter it raises DeadlineExceededError, DecodersBusyError when too many wait already.
        """
        with self._lock:
            turn = self._take()
        if turn is not None:
            self._wait(turn, deadline)
        try:
            yield
        finally:
            with self._lock:
                self._give_back()

    def _take(self) -> Handover | None:
        """Take a free slot: None; else the event that says when one is handed over. Raises DecodersBusyError."""
        if self._free:
            self._free -= 1
            return None
        if len(self._line) >= self._most_waiting:
            raise DecodersBusyError(
                "Too many large images wait to be decoded.",
                hint="Send it again after the time in Retry-After, or send a smaller one.",
            )
        turn = Handover()
        self._line.append(turn)
        return turn

    def _wait(self, turn: Handover, deadline: float) -> None:
        has_come = False
        try:
            has_come = turn.wait(deadline)
        finally:
            if not has_come:
                self._give_up(turn)
        if not has_come:
            raise late()

    def _give_up(self, turn: Handover) -> None:
        with self._lock:
            if turn.is_set:
                # The slot was handed over in the moment in which this one gave up.
                self._give_back()
            else:
                self._line.remove(turn)

    def _give_back(self) -> None:
        if self._line:
            self._line.popleft().set()
        else:
            self._free += 1


def late() -> DeadlineExceededError:
    """The error at the deadline."""
    return DeadlineExceededError(
        "The deadline passed before the image was decoded.",
        hint="Allow more time with X-Request-Timeout, or send fewer or smaller images at once.",
    )
