"""How much is in hand, and whether one more would be answered in time. No Flask, no WSGI."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.web.middleware.costs import Costs
from app.web.middleware.fair_queue import Turns, subtract
from app.web.middleware.heavy_callers import Crowds

Reason = Literal["slots", "slow", "late"]

# Who arrived so recently is taken for one whose body follows at once, as nearly all do: it will be in work in a moment.
FRESH_SECONDS = 0.2
# While others ask too, the last slots for work are for callers that hold less than their share.
RESERVED_SHARE = 0.25
# An address that asked within this time is still there.
THERE_SECONDS = 1.0
# A caller's notice is taken down when this share of what was too much is gone, not with each request that ends.
REOPENING_SHARE = 0.5
LEAST_RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True)
class Refusal:
    """Why not now. ``slots``: all slots are taken; ``slow``: it would wait too long for the engine; ``late``: it has
    waited for the engine until its own deadline.
    """

    reason: Reason
    retry_after_seconds: float


@dataclass(eq=False)
class Ticket:
    """One admitted request, from its arrival to its end."""

    caller: str
    # Whether it came to the engine's door, let in or not; if never, it was answered without.
    has_asked: bool = False
    # Its body was read, and then there was no room with the engine.
    is_refused: bool = False


@dataclass
class AdmissionController:
    """Counts requests and the engine's work, and says who may join them. Thread-safe.

    A request takes a *slot* from its arrival to its end. It keeps others waiting only while it has *work* for the
    engine: so many images of a kind, known when its body is read and no cached answer was found. Work costs what the
    engine needed for its kind of late. No more than ``most_images`` are with the engine; the rest waits here, and comes
    by *turns*, of a large request a few images each.
    """

    slots: int
    max_wait_seconds: float
    # So many images are let in however slow the model is: they keep the engine busy.
    least_images: int = 2
    most_images: int = 1_000_000
    # So many of one request's images are taken at once; then it is another's turn.
    images_a_turn: int = 1_000_000
    # Seconds of work that the engine does in a second for this process.
    speed: float = 1.0
    # Whether an answer may be kept from before; without, every request needs the engine.
    has_cache: bool = False
    refused_total: int = 0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.costs = Costs(self.clock)
        self.crowds = Crowds(self.clock)
        self.turns = Turns(self.most_images)
        self.in_hand = 0
        # Images that are asked for, with the engine or not yet.
        self.images = 0
        self.works = 0
        self._numbers = itertools.count()
        # By caller.
        self._images_of: dict[str, int] = {}
        self._slots_of: dict[str, int] = {}
        self._works_of: dict[str, int] = {}
        # Visits that have just arrived, the oldest first, and when.
        self._fresh: dict[Ticket, float] = {}
        # Who came of late and when, the last at the end.
        self._came: dict[str, float] = {}
        self._lock = threading.Lock()

    # ── a request's way ───────────────────────────────────────────────────────────────────────────────────────────

    def arrive(
        self, caller: str, timeout_seconds: float = math.inf, *, is_computed: bool = False, may_be_kept: bool = False
    ) -> Ticket | Refusal:
        """Take a place. ``is_computed``: no kept answer will do, so that the engine is needed for sure.

        ``may_be_kept``: there are signs of a kept answer, which costs nothing, whatever else this caller or others ask.
        """
        with self._lock:
            now = self.clock()
            self._came.pop(caller, None)
            self._came[caller] = now
            self._forget_late(now)
            # A new request with a cached answer is done in a moment.
            if self.in_hand - len(self._fresh) >= self.slots and not may_be_kept:
                return self._refuse("slots", LEAST_RETRY_AFTER_SECONDS)
            refused = None
            if is_computed or not self.has_cache or (self.crowds.is_one(caller) and not may_be_kept):
                refused = self._check(caller, "", 0, timeout_seconds, fresh=len(self._fresh) + 1)
            if refused is not None:
                if is_computed:
                    self.crowds.note_vain(caller)
                return refused
            ticket = Ticket(caller)
            self.in_hand += 1
            subtract(self._slots_of, caller, -1)
            self._fresh[ticket] = now
            return ticket

    def begin(self, ticket: Ticket, kind: str, images: int, timeout_seconds: float = math.inf) -> int | Refusal:
        """The engine will be asked for so many images. The number of this work, or as ``arrive`` where that would take
        too long by now.
        """
        with self._lock:
            self._fresh.pop(ticket, None)
            ticket.has_asked = True
            refused = self._check(ticket.caller, kind, images, timeout_seconds)
            if refused is not None:
                ticket.is_refused = True
                self.crowds.note_vain(ticket.caller)
                return refused
            self._count(ticket.caller, images, 1)
            self.turns.expect(ticket.caller, kind, images)
            return next(self._numbers)

    def take_turn(
        self, ticket: Ticket, kind: str, images: int, number: int, timeout_seconds: float = math.inf
    ) -> Refusal | None:
        """Wait until the engine may be asked for so many images of the work of this number. None, or ``late``."""
        with self._lock:
            waiting = self.turns.take(ticket.caller, kind, images, number)
        if waiting is None or waiting.is_let_in.wait(time.monotonic() + timeout_seconds):
            return None
        with self._lock:
            if waiting.is_let_in.is_set:
                return None
            self.turns.give_up(waiting)
            return self._refuse("late", 0)

    def end_turn(self, ticket: Ticket, kind: str, images: int, seconds_an_image: float | None) -> None:
        """The engine is done with them. ``seconds_an_image``: of one worker; None where there was no answer."""
        with self._lock:
            self._count(ticket.caller, -images, 0)
            if seconds_an_image is not None:
                self.costs.learn(kind, seconds_an_image)
            self.turns.end(kind, images)

    def end_work(self, ticket: Ticket, kind: str, left: int) -> None:
        """Of the work so many images had no turn and need none any more."""
        with self._lock:
            self._count(ticket.caller, -left, -1)
            if left:
                self.turns.expect(ticket.caller, kind, -left)

    def leave(self, ticket: Ticket, *, is_answered: bool) -> None:
        """Give the place back."""
        with self._lock:
            self._fresh.pop(ticket, None)
            self.in_hand -= 1
            subtract(self._slots_of, ticket.caller, 1)
            if ticket.caller not in self._slots_of:
                self.turns.forget(ticket.caller)
            if is_answered and not ticket.has_asked:
                self.crowds.note_quick(ticket.caller)

    def is_refused(self, caller: str, has_notice: bool, coming: float = 0.0) -> bool:
        """Whether whatever this caller sends would be refused now; with a notice, until there is some room again.

        ``coming``: so many more are on their way, as far as is known, and are to find a place yet.
        """
        with self._lock:
            level = 1 - REOPENING_SHARE if has_notice else 1
            if self.has_cache and not self.crowds.is_one(caller, level):
                return False
            self._forget_late(self.clock())
            fresh = len(self._fresh) + 1 + coming
            return self.images >= self.least_images and (
                self._is_full(caller, fresh - 1, level)
                or self._wait(caller, "", 0, fresh) > self._longest(caller) * level
            )

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, caller: str, kind: str, images: int, timeout_seconds: float, fresh: float = 0.0) -> Refusal | None:
        """Whether work may begin, or could; ``fresh``: as in ``_wait``. An engine that is idle takes anything."""
        if self.images + max(0.0, fresh - 1) < self.least_images:
            return None
        if self._is_full(caller, max(0.0, fresh - 1)):
            return self._refuse("slots", LEAST_RETRY_AFTER_SECONDS)
        wait = self._wait(caller, kind, images, fresh)
        is_slow = wait > min(self._longest(caller, images), timeout_seconds)
        return self._refuse("slow", wait) if is_slow else None

    def _is_full(self, caller: str, more: float = 0.0, level: float = 1.0) -> bool:
        """Whether all slots that this caller's work may help to fill are taken: of a lone caller all there are."""
        if self.works + more < self.slots / 2 * level:
            return False
        others, reserved = self._company(caller), 0.0
        if others and self._works_of.get(caller, 0) >= self.slots / (others + 1):
            # One for each other, but half of all at most.
            reserved = max(self.slots * RESERVED_SHARE, min(others, self.slots / 2))
        return self.works + more >= (self.slots - reserved) * level

    def _longest(self, caller: str, images: int = 0) -> float:
        """The longest wait for this caller, in seconds: a little more for those who have less work here than others."""
        callers = max(2, len(self._images_of) + (caller not in self._images_of))
        is_modest = self._images_of.get(caller, 0) + images <= (self.images + images) / callers
        return self.max_wait_seconds * (1 + RESERVED_SHARE if is_modest and self._company(caller) else 1)

    def _company(self, caller: str) -> int:
        """How many others are there: they hold a place, or came of late."""
        end = self.clock() - THERE_SECONDS
        while self._came and (oldest := next(iter(self._came))) and self._came[oldest] <= end:
            del self._came[oldest]
        there = len(self._came.keys() | self._slots_of.keys())
        return there - (caller in self._came or caller in self._slots_of)

    def _wait(self, caller: str, kind: str, images: int, fresh: float = 0.0) -> float:
        """Seconds until these are done. ``fresh``: so many requests more come first or with it, and nothing is known of
        them.
        """
        work = images * self.costs.of(kind)
        for name, count in self.turns.ahead(caller, images):
            work += count * self.costs.of(name)
        return (work + (fresh and fresh * self.costs.least())) / self.speed

    def _forget_late(self, now: float) -> None:
        """Whose body has not come by now may let us wait for long: it keeps nobody waiting any more."""
        end = now - FRESH_SECONDS
        while self._fresh and (ticket := next(iter(self._fresh))) and self._fresh[ticket] < end:
            del self._fresh[ticket]

    def _count(self, caller: str, images: int, works: int) -> None:
        self.images += images
        self.works += works
        subtract(self._images_of, caller, -images)
        if works:
            subtract(self._works_of, caller, -works)

    def _refuse(self, reason: Reason, wait: float) -> Refusal:
        self.refused_total += 1
        return Refusal(reason, max(LEAST_RETRY_AFTER_SECONDS, wait))
