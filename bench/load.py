"""Load from one thread and an epoll: callers in a closed loop, or arrivals by chance in an open one.

Closed: N callers with a connection each ask again as soon as they are answered; it finds the throughput.
Open: arrivals of a Poisson process, a new connection each, and latency counted from the moment at which the request
*should* have gone out; a server that falls behind cannot slow its callers down, as in life.
It shares the machine with the server, so it is kept cheap, and its own use of the processor is reported.
"""

from __future__ import annotations

import heapq
import itertools
import random
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from bench import exchange
from bench.exchange import Exchange, PeerClosedError, Response
from bench.requests import Request

TIMEOUT_SECONDS = 10.0
# A refused caller comes back after Retry-After, as good clients do; after this where nothing is said.
REFUSED_PAUSE_SECONDS = 0.05
SWEEP_SECONDS = 0.1
WARM_SECONDS = 0.5
REFUSALS = (429, 503)

Judge = Callable[[bytes], str]


class Record(NamedTuple):
    """How one request ended. Moments are seconds of ``time.perf_counter``; ``lane`` is what it was sent for.

    ``outcome``: right, wrong (another label), refused (429, 503), failed (another status), reset, late (no answer
    within the timeout).
    """

    lane: str
    outcome: str
    intended: float
    finished: float

    @property
    def latency_ms(self) -> float:
        return (self.finished - self.intended) * 1000


@dataclass(frozen=True)
class Run:
    """All requests that ended in one measurement. ``own_cores``: processor time of the load generator per second."""

    records: list[Record]
    seconds: float
    own_cores: float

    def latencies_ms(self, outcome: str = "right", lane: str = "load") -> list[float]:
        """Latencies of the requests that ended so, in milliseconds."""
        return [each.latency_ms for each in self.records if each.outcome == outcome and each.lane == lane]

    def count(self, outcome: str, lane: str = "load") -> int:
        """How many requests ended so."""
        return sum(1 for each in self.records if each.outcome == outcome and each.lane == lane)

    def rate(self, outcome: str = "right", lane: str = "load") -> float:
        """Requests a second that ended so."""
        return self.count(outcome, lane) / self.seconds


@dataclass(eq=False, slots=True)
class _Flight:
    """One request on its way."""

    lane: str
    request: Request
    intended: float
    exchange: Exchange
    judge: Judge
    is_reused: bool
    on_end: Callable[[_Flight, str, Response | None], None]
    mask: int = 0
    began: float = field(default_factory=time.perf_counter)


class Driver:
    """The event loop: flights by file descriptor, and actions by moment."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.records: list[Record] = []
        self._epoll = select.epoll()
        self._flights: dict[int, _Flight] = {}
        self._actions: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._swept = 0.0

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Do something at a moment, or as soon after it as the loop comes round."""
        heapq.heappush(self._actions, (moment, next(self._order), action))

    def run_until(self, moment: float, is_done: Callable[[], bool] = lambda: False) -> None:
        """Turn until the moment, or until something is done."""
        while (now := time.perf_counter()) < moment and not is_done():
            while self._actions and self._actions[0][0] <= now:
                heapq.heappop(self._actions)[2]()
            next_at = min(moment, self._actions[0][0] if self._actions else moment)
            wait = min(max(0.0, next_at - time.perf_counter()), SWEEP_SECONDS)
            for descriptor, events in self._epoll.poll(wait):
                self._handle(descriptor, events)
            self._sweep(now)

    def close(self) -> None:
        """Give up what is still on its way."""
        for flight in list(self._flights.values()):
            exchange.close(flight.exchange.sock)
        self._flights.clear()
        self._epoll.close()

    def send(
        self,
        lane: str,
        request: Request,
        judge: Judge,
        on_end: Callable[[_Flight, str, Response | None], None],
        *,
        intended: float | None = None,
        sock: object = None,
    ) -> None:
        """Send a request on a new connection, or on one that an earlier flight left open."""
        moment = time.perf_counter() if intended is None else intended
        try:
            line = sock if sock is not None else exchange.connect(self.port)
        except PeerClosedError:
            self.records.append(Record(lane, "reset", moment, time.perf_counter()))
            return
        made = Exchange(line, request)  # type: ignore[arg-type]
        flight = _Flight(lane, request, moment, made, judge, sock is not None, on_end)
        self._flights[made.sock.fileno()] = flight
        # A new connection of loopback is there at once, as a rule; else the kernel says so, and when it is.
        made.write()
        self._watch(flight)

    def _watch(self, flight: _Flight) -> None:
        """Ask the kernel for what this flight waits for; as few calls as can be."""
        wanted = select.EPOLLIN | (0 if flight.exchange.is_sent else select.EPOLLOUT)
        if flight.mask == 0:
            self._epoll.register(flight.exchange.sock.fileno(), wanted)
        elif flight.mask != wanted:
            self._epoll.modify(flight.exchange.sock.fileno(), wanted)
        flight.mask = wanted

    def _handle(self, descriptor: int, events: int) -> None:
        flight = self._flights.get(descriptor)
        if flight is None:
            return
        if events & select.EPOLLOUT and not flight.exchange.is_sent:
            flight.exchange.write()
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            try:
                response = flight.exchange.read()
            except PeerClosedError as error:
                self._broken(flight, error)
                return
            if response is not None:
                self._end(flight, _outcome(flight, response), response)
                return
        self._watch(flight)

    def _broken(self, flight: _Flight, error: PeerClosedError) -> None:
        """A kept connection may have been closed meanwhile, as every client knows: then once more on a new one."""
        if not (flight.is_reused and error.is_silent):
            self._end(flight, "reset", None)
            return
        self._forget(flight, stays=False)
        self.send(flight.lane, flight.request, flight.judge, flight.on_end, intended=flight.intended)

    def _end(self, flight: _Flight, outcome: str, response: Response | None) -> None:
        self._forget(flight, stays=response is not None and response.can_stay)
        self.records.append(Record(flight.lane, outcome, flight.intended, time.perf_counter()))
        flight.on_end(flight, outcome, response)

    def _forget(self, flight: _Flight, *, stays: bool) -> None:
        descriptor = flight.exchange.sock.fileno()
        del self._flights[descriptor]
        if stays:
            self._epoll.unregister(descriptor)
        else:
            # The kernel watches no closed one.
            exchange.close(flight.exchange.sock)

    def _sweep(self, now: float) -> None:
        """End what has waited too long."""
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        for flight in [each for each in self._flights.values() if now - each.began > TIMEOUT_SECONDS]:
            self._end(flight, "late", None)


def _outcome(flight: _Flight, response: Response) -> str:
    if response.status in REFUSALS:
        return "refused"
    if response.status != 200:
        return "failed"
    if flight.request.expected is None:
        return "right"
    try:
        return "right" if flight.judge(response.body) == flight.request.expected else "wrong"
    except (ValueError, KeyError, IndexError, TypeError):
        return "failed"


# ------------------------------------------------------------------------------------------------------- closed loop


def closed(
    port: int,
    requests: Iterator[Request],
    judge: Judge,
    callers: int,
    seconds: float,
    warm_seconds: float = WARM_SECONDS,
    *,
    heeds_refusals: bool = True,
) -> Run:
    """N callers that ask again as soon as they are answered; requests that end in the measured span count.

    ``heeds_refusals``: a caller that is refused first waits for the time in Retry-After.
    """
    driver = Driver(port)

    def ask(sock: object = None) -> None:
        driver.send("load", next(requests), judge, again, sock=sock)

    def again(flight: _Flight, outcome: str, response: Response | None) -> None:
        kept = flight.exchange.sock if response is not None and response.can_stay else None
        if outcome == "reset" or (outcome == "refused" and heeds_refusals):
            asked_pause = response.retry_after_seconds if response is not None else 0.0
            driver.at(time.perf_counter() + (asked_pause or REFUSED_PAUSE_SECONDS), lambda: ask(kept))
        else:
            ask(kept)

    for _ in range(callers):
        ask()
    driver.run_until(time.perf_counter() + warm_seconds)
    driver.records.clear()
    began, used = time.perf_counter(), time.process_time()
    driver.run_until(began + seconds)
    elapsed, own = time.perf_counter() - began, time.process_time() - used
    driver.close()
    return Run(driver.records, elapsed, own / elapsed)


# --------------------------------------------------------------------------------------------------------- open loop


@dataclass(frozen=True)
class Lane:
    """One stream of arrivals: what it is called, how many a second, what it sends and how answers are read.

    ``start`` and ``seconds``: from when, after the beginning of the run, and for how long. ``is_regular``: evenly
    spaced, not by chance.
    """

    name: str
    rate: float
    seconds: float
    requests: Iterator[Request]
    judge: Judge
    start: float = 0.0
    is_regular: bool = False


def arrivals(rate: float, seconds: float, seed: int, *, is_regular: bool = False) -> list[float]:
    """Moments in [0, seconds) of a Poisson process with this many events a second; evenly spaced when regular."""
    rng = random.Random(seed)  # noqa: S311 - chance, not a secret
    moments: list[float] = []
    moment = 0.0
    while True:
        moment += 1 / rate if is_regular else rng.expovariate(rate)
        if moment >= seconds:
            return moments
        moments.append(moment)


def open_loop(
    port: int, lanes: list[Lane], *, seed: int = 0, is_done: Callable[[list[Record], float], bool] | None = None
) -> Run:
    """All lanes side by side, then wait for what is under way. ``seconds`` and ``own_cores`` are of the first lane.

    ``is_done`` is asked with the records so far and the moment at which the first lane ended, and may end it early.
    """
    driver = Driver(port)
    began = time.perf_counter() + 0.05
    first_end = began + lanes[0].start + lanes[0].seconds
    planned = sum(_plan(driver, lane, began + lane.start, seed) for lane in lanes)
    used = time.process_time()
    driver.run_until(first_end)
    own = (time.process_time() - used) / lanes[0].seconds
    last_end = began + max(lane.start + lane.seconds for lane in lanes) + TIMEOUT_SECONDS + 1
    driver.run_until(
        last_end,
        lambda: len(driver.records) >= planned or (is_done is not None and is_done(driver.records, first_end)),
    )
    driver.close()
    return Run(driver.records, lanes[0].seconds, own)


def _plan(driver: Driver, lane: Lane, began: float, seed: int) -> int:
    """Put a lane's arrivals into the driver's calendar; how many there are."""
    moments = arrivals(lane.rate, lane.seconds, seed, is_regular=lane.is_regular)
    for moment in moments:
        driver.at(began + moment, _sender(driver, lane, began + moment))
    return len(moments)


def _sender(driver: Driver, lane: Lane, intended: float) -> Callable[[], None]:
    def send() -> None:
        driver.send(lane.name, next(lane.requests), lane.judge, _close, intended=intended)

    return send


def _close(flight: _Flight, _outcome: str, response: Response | None) -> None:
    if response is not None and response.can_stay:
        exchange.close(flight.exchange.sock)


# -------------------------------------------------------------------------------------------------------- one request


def once(port: int, request: Request, judge: Judge, timeout_seconds: float = 5.0) -> Record:
    """Send one request on a new connection and wait for its end; ``late`` when there is none in time."""
    driver = Driver(port)
    began = time.perf_counter()
    driver.send("once", request, judge, _close)
    driver.run_until(began + timeout_seconds, lambda: bool(driver.records))
    driver.close()
    return driver.records[0] if driver.records else Record("once", "late", began, time.perf_counter())
