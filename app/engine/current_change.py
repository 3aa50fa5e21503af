"""The one change of versions that is being made: what it is at, since when, and how one stops waiting for it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from app.errors import ChangeRefusedError

Say = Callable[[str], None]
Clock = Callable[[], float]


class CurrentChange:
    """A change that is made in a thread of its own, which nobody need wait for longer than they want to.

    Until it commits it may be given up; then nothing of it takes effect, however late its thread ends. The thread
    itself goes on: Python cannot end one that reads or computes.
    """

    def __init__(self, what: str, clock: Clock, say: Say) -> None:
        """``what``: the change in words, such as ``promote parts@2``. ``say`` is told the steps until the end."""
        self.what = what
        self._clock = clock
        self._since = clock()
        self._say = say
        self._step = "beginning"
        self._reason = ""
        self._outcome: Future[Any] = Future()
        self._thread: threading.Thread | None = None
        # Whether another change may begin.
        self.has_let_go = threading.Event()

    def __str__(self) -> str:
        return f"{self.what}, for {self._clock() - self._since:.0f} s, now {self._step}"

    @property
    def is_left(self) -> bool:
        """Whether it was given up and its thread is still at it."""
        return self._outcome.cancelled() and self._thread is not None and self._thread.is_alive()

    def say(self, line: str) -> None:
        """Tell the next step. Raises ChangeRefusedError once it was given up: the steps after this one are left out."""
        if self._outcome.cancelled():
            raise self._given_up()
        self._step = line
        self._say(line)

    def commit(self) -> None:
        """From here on it takes effect and cannot be given up. Raises ChangeRefusedError when it was before."""
        if self._outcome.running():
            return
        if self._outcome.cancelled() or not self._outcome.set_running_or_notify_cancel():
            raise self._given_up()

    def give_up(self, reason: str) -> bool:
        """Let its caller go with this reason. Returns False when it has committed or ended."""
        self._reason = self._reason or reason
        return self._outcome.cancel()

    def run(self, make: Callable[[], Any], seconds: float) -> Any:
        """What ``make`` returns or raises. Raises ChangeRefusedError when it was given up or takes longer."""
        self._thread = threading.Thread(target=self._make, args=(make,), name=f"change {self.what}", daemon=True)
        self._thread.start()
        with contextlib.suppress(TimeoutError, CancelledError):
            self._outcome.exception(seconds)
        # One that has committed ends in a moment.
        self.give_up(f"it took longer than {seconds:g} s")
        try:
            return self._outcome.result()
        except CancelledError:
            raise self._given_up() from None

    def _make(self, make: Callable[[], Any]) -> None:
        try:
            made = make()
            self.commit()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            with contextlib.suppress(InvalidStateError):
                self._outcome.set_exception(error)
        else:
            self._outcome.set_result(made)

    def _given_up(self) -> ChangeRefusedError:
        return ChangeRefusedError(
            f"{self.what} was given up while {self._step}: {self._reason}. Nothing has changed.",
            hint=f"Look at the version's files and at the log. Should its load hang, it ends only with the engine: "
            f"kill {os.getpid()}; Apache starts a new one.",
        )
