"""What a scenario is to those who drive it. A leaf."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadtest.outcomes import Outcome
    from loadtest.turns import Answer, Request, Turn

    Ask = Callable[[Request | dict[str, Any]], Answer]


def _as_it_is(known: Any) -> Any:
    return known


@dataclass(frozen=True)
class Scenario:
    """One way to call.

    ``request`` makes the requests of a turn; None for Locust's users in ``source``, which need no ``check`` either.
    ``setup`` asks the target at rest, once for a ``group``; what it returns goes to all workers as JSON, where ``open``
    makes ``turn.known`` of it. ``source`` is its file, empty for ours. ``perform`` stands for sending and judging.
    """

    name: str
    request: Callable[[Turn], Any] | None
    check: Callable[[Answer], Any] | None = None
    setup: Callable[[Ask], Any] | None = None
    group: str = ""
    open: Callable[[Any], Any] = _as_it_is
    source: str = ""
    perform: Callable[[Turn], tuple[Outcome, str, str]] | None = None
