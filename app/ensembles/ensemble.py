"""Several members asked at the same time: models of this service, and other services. Says who did not answer, and why.

No Flask. Each member has a deadline of its own; what one lacks, the others make up for.
"""

from __future__ import annotations

import concurrent.futures
import http
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from app.config import Settings
from app.ensembles.upstream_answers import Opinion, UpstreamError
from app.ensembles.upstreams import Upstream, late
from app.errors import CaskError, DeadlineExceededError, RequestError, UnavailableError
from app.host import sizing
from app.supervision import pulse
from app.telemetry import logs, metrics
from app.texts import Text

log = logging.getLogger("cask.web")

# Models of ours in work at once, in each process.
THREADS = 16
# Of the places of a web process so many, at most, wait for other services, the same number for each.
WAITING_SHARE = 0.5
Kind = Literal["model", "upstream"]


class EnsembleFailedError(CaskError):
    """No member of the ensemble gave an answer."""

    code = "ensemble_failed"
    status = 502
    title = "No member answered"


class EnsembleUnavailableError(UnavailableError):
    """No member of the ensemble can answer now, but some may soon."""

    code = "ensemble_unavailable"
    title = "No member can answer now"


@dataclass(frozen=True)
class Member:
    """Who is asked. ``ask`` is given a moment of ``time.monotonic`` by which it must answer."""

    name: str
    kind: Kind
    ask: Callable[[float], Opinion]


@dataclass(frozen=True)
class Answered:
    """A member with what it said, and how long that took."""

    member: Member
    opinion: Opinion
    milliseconds: float


@dataclass(frozen=True)
class Missing:
    """A member without an answer, and why."""

    member: Member
    error: CaskError


@dataclass
class Votes:
    """Who answered and who did not, both in the order in which they were named."""

    answered: list[Answered] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


class _UpstreamQueue:
    """Threads that ask one other service, and no more requests than threads: the next is told at once."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"ensemble-{name}")
        self._free = threading.BoundedSemaphore(threads)

    def submit(self, member: Member, deadline: float, request_id: str) -> Future[Answered]:
        if not self._free.acquire(blocking=False):
            return _failed(
                UpstreamError(
                    "So many requests wait for %(name)s already that this one does not.",
                    upstream_status=http.HTTPStatus.SERVICE_UNAVAILABLE,
                    retry_after_seconds=1.0,
                    name=self.name,
                )
            )
        asked = self._pool.submit(_ask, member, deadline, request_id)
        asked.add_done_callback(lambda _: self._free.release())
        return asked


class FanOut:
    """Asks members at the same time. One for each process; its threads start with the first request.

    Each other service has threads of its own: who waits for one that is away keeps nobody from the others.
    """

    def __init__(self, threads: int = THREADS, upstreams: Mapping[str, int] | None = None) -> None:
        """``threads`` for models of ours; ``upstreams``: how many requests may wait for each other service."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ensemble")
        self._queues = {name: _UpstreamQueue(name, count) for name, count in (upstreams or {}).items()}

    def _submit(self, member: Member, deadline: float, request_id: str) -> Future[Answered]:
        if member.kind == "upstream" and member.name in self._queues:
            return self._queues[member.name].submit(member, deadline, request_id)
        return self._pool.submit(_ask, member, deadline, request_id)

    def ask(self, members: Sequence[Member], deadline: float) -> Votes:
        """Everybody's answer, as far as it came by ``deadline``, a moment of ``time.monotonic``.

        Raises RequestError where the request itself is at fault, and where nobody answered EnsembleUnavailableError,
        EnsembleFailedError or DeadlineExceededError.
        """
        request_id = logs.request_id.get()
        asked = [(each, self._submit(each, deadline, request_id)) for each in members]
        try:
            concurrent.futures.wait([each for _, each in asked], max(0.0, deadline - time.monotonic()))
        finally:
            for _, each in asked:
                # Those that have not begun never will.
                each.cancel()
        votes = Votes()
        for member, future in asked:
            _sort_in(votes, member, future)
        if not votes.answered:
            raise _nobody(votes.missing)
        for lacking in votes.missing:
            name, error = lacking.member.name, lacking.error
            metrics.FAILED_PARTS.add(part="member", code=error.code)
            log.warning("an ensemble answered without %s: %s: %s", name, error.code, error.message)
        return votes


def _failed(error: CaskError) -> Future[Answered]:
    future = Future[Answered]()
    future.set_exception(error)
    return future


def _ask(member: Member, deadline: float, request_id: str) -> Answered:
    logs.request_id.set(request_id)
    pulse.begin()
    began = time.monotonic()
    if began >= deadline:
        raise late(member.name)
    opinion = member.ask(deadline)
    return Answered(member, opinion, (time.monotonic() - began) * 1000)


def _sort_in(votes: Votes, member: Member, future: Future[Answered]) -> None:
    if future.cancelled() or not future.done():
        votes.missing.append(Missing(member, late(member.name)))
        return
    error = future.exception()
    if error is None:
        votes.answered.append(future.result())
    elif isinstance(error, RequestError) and member.kind == "model":
        # An image that one model cannot read, none can; and an option that is wrong is wrong for all.
        raise error
    elif isinstance(error, CaskError):
        votes.missing.append(Missing(member, error))
    else:
        raise error


def _nobody(missing: Sequence[Missing]) -> CaskError:
    """Why there is no answer at all, as one failure: try again, too late, or broken."""
    said = Text("None of %(count)s members answered.", count=len(missing))
    for each in missing:
        said = Text("%(first)s %(then)s", first=said, then=each.error.message)
    passing = [each.error for each in missing if _is_passing(each.error)]
    if passing:
        seconds = min((each.retry_after_seconds or 1.0) for each in passing)
        return EnsembleUnavailableError(
            said, hint="Send it again after the time in Retry-After.", retry_after_seconds=seconds
        )
    if all(isinstance(each.error, DeadlineExceededError) for each in missing):
        return DeadlineExceededError(said, hint="Allow more time with member_timeout and X-Request-Timeout.")
    return EnsembleFailedError(
        said, hint="Tell the operator of this service the request id, under which the log has more."
    )


def _is_passing(error: CaskError) -> bool:
    return isinstance(error, UnavailableError) or (
        isinstance(error, UpstreamError) and error.upstream_status in (429, 503)
    )


@dataclass(frozen=True)
class Ensemble:
    """What a web process has of it: threads, the other services by name, and the time that members have."""

    fan_out: FanOut
    upstreams: Mapping[str, Upstream]
    timeout_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Ensemble:
        """Knows the services that the settings name, and no others; nobody is asked yet."""
        pairs = [upstream.partition("=") for upstream in settings.ensemble_upstreams]
        token, ca_file = settings.ensemble_token.get_secret_value(), settings.ensemble_ca_file
        upstreams = {name: Upstream(name, url, token, ca_file) for name, _, url in pairs}
        places = sizing.choose(settings).web_places.value
        waiting = max(1, int(places * WAITING_SHARE / max(1, len(upstreams))))
        fan_out = FanOut(upstreams=dict.fromkeys(upstreams, waiting))
        return cls(fan_out, upstreams, settings.ensemble_timeout_seconds)
