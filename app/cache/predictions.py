"""The door to kept answers: looks them up, computes the others once, and has them written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flask import Flask
from flask_caching import Cache
from flask_caching.backends.base import BaseCache

from app.cache import entries
from app.cache.disk import FILE_NAME, DiskStore
from app.cache.entries import Entry
from app.cache.guarded_store import NAME, GuardedStore
from app.cache.recent import Recent
from app.cache.remote import RemoteStore
from app.cache.single_flight import Flight, Flights
from app.cache.writer import Keeper
from app.config import Settings
from app.host import sizing
from app.models.manifests import Task
from app.storage.circuit_breaker import CircuitBreaker
from app.telemetry import metrics

# hit: it was kept; shared: an equal request in flight was waited for; miss: it was computed for this request;
# bypass: it was computed because the caller wanted so.
Source = Literal["hit", "shared", "miss", "bypass"]
COUNTED: dict[Source, str] = {"hit": "hit", "shared": "shared", "miss": "miss", "bypass": "off"}


# Of the places for requests, those that may wait for long for the answer to an equal one.
FOLLOWING_SHARE = 0.3


@dataclass(frozen=True)
class Freshness:
    """What a caller accepts (RFC 9111, section 5.2.1).

    ``max_age_seconds``: no older answers; 0 is none at all. ``may_keep``: whether the new answer may be kept.
    """

    max_age_seconds: float | None = None
    may_keep: bool = True

    @property
    def may_be_kept(self) -> bool:
        """Whether a kept answer will do."""
        return self.may_keep and (self.max_age_seconds is None or self.max_age_seconds > 0)


ANY_AGE = Freshness()


@dataclass(frozen=True)
class Found:
    """One image's answer and where it is from. ``age_seconds``: since it was computed."""

    entry: Entry
    source: Source
    age_seconds: float = 0.0


@dataclass(frozen=True)
class Computed:
    """A new answer and the key it belongs under: how it was computed is known for sure only afterwards."""

    entry: Entry
    key: str


# Numbers of images → their new answers, in that order.
Compute = Callable[[Sequence[int]], Sequence[Computed]]


class PredictionCache:
    """One for each process. Thread-safe."""

    def __init__(
        self,
        store: GuardedStore,
        keep_seconds: float,
        clock: Callable[[], float] = time.time,
        flights: Flights | None = None,
    ) -> None:
        self.store = store
        self.keeper = Keeper(store)
        self._recent = Recent()
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._flights = flights or Flights()

    def gather(
        self, task: Task, keys: Sequence[str], compute: Compute, deadline: float, freshness: Freshness = ANY_AGE
    ) -> list[Found]:
        """An answer for each key, in order. ``deadline``: a moment of ``time.monotonic``, this caller's own.

        Raises what ``compute`` raises, and DeadlineExceededError.
        """
        if not freshness.may_be_kept:
            found = self._compute_all(keys, compute, freshness)
        else:
            found = self._gather(task, keys, compute, deadline, freshness)
        for each in found:
            metrics.CACHE_LOOKUPS.add(result=COUNTED[each.source])
        return found

    def _compute_all(self, keys: Sequence[str], compute: Compute, freshness: Freshness) -> list[Found]:
        computed = compute(range(len(keys)))
        for each in computed if freshness.may_keep else ():
            self._keep(each)
        return [Found(each.entry, "bypass") for each in computed]

    def _gather(
        self, task: Task, keys: Sequence[str], compute: Compute, deadline: float, freshness: Freshness
    ) -> list[Found]:
        oldest, landed = self._oldest(freshness), self._flights.landed_total
        found = self._look(task, keys, oldest)
        while len(found) < len(set(keys)):
            led, followed = self._flights.join([key for key in keys if key not in found])
            # Somebody may have landed one between our look and our joining.
            landing = self._at_hand(led, oldest) if self._flights.landed_total != landed else {}
            # First our own, then those of others: nobody waits for somebody who waits.
            if led:
                found |= self._lead(keys, led, compute, landing)
            for key, flight in followed.items():
                if not self._flights.follow(flight, deadline):
                    # It may be one of many images, or stuck: there is time left to compute it here.
                    self._flights.overtake(key, flight)
                elif flight.entry is not None:
                    found[key] = Found(flight.entry, "shared")
        return [found[key] for key in keys]

    def _lead(
        self, keys: Sequence[str], led: Mapping[str, Flight], compute: Compute, landing: dict[str, Entry]
    ) -> dict[str, Found]:
        """Compute what nobody else computes and is not ``landing`` yet. However it ends, those who wait are told."""
        missing = [key for key in led if key not in landing]
        try:
            if missing:
                computed = compute([keys.index(key) for key in missing])
                for key, each in zip(missing, computed, strict=True):
                    landing[key] = each.entry
                    self._keep(each)
        finally:
            for key, flight in led.items():
                self._flights.land(key, flight, landing.get(key))
        return {key: Found(entry, "miss" if key in missing else "shared") for key, entry in landing.items()}

    def _keep(self, computed: Computed) -> None:
        if not computed.entry.is_kept:
            return
        self._recent.put(computed.key, computed.entry)
        self.keeper.keep(computed.key, computed.entry)

    def _oldest(self, freshness: Freshness) -> float:
        """The moment before which an answer is too old."""
        most = freshness.max_age_seconds
        return self._clock() - (self._keep_seconds if most is None else min(self._keep_seconds, most))

    def _look(self, task: Task, keys: Sequence[str], oldest: float) -> dict[str, Found]:
        found = self._at_hand(keys, oldest)
        left = [key for key in dict.fromkeys(keys) if key not in found]
        for key, text in zip(left, self.store.get_many(left), strict=True) if left else ():
            if text is not None and (entry := entries.from_text(task, text, oldest)) is not None:
                found[key] = entry
                self._recent.put(key, entry)
        now = self._clock()
        return {key: Found(entry, "hit", max(0.0, now - entry.kept_at)) for key, entry in found.items()}

    def _at_hand(self, keys: Iterable[str], oldest: float) -> dict[str, Entry]:
        """Those that are not written yet, or were asked for of late."""
        found = {}
        for key in keys:
            entry = self._recent.get(key) or self.keeper.find(key)
            if entry is not None and entry.kept_at >= oldest:
                found[key] = entry
        return found


def init_app(app: Flask, settings: Settings) -> PredictionCache | None:
    """Open the store that the settings name; None where answers are not kept."""
    if settings.cache == "off":
        return None
    door = Cache(with_jinja2_ext=False)
    door.init_app(app, _config(settings))
    backend = app.extensions["cache"][door]
    may_hold = backend.may_hold if isinstance(backend, DiskStore) else None
    # Opened beside the first request, by one thread: not by many at once, nor by whoever only looks whether the app can
    # be made, which may be root.
    store = GuardedStore(door, CircuitBreaker(NAME, backend.probe, is_open=True), may_hold)
    most_waiting = max(1, int(sizing.choose(settings).web_places.value * FOLLOWING_SHARE))
    return PredictionCache(store, settings.cache_seconds, flights=Flights(most_waiting))


def _config(settings: Settings) -> dict[str, object]:
    url = settings.redis_address
    backend: type[BaseCache] = DiskStore
    wants: dict[str, object] = {"path": settings.state_dir / FILE_NAME, "max_bytes": settings.cache_max_bytes}
    if settings.cache == "redis" or (settings.cache == "auto" and url):
        backend, wants = RemoteStore, {"url": url}
    return {
        "CACHE_TYPE": f"{backend.__module__}.{backend.__name__}",
        "CACHE_DEFAULT_TIMEOUT": settings.cache_seconds,
        "CACHE_OPTIONS": wants,
    }
