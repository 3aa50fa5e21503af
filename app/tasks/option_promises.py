"""What a task must say of what callers may send with it, asked where they are read: ``app/inference/options.py``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from app.inference.results import EXPLAIN
from app.tasks import promises
from app.tasks.base import Task
from app.tasks.params import TaskParams

# What the forms and addresses that take options ask for besides them.
OPTIONS_TAKEN = {"image", "image_upload", "pixels", "sample", "task", "timeout"}
OPTION_TYPES = (bool, int, float, str)


def checked(tasks: Sequence[Task]) -> dict[str, type[TaskParams]]:
    """The options of each task by its name. Raises TypeError with file, line, what is wrong, and what was expected."""
    for position, task in enumerate(tasks):
        # In this order: what is asked later takes for granted what was asked before.
        for wrong in itertools.chain(_kind(task), _faults(task), _taken(task, tasks[:position])):
            raise TypeError(f"{promises.place(type(task))}{type(task).__name__}: {wrong}.")
    return {task.name: task.params for task in tasks}


def _kind(task: Task) -> Iterator[str]:
    if not (isinstance(task.params, type) and issubclass(task.params, TaskParams)):
        yield f"params is {task.params!r}; expected a subclass of TaskParams"


def _faults(task: Task) -> Iterator[str]:
    fields = task.params.model_fields
    controls = [control.name for control in task.controls]
    for name in {task.label_option, task.count_option, task.rpc_option, *task.rpc_example, *controls} - {""}:
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
        if name not in {*task.options.__match_args__, *TaskParams.model_fields, task.label_option, EXPLAIN}:
            yield f"the option {name!r} is in params and not in options, so no model would get it; expected it in both"
        if name in OPTIONS_TAKEN:
            yield f"the option {name!r} is what a form of Cask asks for itself; expected another name"


def _taken(task: Task, others: Sequence[Task]) -> Iterator[str]:
    for other, name in itertools.product(others, task.params.model_fields):
        mine, its = (each.params.model_fields.get(name) for each in (task, other))
        # Numbers and texts come alike in an address, and differ in JSON.
        if mine and its and (str in kinds_of(mine.annotation)) != (str in kinds_of(its.annotation)):
            at_others = f"{its.annotation} in {type(other).__name__}"
            yield f"the option {name!r} is {mine.annotation}, and {at_others}; expected another name"


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
