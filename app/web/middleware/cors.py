"""Which pages of other origins may call us from a browser (CORS_ORIGINS). Apache says so on all it sends; under other
servers it is said here.

Never with cookies: a page elsewhere calls with a token of its own, and a person's session stays with our own pages.
"""

from __future__ import annotations

import re

from flask import Flask, Response, request

from app.config import Settings
from app.web.middleware import authentication, rate_limits

# The word in the settings; env files hold no asterisk.
ALL = "all"
ANY = "*"
METHODS = "GET, HEAD, POST, DELETE"
# What a page may send besides what every page may.
ASKED = (
    *(authentication.HEADER, "Authorization", "Content-Type", "X-Request-Id", "X-Request-Timeout", "X-Model-Canary"),
    *("Cache-Control", "Idempotency-Key", "If-None-Match", "Inference-Header-Content-Length", "traceparent"),
)
# What a page may read besides what every page may.
TOLD = (
    *("X-Request-Id", "Retry-After", "Server-Timing", "Location", "ETag", "Age", "X-Cache", "WWW-Authenticate"),
    *("Inference-Header-Content-Length", *rate_limits.HEADERS),
)
# So long a browser need not ask again.
MAX_AGE_SECONDS = 600


def answer_headers(origin: str) -> dict[str, str]:
    """For every answer to an origin that may call; ``origin`` as it is to be told, or ``*``."""
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": ", ".join(TOLD)}


def preflight_headers() -> dict[str, str]:
    """For the answer to a browser that asks, before the request itself, whether it may send it."""
    return {
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": ", ".join(ASKED),
        "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
    }


def pattern(settings: Settings) -> str:
    """A regular expression for the origins that may call."""
    return ".+" if ALL in settings.cors_origins else "|".join(map(re.escape, settings.cors_origins))


def init_app(app: Flask, settings: Settings) -> None:
    """Tell browsers, where origins are named and no Apache does."""
    if not settings.cors_origins or app.extensions.get("is_under_apache"):
        return
    allowed = re.compile(pattern(settings), re.IGNORECASE)
    is_any = ALL in settings.cors_origins

    @app.after_request
    def tell(response: Response) -> Response:
        if not is_any:
            response.vary.add("Origin")
        origin = request.headers.get("Origin", "")
        if allowed.fullmatch(origin):
            response.headers.update(answer_headers(ANY if is_any else origin))
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                response.headers.update(preflight_headers())
        return response
