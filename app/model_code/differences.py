"""Where two answers of a model differ, as JSON values: numbers within a tolerance, pictures by their pixels."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

# Of two pictures that a model answers with, so many pixels may differ.
PIXELS_SHARE = 0.01
PNG_START = base64.b64encode(b"\x89PNG\r\n").decode()
SHOWN = 60


def difference(stored: Any, now: Any, tolerance: float, where: str = "the answer") -> str:
    """The first one, in words; empty where there is none.

    Numbers may differ by ``tolerance``, or that part of the stored one where it is larger than 1.
    """
    if isinstance(stored, dict) and isinstance(now, dict) and stored.keys() == now.keys():
        return _first(difference(stored[key], now[key], tolerance, f"{where}.{key}") for key in stored)
    if isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        pairs = enumerate(zip(stored, now, strict=True))
        return _first(difference(*pair, tolerance, f"{where}[{n}]") for n, pair in pairs)
    if _is_number(stored) and _is_number(now):
        is_same = abs(stored - now) <= tolerance * max(1.0, abs(stored))
    elif _is_png(stored) and _is_png(now):
        is_same = _are_like_pictures(stored, now)
    else:
        is_same = stored == now and type(stored) is type(now)
    return "" if is_same else f"{where} is {_shown(now)}, stored is {_shown(stored)}"


def largest(first: Any, second: Any) -> float:
    """The largest difference of two numbers at the same place; 0 where there is none."""
    if isinstance(first, dict) and isinstance(second, dict):
        return max((largest(first[key], second[key]) for key in first.keys() & second.keys()), default=0.0)
    if isinstance(first, list) and isinstance(second, list):
        return max((largest(*pair) for pair in zip(first, second, strict=False)), default=0.0)
    return float(abs(first - second)) if _is_number(first) and _is_number(second) else 0.0


def _first(found: Iterator[str]) -> str:
    return next(filter(None, found), "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_png(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(PNG_START)


def _are_like_pictures(stored: str, now: str) -> bool:
    """Compressed elsewhere, the same pixels have other bytes."""
    try:
        first, second = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(t)), formats=["PNG"])) for t in (stored, now)
        )
    except (OSError, ValueError):
        return False
    return first.shape == second.shape and float((first != second).mean()) <= PIXELS_SHARE


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
