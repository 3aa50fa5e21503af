"""What a task must say of itself, asked at the start: what is missing would be met by callers, one page at a time.

What callers may send with it is checked where callers are read: ``option_promises``.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import get_args

from app.inference.results import EXPLAIN, Options
from app.tasks.base import Drawing, Task

WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Other words for what an engine is asked, in manifests, and addresses below /v1.
NAMES_TAKEN = {EXPLAIN, "code", "tensor", "ensemble", "jobs", "models"}
# What a result says beside its rows, in an answer or of a job.
ROWS_TAKEN = {"answer", "error", "explanation", "height", "model", "name", "number", "width"}


def instances(kinds: Sequence[type[Task]]) -> tuple[Task, ...]:
    """One of each task. Raises TypeError with file, line, what is wrong, and what was expected."""
    for position, kind in enumerate(kinds):
        # In this order: what is asked later takes for granted what was asked before.
        for wrong in itertools.chain(_missing(kind), _taken(kind, kinds[:position]), _faults(kind)):
            raise TypeError(f"{place(kind)}{kind.__name__}: {wrong}.")
    return tuple(kind() for kind in kinds)


def _missing(kind: type[Task]) -> Iterator[str]:
    told = [name for name, type_ in Task.__annotations__.items() if "ClassVar" in str(type_)]
    lacking = sorted({*kind.__abstractmethods__, *(name for name in told if not hasattr(kind, name))})
    if lacking:
        yield f"it lacks {', '.join(lacking)}; expected each, as app/tasks/base.py describes it"
    elif not (isinstance(kind.options, type) and issubclass(kind.options, Options)):
        yield f"options is {kind.options!r}; expected a subclass of Options"


def _faults(kind: type[Task]) -> Iterator[str]:
    if kind.drawing not in get_args(Drawing):
        yield f"drawing is {kind.drawing!r}; expected one of {', '.join(get_args(Drawing))}"
    for key, keys in {"image": kind.image.__annotations__, "example": kind.example["results"][0]}.items():
        if kind.rows not in keys:
            yield f"{key} has no {kind.rows!r}, which rows says; it has {', '.join(keys)}"


def _taken(kind: type[Task], others: Sequence[type[Task]]) -> Iterator[str]:
    for key, taken in {"name": NAMES_TAKEN, "rows": ROWS_TAKEN}.items():
        word = getattr(kind, key)
        if not isinstance(word, str) or not WORD.fullmatch(word):
            yield f"{key} is {word!r}; expected a word of small letters, digits and _"
        owner = next((each for each in others if getattr(each, key) == word), None)
        if owner is not None or word in taken:
            yield f"{key} is {word!r}, which is taken by {owner.__name__ if owner else 'Cask itself'}; expected another"


def place(kind: type[Task]) -> str:
    """File and line of a task for a message; empty where nobody knows them."""
    try:
        return f"{inspect.getsourcefile(kind)}, line {inspect.getsourcelines(kind)[1]}: "
    except (OSError, TypeError):
        return ""
