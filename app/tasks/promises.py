"""What a task must say of itself, asked at the start: what is missing would be met by callers, one page at a time."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from app.inference.results import EXPLAIN, Options
from app.tasks.base import Drawing, Task, TaskParams

WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Other words for what an engine is asked, in manifests, and addresses below /v1.
NAMES_TAKEN = {EXPLAIN, "code", "tensor", "ensemble", "jobs", "models"}
# What a result says beside its rows, in an answer or of a job.
ROWS_TAKEN = {"answer", "error", "explanation", "height", "model", "name", "number", "width"}

# What the forms and addresses that take options ask for besides them.
OPTIONS_TAKEN = {"image", "image_upload", "pixels", "sample", "task", "timeout"}
OPTION_TYPES = (bool, int, float, str)


def instances(kinds: Sequence[type[Task]]) -> tuple[Task, ...]:
    """One of each task. Raises TypeError with file, line, what is wrong, and what was expected."""
    for position, kind in enumerate(kinds):
        # In this order: what is asked later takes for granted what was asked before.
        for wrong in itertools.chain(_missing(kind), _taken(kind, kinds[:position]), _faults(kind)):
            raise TypeError(f"{_place(kind)}{kind.__name__}: {wrong}.")
    return tuple(kind() for kind in kinds)


def _missing(kind: type[Task]) -> Iterator[str]:
    told = [name for name, type_ in Task.__annotations__.items() if "ClassVar" in str(type_)]
    lacking = sorted({*kind.__abstractmethods__, *(name for name in told if not hasattr(kind, name))})
    if lacking:
        yield f"it lacks {', '.join(lacking)}; expected each, as app/tasks/base.py describes it"
    elif not (isinstance(kind.params, type) and issubclass(kind.params, TaskParams)):
        yield f"params is {kind.params!r}; expected a subclass of TaskParams"
    elif not (isinstance(kind.options, type) and issubclass(kind.options, Options)):
        yield f"options is {kind.options!r}; expected a subclass of Options"


def _faults(kind: type[Task]) -> Iterator[str]:
    if kind.drawing not in get_args(Drawing):
        yield f"drawing is {kind.drawing!r}; expected one of {', '.join(get_args(Drawing))}"
    for key, keys in {"image": kind.image.__annotations__, "example": kind.example["results"][0]}.items():
        if kind.rows not in keys:
            yield f"{key} has no {kind.rows!r}, which rows says; it has {', '.join(keys)}"
    fields = kind.params.model_fields
    controls = [control.name for control in kind.controls]
    for name in {kind.label_option, kind.count_option, kind.rpc_option, *kind.rpc_example, *controls} - {""}:
        if name not in fields:
            yield f"it speaks of the option {name!r}, but params has {', '.join(fields)}"
    for name, field in fields.items():
        if not field.description:
            yield f"the option {name!r} has no description; expected a sentence, which callers read"
        if not kinds_of(field.annotation):
            yield (
                f"the option {name!r} is {field.annotation}; expected bool, int, float, str or a Literal of texts, "
                "and None where it may be left out"
            )
        if name not in {*kind.options.__match_args__, *TaskParams.model_fields, kind.label_option, EXPLAIN}:
            yield f"the option {name!r} is in params and not in options, so no model would get it; expected it in both"
        if name in OPTIONS_TAKEN:
            yield f"the option {name!r} is what a form of Cask asks for itself; expected another name"


def kinds_of(annotation: Any) -> set[type]:
    """What the values of an option are, None apart; empty where it is something that no form can ask for."""
    if get_origin(annotation) is Literal:
        return {str} if all(isinstance(value, str) for value in get_args(annotation)) else set()
    if annotation in OPTION_TYPES:
        return {annotation}
    origin = get_origin(annotation)
    if origin not in (Annotated, Union, UnionType):
        return set()
    inner = get_args(annotation)[:1] if origin is Annotated else get_args(annotation)
    parts = [part for part in inner if part is not NoneType]
    found = [kinds_of(part) for part in parts]
    return set().union(*found) if found and all(found) else set()


def _taken(kind: type[Task], others: Sequence[type[Task]]) -> Iterator[str]:
    for key, taken in {"name": NAMES_TAKEN, "rows": ROWS_TAKEN}.items():
        word = getattr(kind, key)
        if not isinstance(word, str) or not WORD.fullmatch(word):
            yield f"{key} is {word!r}; expected a word of small letters, digits and _"
        owner = next((each for each in others if getattr(each, key) == word), None)
        if owner is not None or word in taken:
            yield f"{key} is {word!r}, which is taken by {owner.__name__ if owner else 'Cask itself'}; expected another"
    for other, name in itertools.product(others, kind.params.model_fields):
        mine, its = (each.params.model_fields.get(name) for each in (kind, other))
        # Numbers and texts come alike in an address, and differ in JSON.
        if mine and its and (str in kinds_of(mine.annotation)) != (str in kinds_of(its.annotation)):
            at_others = f"{its.annotation} in {other.__name__}"
            yield f"the option {name!r} is {mine.annotation}, and {at_others}; expected another name"


def _place(kind: type[Task]) -> str:
    try:
        return f"{inspect.getsourcefile(kind)}, line {inspect.getsourcelines(kind)[1]}: "
    except (OSError, TypeError):
        return ""
