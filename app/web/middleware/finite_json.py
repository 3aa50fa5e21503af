"""Answers in JSON hold no NaN and no infinity, which are no JSON (RFC 8259, section 6)."""

from __future__ import annotations

import functools
import json
from typing import Any

from flask import Flask
from flask.json.provider import DefaultJSONProvider


class FiniteJSONProvider(DefaultJSONProvider):
    """Flask's own, with keys in the order in which they were written."""

    sort_keys = False

    def dumps(self, obj: Any, **how: Any) -> str:
        """Raises ValueError for a number that is not finite: better no answer than one that no client can read."""
        return super().dumps(obj, **{"allow_nan": False, **how})

    def encode(self, document: dict[str, Any]) -> bytes:
        """The bytes of a whole answer, as ``jsonify`` writes them, with one encoder for all."""
        return self._encoder.encode(document).encode() + b"\n"

    @functools.cached_property
    def _encoder(self) -> json.JSONEncoder:
        return json.JSONEncoder(
            ensure_ascii=self.ensure_ascii, allow_nan=False, separators=(",", ":"), default=self.default
        )


def init_app(app: Flask) -> None:
    """Write every answer so."""
    app.json = FiniteJSONProvider(app)
