"""How many requests a caller may send: counted per address and per token, the same over all processes.

Costs nothing where no limit is set: then nothing of this is put in place.
"""

from __future__ import annotations

import functools
import ipaddress
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, after_this_request, current_app, g, has_request_context, request

from app.config import Settings
from app.errors import TooManyRequestsError
from app.texts import Text
from app.web import policy
from app.web.middleware import authentication

if TYPE_CHECKING:
    from app.ratelimit.counters import Storage

HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy")
# One home or machine has so much of IPv6: it could have a new address for each request.
IPV6_PREFIX = 64
MAX_FULL = 10_000
# Of a limit of 2000 and more a process takes a thousandth at once, at most so many, and counts them by itself.
MAX_LEASE, LEASE_PART = 64, 1000
# Limit, what remains of it, when its window ends (seconds since 1970), and how many seconds that is long.
Rate = tuple[int, int, float, int]


@dataclass
class Lease:
    """Requests that this process counted in advance: ``left`` of the first ``count`` of the window until ``end``."""

    left: int
    count: int
    end: float


@dataclass
class Rates:
    """The limits in force; items are those of the package ``limits``. Thread-safe."""

    storage: Storage
    per_address: tuple[Any, ...]
    per_token: tuple[Any, ...]
    now: Callable[[], float] = time.time
    # Whose window is full, and until when: asked in RAM, so that a flood does not reach the storage.
    _full: dict[str, float] = field(default_factory=dict)
    _leases: dict[str, Lease] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, address: str, token_id: str) -> Rate:
        """Count one request. Returns limit, what remains, when the window ends and its seconds, of the tightest one.

        Raises TooManyRequestsError.
        """
        found = [self._count(item, kind, who) for item, kind, who in self._items(address, token_id)]
        return min(found, key=lambda row: row[1])

    def count_one(self, address: str, token_id: str) -> Rate:
        """The same, of the token where there is one, and else of the address."""
        kind, who, items = (
            ("token", token_id, self.per_token) if token_id else ("address", network(address), self.per_address)
        )
        return min((self._count(item, kind, who) for item in items), key=lambda row: row[1])

    def _items(self, address: str, token_id: str) -> Iterator[tuple[Any, str, str]]:
        for item in self.per_address:
            yield item, "address", network(address)
        if token_id:
            for item in self.per_token:
                yield item, "token", token_id

    def _count(self, item: Any, kind: str, who: str) -> Rate:
        key, now = item.key_for(kind, who), self.now()
        end = self._full.get(key, 0.0)
        # One that ends later than a window is long was noted before the clock was set back.
        if now < end <= now + item.get_expiry():
            raise _too_many(item, kind, end, now)
        count, end = self._counted(key, item, now)
        if count > item.amount:
            self._note_full(key, end, now)
            raise _too_many(item, kind, end, now)
        return item.amount, item.amount - count, end, item.get_expiry()

    def _counted(self, key: str, item: Any, now: float) -> tuple[int, float]:
        """The number of this request in its window, and when that ends; of a large limit mostly without the storage."""
        seconds, size = item.get_expiry(), min(MAX_LEASE, item.amount // LEASE_PART)
        with self._lock:
            lease = self._leases.get(key)
            if lease is not None and lease.left and now < lease.end <= now + seconds:
                lease.left -= 1
                return lease.count - lease.left, lease.end
            if size < 2 or not self._has_room(now):
                size = 1
        count, end = self.storage.count(key, seconds, size)
        before = count - size
        if (granted := min(size, item.amount - before)) > 1:
            with self._lock:
                # Another thread may have taken some meanwhile.
                kept = self._leases.get(key)
                left = kept.left if kept is not None and now < kept.end <= now + seconds else 0
                self._leases[key] = lease = Lease(left + granted - 1, before + granted, end)
                return lease.count - lease.left, end
        return before + 1, end

    def _has_room(self, now: float) -> bool:
        """Whether another caller may have counts of its own here."""
        if len(self._leases) >= MAX_FULL:
            self._leases = {key: lease for key, lease in self._leases.items() if now < lease.end}
        return len(self._leases) < MAX_FULL

    def _note_full(self, key: str, end: float, now: float) -> None:
        if len(self._full) >= MAX_FULL:
            for each, until in list(self._full.items()):
                if until <= now:
                    self._full.pop(each, None)
        if len(self._full) < MAX_FULL:
            self._full[key] = end


def init_app(app: Flask, settings: Settings) -> None:
    """Count requests where limits are set. After ``identify``, so that tokens are known; before ``authorize``, so that
    wrong tokens count too.
    """
    if not settings.rate_limit_per_address and not settings.rate_limit_per_token:
        return
    rates = make(settings)
    app.extensions["rates"] = rates

    @app.before_request
    def count_request() -> None:
        if not policy.of(app, request.endpoint).is_limited or request.method == "OPTIONS":
            return
        token = authentication.caller()
        address = request.environ.get("REMOTE_ADDR", "")
        if rates.per_address or token is not None:
            g.rate = rates.count(address, token.id if token else "")

    app.after_request(tell)


def make(settings: Settings) -> Rates:
    """The limits of these settings, counted where all processes count. The package is read here, only where needed."""
    from limits import parse

    from app.ratelimit import counters

    return Rates(
        counters.make(settings.state_dir, settings.redis_address),
        tuple(parse(each) for each in settings.rate_limit_per_address),
        tuple(parse(each) for each in settings.rate_limit_per_token),
    )


def of_route(app: Flask, settings: Settings, endpoint: str, texts: tuple[str, ...]) -> Rates:
    """Limits of one view, such as ``30 per minute``, counted apart for each token, or address without one."""
    from limits import parse

    shared = app.extensions.get("rates") or app.extensions.get("route_rates")
    if shared is None:
        shared = app.extensions["route_rates"] = make(settings)
    items = tuple(parse(text) for text in texts)
    for item in items:
        item.namespace = f"LIMITER/{endpoint}"
    return Rates(shared.storage, items, items)


def limited(view: Callable[..., Any], rates: Rates) -> Callable[..., Any]:
    """The view behind limits of its own. Raises TooManyRequestsError when called too often."""

    @functools.wraps(view)
    def count_first(*arguments: Any, **named: Any) -> Any:
        after_this_request(tell)
        token = authentication.caller()
        found = rates.count_one(request.environ.get("REMOTE_ADDR", ""), token.id if token else "")
        before = g.get("rate")
        g.rate = found if before is None else min(before, found, key=lambda row: row[1])
        return current_app.ensure_sync(view)(*arguments, **named)

    return count_first


def network(address: str) -> str:
    """Who is counted as one: an address of IPv4, 2^64 of IPv6."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address, IPV6_PREFIX), strict=False))
    except ValueError:
        return address


def _too_many(item: Any, kind: str, end: float, now: float) -> TooManyRequestsError:
    error = TooManyRequestsError(
        "This %(kind)s may send %(amount)s requests in %(seconds)s s, and has sent them.",
        hint="Send it again after the time in Retry-After, and spread requests out.",
        retry_after_seconds=max(1.0, end - now),
        kind=Text("token") if kind == "token" else Text("address"),
        amount=item.amount,
        seconds=item.get_expiry(),
    )
    error.rate = (item.amount, 0, end, item.get_expiry())
    if has_request_context():
        g.rate = error.rate
    return error


def tell(response: Response) -> Response:
    """Add what is left of the limit, where the request was counted."""
    rate = g.get("rate")
    if rate is not None:
        for name, value in headers(rate):
            response.headers[name] = value
    return response


def headers(rate: Rate) -> Iterator[tuple[str, str]]:
    """What an answer says of the tightest limit."""
    limit, remaining, end, seconds = rate
    values = (limit, remaining, max(0, math.ceil(end - time.time())), f"{limit};w={seconds}")
    return zip(HEADERS, map(str, values), strict=True)
