"""A model with code: the class to derive from, how its calls are batched, and how it refuses one item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
# Where the decorator leaves what it was told, on the function.
BATCHING = "__cask_batching__"
MOST_ITEMS = 1024
LONGEST_WAIT_MS = 10_000.0
MOST_THREADS = 64


class Model:
    """Your model. Derive one class from it in ``model.py`` and give it ``predict``; ``load`` is optional.

    ``predict`` is called in one process, one call at a time unless ``batch`` allows more. Positional parameters are
    lists with one item for each caller, also where nothing is batched. Keyword-only parameters are options of a
    request; each needs a default, and requests with equal options are computed together. It returns a list as long,
    with an answer or a ``Refused`` for each item. Every parameter needs a type: ``str int float bool bytes``,
    ``Image``, a dataclass, an array with ``Shape``, ``list[T]``, ``T | None``, ``Literal`` or an enum. If it raises,
    each item is tried alone, and only those that raise again are answered with status 500.

    >>> class Length(Model):
    ...     def predict(self, text: list[str]) -> list[int]: return [len(each) for each in text]
    >>> Length().predict(["two", "words"])
    [3, 5]

    ``cache``: whether an answer may be given again to an equal item with equal options, without asking ``predict``.
    Set it to True where the answer depends on nothing else: no clock, no chance, no other system.

    ``timeout_seconds``: longest call of ``predict``, 1 to 3600; after it the process is replaced. ``memory_mb``: most
    that the process may write, in MB; 0 is no limit. Left out, or None: 30 and 4096. ``make model-add`` writes them
    into the version's manifest, which rules from then on; its options ``--timeout-seconds`` and ``--memory-mb`` come
    before the class.
    """

    cache: bool = False
    timeout_seconds: float | None = None
    memory_mb: int | None = None

    def load(self, folder: Path) -> None:
        """Read what the model needs from ``folder``, where ``model.py`` lies. Called once, before any ``predict``.

        What it raises keeps the version from serving; the reason is shown to operators.
        """


def batch(*, max_size: int = 8, max_wait_ms: float = 0.0, threads: int = 1) -> Callable[[Function], Function]:
    """Let ``predict`` have up to ``max_size`` items at once: 1 to 1024; without the decorator it is 1.

    ``max_wait_ms``: how many milliseconds an item waits for others to join, 0 to 10 000. With 0 a batch is what came
    while the model was busy. ``threads``: from how many threads ``predict`` may be called at once, up to 64, and never
    more than the service computes batches at once; 0: as many as that. More than 1 only where ``predict`` changes
    nothing that its calls share, as networks of torch in ``eval()``. Raises ValueError for values outside of that.

    >>> @batch(max_size=16)
    ... def predict(text: list[str]) -> list[int]: return [len(each) for each in text]
    >>> predict(["four"])
    [4]
    """
    if isinstance(max_size, bool) or not isinstance(max_size, int) or not 1 <= max_size <= MOST_ITEMS:
        raise ValueError(f"max_size is {max_size!r}, expected a whole number from 1 to {MOST_ITEMS}")
    if not 0 <= max_wait_ms <= LONGEST_WAIT_MS:
        raise ValueError(f"max_wait_ms is {max_wait_ms!r}, expected milliseconds from 0 to {LONGEST_WAIT_MS:g}")

    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= MOST_THREADS:
        raise ValueError(f"threads is {threads!r}, expected a whole number from 0 to {MOST_THREADS}")

    def decorate(function: Function) -> Function:
        setattr(function, BATCHING, (max_size, float(max_wait_ms), threads))
        return function

    return decorate


@dataclass(frozen=True, slots=True)
class Refused:
    """Stands in the list that ``predict`` returns for an item that cannot be answered. Its caller alone gets 422.

    ``why``: one sentence for the caller, at most 500 characters of it are sent.

    >>> [Refused("the text is empty") if not each.strip() else len(each) for each in ["ab", " "]]
    [2, Refused(why='the text is empty')]
    """

    why: str
