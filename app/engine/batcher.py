"""Gather waiting work into batches. Knows counts and the moments it is told; no sockets, no torch, no clock, no locks.

A batch forms while the engine is busy: a free worker takes what waits, at most ``max_batch_size`` of one model and
one shape. With ``max_queue_delay_ms`` above zero a batch that is not full waits that long for others to join.
Models take turns, and none may fill the whole queue, so that a busy or slow one cannot starve the others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from app.errors import EngineBusyError

# Beyond that, work in the background is refused: it is a sample, not a duty.
MAX_BACKGROUND = 16


# So much of the queue is kept from models that have much in it: a slow one's line cannot shut out the others.
RESERVED_SHARE = 0.25


@dataclass(eq=False)
class Work:
    """One image that waits for its prediction. Moments are seconds on one monotonic clock, chosen by the caller."""

    model_key: str
    shape: Hashable
    arrived: float
    deadline: float
    image: Any = None
    options: Any = None
    reply: Any = None
    is_cancelled: bool = False
    # Of the version that was meant; empty where anything under that key will do.
    digest: str = ""
    # Under which the caller's request stands in the logs; empty where there is none.
    request_id: str = ""
    # Width and height of the original; None where they are not known.
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Batch:
    """Work of one model and one shape, oldest first; never empty."""

    model_key: str
    works: list[Work]
    # Nobody waits for it: taken only where nothing else is to be done.
    is_background: bool = False


@dataclass(frozen=True)
class Limits:
    """How one model may be batched."""

    max_batch_size: int = 8
    max_queue_delay_ms: float = 0.0


@dataclass
class _Line:
    """The work that waits for one model, in order of arrival."""

    limits: Limits
    works: deque[Work] = field(default_factory=deque)


class Batcher:
    """A bounded queue that hands out batches. Not thread-safe: its owner holds a lock."""

    def __init__(self, max_queue_size: int, workers: int = 1) -> None:
        """``max_queue_size`` counts images, over all models. ``workers``: how many will take batches."""
        self.max_queue_size = max_queue_size
        self.workers = workers
        # The order is the turn: a model that was served goes to the end.
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._waiting = 0
        self._background: deque[Work] = deque()

    def __len__(self) -> int:
        return self._waiting

    def register(self, model_key: str, limits: Limits) -> None:
        """Make a model known, or change its limits."""
        line = self._lines.get(model_key)
        if line is None:
            self._lines[model_key] = _Line(limits)
        else:
            line.limits = limits

    def _has_room(self, works: list[Work]) -> bool:
        """Whether they fit. The last places are shared out: each model may have its part of them, and one at least."""
        after = self._waiting + len(works)
        if after <= self.max_queue_size * (1 - RESERVED_SHARE):
            return True
        names = {_name(key) for key in self._lines}
        if len(names) < 2:
            return after <= self.max_queue_size
        new = Counter(_name(work.model_key) for work in works)
        waiting = Counter(_name(key) for key, line in self._lines.items() for _ in line.works)
        # One model has filled the rest; what is left is for all the others.
        part = max(1.0, self.max_queue_size * RESERVED_SHARE / (len(names) - 1))
        is_modest = all(waiting[name] + count <= part for name, count in new.items())
        return is_modest and after <= self.max_queue_size

    def waiting(self, model_key: str) -> int:
        """How many works of one model wait, those in the background included."""
        line = self._lines.get(model_key)
        behind = sum(work.model_key == model_key for work in self._background)
        return behind + (len(line.works) if line else 0)

    def withdraw(self, model_key: str) -> list[Work]:
        """Take out everything of one model that callers wait for."""
        line = self._lines.get(model_key)
        works = list(line.works) if line else []
        if line:
            line.works.clear()
        self._waiting -= len(works)
        return works

    def forget(self, model_key: str) -> None:
        """Make a model unknown. Its line must be empty."""
        self._lines.pop(model_key, None)

    def submit(self, works: Iterable[Work]) -> None:
        """Put works at the end of their model's line, all or none. Raises EngineBusyError when they do not fit."""
        works = list(works)
        if not self._has_room(works):
            raise EngineBusyError(
                "%(count)s images wait already; at most %(most)s may, not all of one model.",
                hint="Send it again after the time in Retry-After.",
                count=self._waiting,
                most=self.max_queue_size,
            )
        for work in works:
            self._lines[work.model_key].works.append(work)
        self._waiting += len(works)

    def offer(self, work: Work) -> bool:
        """Put a work behind everything else, outside of the callers' limit. False when too many wait there."""
        if len(self._background) >= MAX_BACKGROUND:
            return False
        self._background.append(work)
        return True

    def sweep(self, now: float) -> list[Work]:
        """Take out and return what need not be done any more: cancelled, or past its deadline."""
        gone: list[Work] = []
        for line in self._lines.values():
            if any(_is_gone(work, now) for work in line.works):
                gone += [work for work in line.works if _is_gone(work, now)]
                line.works = deque(work for work in line.works if not _is_gone(work, now))
        self._waiting -= len(gone)
        late = [work for work in self._background if _is_gone(work, now)]
        if late:
            self._background = deque(work for work in self._background if work not in late)
        return gone + late

    def take(self, now: float) -> Batch | None:
        """Take the next batch that is due, or None. Call ``sweep`` first: a batch may else hold work that is gone."""
        for model_key, line in self._lines.items():
            if line.works and _due_at(line) <= now:
                self._lines.move_to_end(model_key)
                works = _take_same_shape(line, self.workers)
                self._waiting -= len(works)
                return Batch(model_key, works)
        return None

    def take_background(self) -> Batch | None:
        """Take one work of the background, alone: a request meanwhile waits for one image at most."""
        if self._waiting or not self._background:
            return None
        work = self._background.popleft()
        return Batch(work.model_key, [work], is_background=True)

    def wake_at(self) -> float | None:
        """The earliest moment at which a batch is due or a deadline passes; None when nothing waits."""
        moments = [
            min(_due_at(line), *(work.deadline for work in line.works)) for line in self._lines.values() if line.works
        ]
        return min(moments, default=None)

    def drain(self) -> list[Work]:
        """Take out everything that callers wait for; the background is forgotten."""
        self._background.clear()
        works = [work for line in self._lines.values() for work in line.works]
        for line in self._lines.values():
            line.works.clear()
        self._waiting = 0
        return works


def _name(model_key: str) -> str:
    """All versions of a model count as one: two of them are loaded while one replaces the other."""
    return model_key.partition("@")[0]


def _is_gone(work: Work, now: float) -> bool:
    return work.is_cancelled or work.deadline <= now


def _due_at(line: _Line) -> float:
    """A full batch is due at once, another when its oldest has waited long enough."""
    oldest = line.works[0]
    same_shape = sum(1 for work in line.works if work.shape == oldest.shape)
    if same_shape >= line.limits.max_batch_size:
        return oldest.arrived
    return oldest.arrived + line.limits.max_queue_delay_ms / 1000


def _take_same_shape(line: _Line, workers: int) -> list[Work]:
    """At most this worker's part of what waits: one long batch would leave the others without work."""
    shape = line.works[0].shape
    most = min(line.limits.max_batch_size, -(-len(line.works) // workers))
    taken: list[Work] = []
    left: deque[Work] = deque()
    for work in line.works:
        if work.shape == shape and len(taken) < most:
            taken.append(work)
        else:
            left.append(work)
    line.works = left
    return taken
