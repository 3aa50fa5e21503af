"""Room with the engine, given out by turns: start-time fair queueing, counted in images.

A caller with many images stands behind others with few, but never for ever. A caller's own requests come one
after the other. (P. Goyal, H. M. Vin and H. Cheng, "Start-time fair queueing", IEEE/ACM Transactions on Networking 5
(1997).)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.handover import Handover


@dataclass(eq=False)
class Waiting:
    """Images for which there is no room yet. ``number``: of the work that they are a part of; older ones come first."""

    caller: str
    kind: str
    images: int
    number: int
    is_let_in: Handover = field(default_factory=Handover)


class Turns:
    """What is with the engine, who waits for room, and what is to come. Not thread-safe: its owner holds a lock."""

    def __init__(self, most_images: int) -> None:
        self.most_images = most_images
        self.running = 0
        self.line: list[Waiting] = []
        self._running_kinds: dict[str, int] = {}
        # Images that were let in to the controller and have had no turn yet, by caller and kind.
        self._to_come: dict[str, dict[str, int]] = {}
        # Of each caller: how many images were served to it, as fair queueing counts.
        self._ends: dict[str, float] = {}
        self._served = 0.0

    def expect(self, caller: str, kind: str, images: int) -> None:
        """So many will be taken, in parts; negative: so many will not."""
        kinds = self._to_come.setdefault(caller, {})
        subtract(kinds, kind, -images)
        if not kinds:
            del self._to_come[caller]

    def take(self, caller: str, kind: str, images: int, number: int) -> Waiting | None:
        """Room at once: None. Else the one in line, which will be told. They must have been expected."""
        if not self.line or all(each.caller != caller for each in self.line):
            self._ends[caller] = self._begin(caller)
        if not self.line and self._has_room(images):
            self._run(caller, kind, images)
            return None
        waiting = Waiting(caller, kind, images, number)
        self.line.append(waiting)
        return waiting

    def end(self, kind: str, images: int) -> None:
        """The engine is done with these."""
        self.running -= images
        subtract(self._running_kinds, kind, images)
        self._let_in()

    def give_up(self, waiting: Waiting) -> None:
        """One in line waits no longer; its images are still expected."""
        self.line.remove(waiting)
        self._let_in()

    def forget(self, caller: str) -> None:
        """It has nothing here any more."""
        self._ends.pop(caller, None)

    def ahead(self, caller: str, images: int) -> Iterator[tuple[str, float]]:
        """Kinds and images of all that would be done before as many of this caller are."""
        yield from self._running_kinds.items()
        own = self._to_come.get(caller, {})
        end = self._begin(caller) + sum(own.values()) + images
        for other, kinds in self._to_come.items():
            # Turn about: of another, what comes to the same end.
            most = end - self._begin(other)
            share = 1.0 if other == caller else min(1.0, max(0.0, most / sum(kinds.values())))
            for kind, count in kinds.items():
                yield kind, count * share

    def all(self) -> Iterator[tuple[str, float]]:
        """Kinds and images of all that is with the engine or to come."""
        yield from self._running_kinds.items()
        for kinds in self._to_come.values():
            yield from kinds.items()

    def _begin(self, caller: str) -> float:
        return max(self._served, self._ends.get(caller, 0.0))

    def _has_room(self, images: int) -> bool:
        """What is too large for any room comes when the engine has nothing else."""
        return not self.running or self.running + images <= self.most_images

    def _run(self, caller: str, kind: str, images: int) -> None:
        self.expect(caller, kind, -images)
        self.running += images
        subtract(self._running_kinds, kind, -images)
        # Who was forgotten meanwhile begins anew.
        begin = self._ends.get(caller, self._served)
        self._ends[caller] = begin + images
        self._served = max(self._served, begin)

    def _let_in(self) -> None:
        while self.line:
            first = self._first()
            if not self._has_room(first.images):
                return
            self.line.remove(first)
            self._run(first.caller, first.kind, first.images)
            first.is_let_in.set()

    def _first(self) -> Waiting:
        """Of each caller the oldest; of these, whose turn would end first."""
        oldest: dict[str, Waiting] = {}
        for each in self.line:
            if each.caller not in oldest or each.number < oldest[each.caller].number:
                oldest[each.caller] = each
        return min(oldest.values(), key=lambda each: self._ends.get(each.caller, self._served) + each.images)


def subtract(counts: dict[str, int], key: str, count: int) -> None:
    """Forgets who has nothing left. A plain dict: a Counter does that in Python, several times with each request."""
    left = counts.get(key, 0) - count
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)
