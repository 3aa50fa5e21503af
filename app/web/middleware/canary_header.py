"""X-Model-Canary: whether a caller wants the version that is being tried out, or surely not."""

from __future__ import annotations

from typing import cast, get_args

from flask import Request

from app.errors import OptionError
from app.models.routing import CanaryPreference

HEADER = "X-Model-Canary"


def requested(request: Request) -> CanaryPreference:
    """What the header says; empty when it is not there, and then the canary's share decides. Raises OptionError."""
    text = request.headers.get(HEADER, "").strip().lower()
    if text not in get_args(CanaryPreference):
        raise OptionError(
            "%(name)s is %(value)s.", hint="One of: always, never; or leave it out.", name=HEADER, value=repr(text[:40])
        )
    return cast(CanaryPreference, text)
