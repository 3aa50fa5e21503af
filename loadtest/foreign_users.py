"""User classes of Locust as a scenario: each arrival is one task of a user who is idle then."""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
from locust import TaskSet, User
from locust.env import Environment
from locust.exception import InterruptTaskSet, RescheduleTask, StopUser
from locust.user.task import DefaultTaskSet
from locust.util.load_locustfile import is_user_class

from loadtest.outcomes import REFUSALS, Outcome
from loadtest.turns import Turn

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
    """The users of one file, and whose turn it is by the weights of the classes."""

    def __init__(self, environment: Environment, classes: Sequence[type[User]]) -> None:
        self._environment = environment
        self._classes = {class_.__name__: class_ for class_ in classes}
        self._weights = [class_.weight for class_ in classes]
        self._idle: dict[str, list[ForeignUser]] = defaultdict(list)
        # What Locust tells of the requests of each task under way.
        self._told: dict[Any, list[dict[str, Any]]] = {}
        environment.events.request.add_listener(self._note)

    def perform(self, turn: Turn) -> tuple[Outcome, str, str]:
        """Have a user of one class do one task: its outcome, what was wrong, and a code.

        What fails in Locust's statistics fails here; 429 and 503 are refusals.
        """
        (name,) = turn.chance.choices(list(self._classes), self._weights)
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
        turn.status = next((_status(each) for each in reversed(told) if _status(each)), 0)
        turn.size = sum(int(each.get("response_length") or 0) for each in told)
        if failed := next((each for each in told if each.get("exception")), None):
            turn.status, words = _status(failed), f"{name}: {failed.get('name')}: {failed['exception']}"
        if not words:
            return Outcome.RIGHT, "", ""
        return Outcome.REFUSED if turn.status in REFUSALS else Outcome.FAILED, words[:200], ""

    def _note(self, **told: Any) -> None:
        if (mine := self._told.get(gevent.getcurrent())) is not None:
            mine.append(told)


def classes_of(path: Path) -> list[type[User]]:
    """The user classes that a file defines, as Locust finds them, under a name that shadows no module of ours."""
    spec = importlib.util.spec_from_file_location(f"users_of_{path.parent.name}_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    return [each for each in vars(module).values() if is_user_class(each)]


def _status(told: dict[str, Any]) -> int:
    return int(getattr(told.get("response"), "status_code", 0) or 0)
