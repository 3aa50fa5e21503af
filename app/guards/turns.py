"""Room with the engine, given out by turns: start-time fair queueing, counted in images.

Whoever asks for many images at once stands behind others' few, and never for ever. (P. Goyal, H. M. Vin and H. Cheng,
"Start-time fair queueing", IEEE/ACM Transactions on Networking 5 (1997).)
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(eq=False)
class Waiting:
    """Work for which there is no room yet. ``turn``: where it ends, in images; the least comes next."""

    caller: str
    kind: str
    images: int
    turn: float
    is_let_in: threading.Event = field(default_factory=threading.Event)


class Turns:
    """What is with the engine, and who waits for room. Not thread-safe: its owner holds a lock."""

    def __init__(self, most_images: int) -> None:
        self.most_images = most_images
        self.running = 0
        self.line: list[Waiting] = []
        self._kinds = Counter[str]()
        self._ends: dict[str, float] = {}
        self._served = 0.0

    def take(self, caller: str, kind: str, images: int) -> Waiting | None:
        """Room at once: None. Else the one in line, which will be told."""
        turn = self._next(caller, images)
        self._ends[caller] = turn
        if not self.line and self._has_room(images):
            self._run(kind, images, turn)
            return None
        waiting = Waiting(caller, kind, images, turn)
        self.line.append(waiting)
        return waiting

    def end(self, kind: str, images: int) -> None:
        """The engine is done with these."""
        self.running -= images
        subtract(self._kinds, kind, images)
        self._let_in()

    def give_up(self, waiting: Waiting) -> None:
        """One in line waits no longer."""
        self.line.remove(waiting)
        self._let_in()

    def forget(self, caller: str) -> None:
        """It has nothing here any more."""
        self._ends.pop(caller, None)

    def ahead(self, caller: str, images: int) -> Iterator[tuple[str, int]]:
        """Kinds and images of all that would be done before this."""
        yield from self._kinds.items()
        turn = self._next(caller, images)
        yield from ((each.kind, each.images) for each in self.line if each.turn < turn)

    def _next(self, caller: str, images: int) -> float:
        return max(self._served, self._ends.get(caller, 0.0)) + images

    def _has_room(self, images: int) -> bool:
        """What is too large for any room comes when the engine has nothing else."""
        return not self.running or self.running + images <= self.most_images

    def _run(self, kind: str, images: int, turn: float) -> None:
        self.running += images
        self._kinds[kind] += images
        self._served = max(self._served, turn - images)

    def _let_in(self) -> None:
        while self.line:
            first = min(self.line, key=lambda each: each.turn)
            if not self._has_room(first.images):
                return
            self.line.remove(first)
            self._run(first.kind, first.images, first.turn)
            first.is_let_in.set()


def subtract(counter: Counter[str], key: str, count: int) -> None:
    """Forgets who has nothing left."""
    counter[key] -= count
    if not counter[key]:
        del counter[key]
