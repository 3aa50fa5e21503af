"""User classes of other people under our schedule: each arrival of theirs is one task of a user who is idle then."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import gevent
from locust import TaskSet, User
from locust.env import Environment
from locust.exception import InterruptTaskSet, RescheduleTask, StopUser
from locust.user.task import DefaultTaskSet

from loadtest.request_log import Outcome
from loadtest.scenarios import FOREIGN, FOREIGN_NUMBER, Caller, Request

REFUSALS = (429, 503)
# A TaskSet that only interrupts itself would be entered and left without end.
MOVES_MOST = 20


class ForeignUser:
    """A user of theirs, and the TaskSets that it is in, the innermost last. Between arrivals it stays where it is."""

    def __init__(self, user: User) -> None:
        self._sets: list[TaskSet] = [DefaultTaskSet(user)]
        user.on_start()

    def act(self, told: Sequence[Any]) -> None:
        """Do the next task, entering and leaving TaskSets on the way. ``told`` grows with each request.

        Raises StopUser where the user is done, and whatever the task raises.
        """
        for _ in range(MOVES_MOST):
            inner = self._sets[-1]
            task = inner.get_next_task()
            try:
                if isinstance(task, type):
                    self._sets.append(task(inner if len(self._sets) > 1 else inner.user))
                    self._sets[-1].on_start()
                    continue
                inner.execute_task(task)
            except InterruptTaskSet as left:
                if len(self._sets) > 1:
                    self._sets.pop().on_stop()
                # As in Locust another task follows at once, unless this one was an arrival's worth already.
                if left.reschedule and not told:
                    continue
            except RescheduleTask:
                pass
            return


class ForeignUsers:
    """Their users, and whose turn it is: ``share`` (0 … 1) of the arrivals is theirs, by the weights of the classes."""

    def __init__(
        self, environment: Environment, classes: Sequence[type[User]], ours: Caller, share: float, seed: int
    ) -> None:
        self._environment, self._ours, self._share = environment, ours, share
        self._classes = {class_.__name__: class_ for class_ in classes}
        self._weights = [class_.weight for class_ in classes]
        self._chance = random.Random(seed)  # noqa: S311 - chance, not a secret
        self._idle: dict[str, list[ForeignUser]] = defaultdict(list)
        # What Locust tells of the requests of each task under way.
        self._told: dict[Any, list[dict[str, Any]]] = {}
        environment.events.request.add_listener(self._note)

    def next(self) -> Request:
        """The next request: one of ours, or the class whose user does a task."""
        if self._chance.random() >= self._share:
            return self._ours.next()
        (name,) = self._chance.choices(list(self._classes), self._weights)
        return Request(FOREIGN_NUMBER, FOREIGN, "", "", (name,), {}, b"", (), "", True)

    def ask(self, name: str) -> tuple[Outcome, str, int, int]:
        """Have a user of this class do one task: its outcome, what was wrong, the last status, and bytes of answers.

        What fails in Locust's statistics fails here; 429 and 503 are refusals.
        """
        idle, me = self._idle[name], gevent.getcurrent()
        told, words, guest = self._told.setdefault(me, []), "", None
        try:
            guest = idle.pop() if idle else ForeignUser(self._classes[name](self._environment))
            guest.act(told)
        except StopUser:
            guest = None
        except Exception as error:  # noqa: BLE001 - whatever a task of others raises is a failure of it
            words = f"{name}: {type(error).__name__}: {error}"
        finally:
            del self._told[me]
        if guest:
            idle.append(guest)
        status = next((_status(each) for each in reversed(told) if _status(each)), 0)
        size = sum(int(each.get("response_length") or 0) for each in told)
        if failed := next((each for each in told if each.get("exception")), None):
            status, words = _status(failed), f"{name}: {failed.get('name')}: {failed['exception']}"
        if not words:
            return Outcome.RIGHT, "", status, size
        return Outcome.REFUSED if status in REFUSALS else Outcome.FAILED, words[:200], status, size

    def _note(self, **told: Any) -> None:
        if (mine := self._told.get(gevent.getcurrent())) is not None:
            mine.append(told)


def _status(told: dict[str, Any]) -> int:
    return int(getattr(told.get("response"), "status_code", 0) or 0)
