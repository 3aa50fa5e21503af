"""Limits that the class of a model declares: its longest call, and its memory."""

from __future__ import annotations

import math
from pathlib import Path

import cask
from app.model_code.model_class import SignatureError

# Name → least, most, as in the manifest.
RANGES = {"timeout_seconds": (1, 3600), "memory_mb": (0, 4_000_000)}


def read(found: type[cask.Model], path: Path) -> dict[str, float]:
    """Those that it declares. Raises SignatureError for what is none."""
    declared = {name: getattr(found, name) for name in RANGES if getattr(found, name) is not None}
    for name, value in declared.items():
        least, most = RANGES[name]
        is_number = type(value) is int or (type(value) is float and name != "memory_mb" and math.isfinite(value))
        if not is_number or not least <= value <= most:
            raise SignatureError(
                f"{path}: {found.__name__}.{name} is {value!r}; write a {'whole ' * (name == 'memory_mb')}number from"
                f" {least} to {most}, or leave it out"
            )
    return declared
