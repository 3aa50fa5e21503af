"""Answers in JSON hold no NaN and no infinity, which are no JSON (RFC 8259, section 6)."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider


class FiniteJSONProvider(DefaultJSONProvider):
    """Flask's own, with keys in the order in which they were written."""

    sort_keys = False

    def dumps(self, obj: Any, **how: Any) -> str:
        """Raises ValueError for a number that is not finite: better no answer than one that no client can read."""
        return super().dumps(obj, **{"allow_nan": False, **how})


def init_app(app: Flask) -> None:
    """Write every answer so."""
    app.json = FiniteJSONProvider(app)
