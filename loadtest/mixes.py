"""Who calls, as weights: the tables of mixes.toml. A leaf."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

PATH = Path(__file__).resolve().parent / "mixes.toml"


@cache
def tables() -> dict[str, dict[str, float]]:
    """Mix → scenario → weight."""
    return tomllib.loads(PATH.read_text(encoding="utf-8"))


def describe(mix: Mapping[str, float]) -> str:
    """A mix as people read it: ``classify_raw 75%, detect_raw 25%``."""
    total = sum(mix.values())
    return ", ".join(f"{name} {weight / total:.0%}" for name, weight in mix.items())
