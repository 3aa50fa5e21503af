"""What the predictor needs to know of who asks, and tells them: a place in the engine's line, and how fresh."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, g, has_request_context, request

from app.cache.predictions import ANY_AGE, Found, Freshness
from app.models.routing import CanaryPreference
from app.web.middleware import admission, canary_header
from app.web.middleware.admission import Admitted, Work

HEADER = "X-Cache"
CACHE_CONTROL = "Cache-Control"
# One directive of Cache-Control (RFC 9111, section 5.2).
MAX_AGE = re.compile(r'max-age="?(\d{1,9})"?')


class RequestContext:
    """The current request's; outside of one, as in a thread beside it, it asks for nothing and tells nobody."""

    def work(self, kind: str, images: int, deadline: float) -> Work | None:
        """A block to be entered while the engine is asked; None where nobody had to be admitted."""
        admitted = admission.current()
        return admitted.work(kind, images, deadline) if admitted else None

    def freshness(self) -> Freshness:
        """What Cache-Control and Pragma say; unknown directives say nothing (RFC 9111, section 5.2.3)."""
        return freshness(request.environ) if has_request_context() else ANY_AGE

    def canary(self) -> CanaryPreference:
        """What X-Model-Canary says. Raises OptionError."""
        return canary_header.requested(request) if has_request_context() else ""

    def tell(self, found: Sequence[Found]) -> None:
        """Where the answers are from, for the header of the response."""
        if has_request_context():
            g.setdefault("found_answers", []).extend(found)


@dataclass(frozen=True)
class DetachedContext:
    """The same for threads beside the request's own: what it said is taken along."""

    admitted: Admitted | None
    accepted: Freshness
    requested: CanaryPreference

    @classmethod
    def of_request(cls) -> DetachedContext:
        """Of the current request."""
        asking = RequestContext()
        return cls(admission.current(), asking.freshness(), asking.canary())

    def work(self, kind: str, images: int, deadline: float) -> Work | None:
        """As ``RequestContext``."""
        return self.admitted.work(kind, images, deadline) if self.admitted else None

    def freshness(self) -> Freshness:
        """As ``RequestContext``."""
        return self.accepted

    def canary(self) -> CanaryPreference:
        """As ``RequestContext``."""
        return self.requested

    def tell(self, found: Sequence[Found]) -> None:
        """The answer is made of several; nothing is said of one."""


def init_app(app: Flask) -> None:
    """Say with each answer where it is from."""
    app.after_request(_add_headers)


def freshness(environ: Mapping[str, Any]) -> Freshness:
    """What a request says."""
    text = environ.get("HTTP_CACHE_CONTROL") or environ.get("HTTP_PRAGMA")
    return _freshness(text) if text else ANY_AGE


def _freshness(text: str) -> Freshness:
    directives = [part.strip().lower() for part in text.split(",")]
    ages = [int(match[1]) for part in directives if (match := MAX_AGE.fullmatch(part))]
    if "no-cache" in directives:
        ages.append(0)
    return Freshness(min(ages, default=None), may_keep="no-store" not in directives)


def _add_headers(response: Response) -> Response:
    found: list[Found] | None = g.get("found_answers")
    if found and response.status_code < 400:
        for name, value in headers(found):
            response.headers[name] = value
    return response


def headers(found: Sequence[Found]) -> list[tuple[str, str]]:
    """What an answer says of where it is from."""
    sources = {each.source for each in found}
    source = (HEADER, found[0].source if len(sources) == 1 else "partial")
    if "hit" not in sources:
        return [source]
    # The oldest: all of the answer is at most so old (RFC 9111, section 5.1).
    return [source, ("Age", str(math.floor(max(each.age_seconds for each in found))))]
