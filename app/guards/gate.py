"""How much is in hand, and whether one more would be answered in time. No Flask, no WSGI."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from app.guards.costs import Costs
from app.guards.crowds import Crowds

Reason = Literal["slots", "slow", "late"]

# Who arrived so recently is taken for one whose body follows at once, as nearly all do: it will be in work in a moment.
FRESH_SECONDS = 0.2
# While others ask too, the last places are for callers that hold less than their share.
RESERVED_SHARE = 0.25
# Whoever asked so recently is still there.
THERE_SECONDS = 1.0
# A caller's notice is taken down when this share of what was too much is gone, not with each request that ends.
REOPENING_SHARE = 0.5
LEAST_RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True)
class Refusal:
    """Why not now. ``slots``: all places are taken; ``slow``: it would wait too long for the engine; ``late``: it has
    waited for the engine until its own deadline.
    """

    reason: Reason
    retry_after_seconds: float


@dataclass(eq=False)
class Visit:
    """One admitted request, from its arrival to its end."""

    caller: str
    # Whether it came to the engine's door, let in or not; if never, it was answered without.
    has_asked: bool = False


@dataclass(eq=False)
class _Waiting:
    """Work for which there is no room with the engine yet."""

    visit: Visit
    images: int
    turn: float
    is_let_in: threading.Event = field(default_factory=threading.Event)


@dataclass
class Gate:
    """Counts requests and the engine's work in hand, and says who may join them. Thread-safe.

    A request takes a *place* from its arrival to its end. It keeps others waiting only while it has *work* for the
    engine: so many images of a kind, known when its body is read and no kept answer was found. Work costs what the
    engine needed for its kind of late. No more than ``most_images`` are with the engine; the rest waits here, and
    callers take turns.
    """

    places: int
    max_wait_seconds: float
    # So many images are let in however slow the model is: they keep the engine busy.
    least_images: int = 2
    most_images: int = 1_000_000
    # Seconds of work that the engine does in a second for this process.
    speed: float = 1.0
    # Whether an answer may be kept from before; without, every request needs the engine.
    has_cache: bool = False
    refused_total: int = 0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.costs = Costs(self.clock)
        self.crowds = Crowds(self.clock)
        self.in_hand = 0
        # Images that are asked for, and how many of them are with the engine.
        self.images = 0
        self.running = 0
        self._line: list[_Waiting] = []
        self._kinds = Counter[str]()
        self._places_of = Counter[str]()
        self._images_of = Counter[str]()
        # Fair turns, counted in images (start-time fair queueing): where each caller's last one ends, and where we are.
        self._turns: dict[str, float] = {}
        self._served = 0.0
        # Visits that have just arrived, the oldest first, and when.
        self._fresh: dict[Visit, float] = {}
        # The last caller, when it came, and when somebody else came before it.
        self._last: tuple[str, float, float] = ("", -math.inf, -math.inf)
        self._lock = threading.Lock()

    # ── a request's way ───────────────────────────────────────────────────────────────────────────────────────────

    def arrive(self, caller: str, timeout_seconds: float = math.inf, *, is_computed: bool = False) -> Visit | Refusal:
        """Take a place. ``is_computed``: no kept answer will do, so that the engine is needed for sure."""
        with self._lock:
            self._note(caller)
            self._forget_late()
            if self._is_full(caller):
                return self._refuse("slots", LEAST_RETRY_AFTER_SECONDS)
            needs_engine = is_computed or not self.has_cache or self.crowds.is_one(caller)
            wait = self._wait(1 + len(self._fresh)) if needs_engine else 0.0
            if self._is_busy() and wait > min(self._longest(caller), timeout_seconds):
                if is_computed:
                    self.crowds.note_vain(caller)
                return self._refuse("slow", wait)
            visit = Visit(caller)
            self.in_hand += 1
            self._places_of[caller] += 1
            self._fresh[visit] = self.clock()
            return visit

    def begin(self, visit: Visit, kind: str, images: int, timeout_seconds: float = math.inf) -> Refusal | None:
        """The engine is asked for so many images. None, or as ``arrive`` where that would take too long by now."""
        with self._lock:
            self._fresh.pop(visit, None)
            visit.has_asked = True
            wait = self._wait(0, kind, images)
            if self.images >= self.least_images and wait > min(self._longest(visit.caller, images), timeout_seconds):
                self.crowds.note_vain(visit.caller)
                return self._refuse("slow", wait)
            self._count(visit, kind, images)
            turn = self._take_turn(visit.caller, images)
            if not self._line and self._has_room(images):
                self._run(images, turn)
                return None
            waiting = _Waiting(visit, images, turn)
            self._line.append(waiting)
        if waiting.is_let_in.wait(min(timeout_seconds, threading.TIMEOUT_MAX)):
            return None
        return self._give_up(waiting, kind)

    def end_work(self, visit: Visit, kind: str, images: int, seconds_an_image: float | None) -> None:
        """The engine is done with them. ``seconds_an_image``: of one worker; None where there was no answer."""
        with self._lock:
            self._count(visit, kind, -images)
            self.running -= images
            if seconds_an_image is not None:
                self.costs.learn(kind, seconds_an_image)
            self._let_in()

    def leave(self, visit: Visit, *, is_answered: bool) -> None:
        """Give the place back."""
        with self._lock:
            self._fresh.pop(visit, None)
            self.in_hand -= 1
            _take(self._places_of, visit.caller, 1)
            if visit.caller not in self._places_of:
                self._turns.pop(visit.caller, None)
            if is_answered and not visit.has_asked:
                self.crowds.note_quick(visit.caller)

    def is_refused(self, caller: str, has_notice: bool, coming: float = 0.0) -> bool:
        """Whether whatever this caller sends would be refused now; with a notice, until there is some room again.

        ``coming``: so many more are on their way, as far as is known, and are to find a place yet.
        """
        with self._lock:
            level = 1 - REOPENING_SHARE if has_notice else 1
            self._forget_late()
            # While the engine has room, nothing is true for all that a caller may send.
            if self.images < self.least_images:
                return False
            is_slow = self._wait(1 + len(self._fresh) + coming) > self._longest(caller) * level
            needs_engine = not self.has_cache or self.crowds.is_one(caller, level)
            return self._is_full(caller, coming, level) or (is_slow and needs_engine)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_busy(self) -> bool:
        return self.images + len(self._fresh) >= self.least_images

    def _is_full(self, caller: str, coming: float = 0.0, level: float = 1.0) -> bool:
        """An idle engine has no need to keep places: whoever has just come is gone in a moment, and the others wait
        for something else.
        """
        if self.images < self.least_images:
            return self.in_hand - len(self._fresh) >= self.places
        return self.in_hand + coming >= self.places * self._share(caller) * level

    def _share(self, caller: str) -> float:
        """How much of all places this caller may help to fill: alone all of them."""
        if not self._has_company(caller):
            return 1.0
        callers = max(2, len(self._places_of) + (caller not in self._places_of))
        return 1.0 if self._places_of[caller] < self.places / callers else 1 - RESERVED_SHARE

    def _longest(self, caller: str, images: int = 0) -> float:
        """The longest wait for this caller, in seconds: a little more for those who have less work here than others."""
        callers = max(2, len(self._images_of) + (caller not in self._images_of))
        is_modest = self._images_of[caller] + images <= (self.images + images) / callers
        return self.max_wait_seconds * (1 + RESERVED_SHARE if is_modest and self._has_company(caller) else 1)

    def _has_company(self, caller: str) -> bool:
        last, came, before = self._last
        others_came = before if last == caller else came
        holding = len(self._places_of) - (caller in self._places_of)
        return holding > 0 or self.clock() - others_came < THERE_SECONDS

    def _wait(self, fresh: float, kind: str = "", images: int = 0) -> float:
        """Seconds until all that is in hand is done, and these too. ``fresh``: requests of which nothing is known."""
        of = self.costs.of
        work = sum(count * of(name) for name, count in self._kinds.items()) + images * of(kind)
        return (work + (fresh and fresh * self.costs.least())) / self.speed

    def _has_room(self, images: int) -> bool:
        """Whether the engine may have so many more; what is too large for any room comes when it has nothing else."""
        return not self.running or self.running + images <= self.most_images

    def _take_turn(self, caller: str, images: int) -> float:
        """Callers take turns by images: whoever asks for many at once stands behind others' few, and never for ever."""
        turn = max(self._served, self._turns.get(caller, 0.0)) + images
        self._turns[caller] = turn
        return turn

    def _run(self, images: int, turn: float) -> None:
        self.running += images
        self._served = max(self._served, turn - images)

    def _let_in(self) -> None:
        while self._line:
            first = min(self._line, key=lambda each: each.turn)
            if not self._has_room(first.images):
                return
            self._line.remove(first)
            self._run(first.images, first.turn)
            first.is_let_in.set()

    def _give_up(self, waiting: _Waiting, kind: str) -> Refusal | None:
        """Its time is over. None where it was let in at the last moment."""
        with self._lock:
            if waiting.is_let_in.is_set():
                return None
            self._line.remove(waiting)
            self._count(waiting.visit, kind, -waiting.images)
            self._let_in()
            return self._refuse("late", 0)

    def _note(self, caller: str) -> None:
        last, came, before = self._last
        self._last = (caller, self.clock(), before if caller == last else came)

    def _forget_late(self) -> None:
        """Whose body has not come by now may let us wait for long: it keeps nobody waiting any more."""
        end = self.clock() - FRESH_SECONDS
        while self._fresh and (visit := next(iter(self._fresh))) and self._fresh[visit] < end:
            del self._fresh[visit]

    def _count(self, visit: Visit, kind: str, images: int) -> None:
        self.images += images
        for counter, key in ((self._kinds, kind), (self._images_of, visit.caller)):
            _take(counter, key, -images)

    def _refuse(self, reason: Reason, wait: float) -> Refusal:
        self.refused_total += 1
        return Refusal(reason, max(LEAST_RETRY_AFTER_SECONDS, wait))


def _take(counter: Counter[str], key: str, count: int) -> None:
    """Subtract, and forget who has nothing left."""
    counter[key] -= count
    if not counter[key]:
        del counter[key]
