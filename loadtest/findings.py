"""One line of the self-test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was looked for, and whether it was found."""

    name: str
    is_right: bool
    found: str
    expected: str
