"""How much is in hand, and whether one more would be answered in time. No Flask, no WSGI."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.web.middleware.costs import Costs, Delays
from app.web.middleware.fair_queue import Turns, subtract
from app.web.middleware.heavy_callers import Crowds
from app.web.middleware.places import Places

Reason = Literal["slots", "slow", "late"]

# Who arrived so recently is taken for one whose body follows at once, as nearly all do: it will be in work in a moment.
FRESH_SECONDS = 0.2
# While others ask too, the last slots for work are for callers that hold less than their share.
RESERVED_SHARE = 0.25
# An address that asked within this time is still there.
THERE_SECONDS = 1.0
# Apache lets in what is expected to wait for so much of the longest wait: one in a hundred waits for up to twice what
# was expected, and who is refused here was read in vain.
PLACES_SHARE = 0.7
LEAST_RETRY_AFTER_SECONDS = 1
# As good as without a limit.
MOST_PLACES = 1 << 20
# How old what Apache reads may be: to work it out takes more calls than all else here. An image takes as long.
PLACES_SECONDS = 0.005


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
    # When its work began, and how many seconds it was expected to take.
    began: float = 0.0
    expected: float = 0.0


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
    # There are few threads, none of which only refuses: requests wait for one, where nobody here sees them.
    waits_for_threads: bool = False
    # Where Apache reads how many it may let in; None where there is no Apache.
    places: Places | None = None
    refused_total: int = 0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.costs = Costs(self.clock)
        self.delays = Delays(self.max_wait_seconds, self.clock)
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
        self._shown_until = -math.inf
        self._tell_apache(self.clock())

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
                others = len(self._fresh)
                if self.images + others >= self.least_images:
                    wait = self._wait(caller, "", 0, others + 1)
                    refused = self._check(caller, 0, wait, timeout_seconds, others)
            if refused is not None:
                if is_computed:
                    self.crowds.note_vain(caller)
                return refused
            ticket = Ticket(caller)
            self.in_hand += 1
            subtract(self._slots_of, caller, -1)
            self._fresh[ticket] = now
            self._tell_apache(now)
            return ticket

    def begin(self, ticket: Ticket, kind: str, images: int, timeout_seconds: float = math.inf) -> int | Refusal:
        """The engine will be asked for so many images. The number of this work, or as ``arrive`` where that would take
        too long by now.
        """
        with self._lock:
            self._fresh.pop(ticket, None)
            ticket.has_asked = True
            refused = None
            # An engine that is idle takes anything.
            if self.images >= self.least_images:
                ticket.began, ticket.expected = self.clock(), self._wait(ticket.caller, kind, images)
                refused = self._check(ticket.caller, images, ticket.expected, timeout_seconds)
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
            elif ticket.expected:
                self.delays.learn(ticket.expected, self.clock() - ticket.began)

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
            self._tell_apache(self.clock())

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell_apache(self, now: float) -> None:
        """How many places there are, unless that was said a moment ago. Who leaves last always says it."""
        if self.places is not None and (now >= self._shown_until or not self.in_hand):
            self._shown_until = now + PLACES_SECONDS
            self._show_places(self.places)

    def _show_places(self, places: Places) -> None:
        """Tell Apache how many may be here or on their way: those who are, and as many as would be answered in time."""
        self._forget_late(self.clock())
        of = self.costs.of
        fresh, cost = len(self._fresh), self.costs.least() / self.speed
        others = max(0, self._there() - 1)
        free = self.slots - (self._reserved(others) if others else 0.0) - self.works - fresh
        share = PLACES_SHARE / self.delays.factor()

        def more(work: float, longest: float, first: int) -> float:
            in_time = (longest * share - work / self.speed) / cost - first if cost else math.inf
            least = self.least_images - self.images - first
            # Who waits for a thread is not seen here, and may need no engine: all are let in until it has too much.
            if self.waits_for_threads:
                return math.inf if in_time + first >= 1 or least > 0 else 0
            return max(least, min(in_time, self.slots - self.in_hand))

        running = sum(count * of(kind) for kind, count in self.turns.ahead("", 0))
        in_all = sum(count * of(kind) for kind, count in self.turns.all())
        everyone = more(in_all, self.max_wait_seconds, fresh)
        if not self.waits_for_threads:
            everyone = min(everyone, free)
        # Of those whose work is unknown only one of each caller comes first, as with work that is known.
        callers = len({ticket.caller for ticket in self._fresh})
        modest = more(running, self.max_wait_seconds * (1 + RESERVED_SHARE), callers)
        places.show(self._place_count(everyone), self._place_count(modest))

    def _place_count(self, more: float) -> int:
        """At least one: with none, nobody would come who could find that there is room again."""
        return max(1, self.in_hand + int(max(0.0, min(more, MOST_PLACES))))

    def _check(self, caller: str, images: int, wait: float, timeout_seconds: float, others: int = 0) -> Refusal | None:
        """Whether work that would be done after such a wait may begin; ``others`` come first, and have not begun."""
        if self._is_full(caller, others):
            return self._refuse("slots", LEAST_RETRY_AFTER_SECONDS)
        is_slow = wait > min(self._longest(caller, images), timeout_seconds)
        return self._refuse("slow", wait) if is_slow else None

    def _is_full(self, caller: str, more: int = 0) -> bool:
        """Whether all slots that this caller's work may help to fill are taken: of a lone caller all there are."""
        if self.works + more < self.slots / 2:
            return False
        others, reserved = self._company(caller), 0.0
        if others and self._works_of.get(caller, 0) >= self.slots / (others + 1):
            reserved = self._reserved(others)
        return self.works + more >= self.slots - reserved

    def _longest(self, caller: str, images: int = 0) -> float:
        """The longest wait for this caller, in seconds: a little more for those who have less work here than others."""
        callers = max(2, len(self._images_of) + (caller not in self._images_of))
        is_modest = self._images_of.get(caller, 0) + images <= (self.images + images) / callers
        return self.max_wait_seconds * (1 + RESERVED_SHARE if is_modest and self._company(caller) else 1)

    def _reserved(self, others: int) -> float:
        """Slots of those who have less than their share: one for each other, but half of all at most."""
        return max(self.slots * RESERVED_SHARE, min(others, self.slots / 2))

    def _company(self, caller: str) -> int:
        """How many others are there: they hold a place, or came of late."""
        return self._there() - (caller in self._came or caller in self._slots_of)

    def _there(self) -> int:
        """How many addresses are."""
        end = self.clock() - THERE_SECONDS
        while self._came and (oldest := next(iter(self._came))) and self._came[oldest] <= end:
            del self._came[oldest]
        return len(self._came.keys() | self._slots_of.keys())

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
        if images:
            subtract(self._images_of, caller, -images)
        if works:
            subtract(self._works_of, caller, -works)

    def _refuse(self, reason: Reason, wait: float) -> Refusal:
        self.refused_total += 1
        return Refusal(reason, max(LEAST_RETRY_AFTER_SECONDS, wait))
