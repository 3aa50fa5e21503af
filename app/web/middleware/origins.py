"""Whether a browser sends a form because another site made it do so; such a request would carry this site's cookie."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import request

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OURS = ("same-origin", "none")  # none: the person typed the address


def is_foreign() -> bool:
    """Whether the current request comes from a page of another origin.

    Browsers say so in Sec-Fetch-Site where the page came over HTTPS or from this machine, and in Origin with every
    POST. What says neither is no browser, and nobody's cookie can be misused by it.
    """
    site = request.environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site not in OURS
    origin = request.environ.get("HTTP_ORIGIN")
    return origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()


def is_changing(methods: Iterable[str]) -> bool:
    """Whether one of these methods may change something."""
    return bool(set(methods) - set(SAFE_METHODS))


def is_forged() -> bool:
    """Whether it is foreign and would change something."""
    return request.method not in SAFE_METHODS and is_foreign()
