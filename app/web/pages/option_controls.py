"""The controls of a form for the options of tasks: those that a task names itself, and all others by their types."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from app import tasks
from app.models.manifests import ServeSpec
from app.tasks.base import Control, Task
from app.tasks.params import UNIT, TaskParams

# A slider moves in about so many steps from one end to the other.
SLIDER_STEPS = 100
# What the form asks for by itself: model, version, and whether the model should explain.
ELSEWHERE = {*TaskParams.model_fields, "explain"}


@dataclass(frozen=True)
class OptionControl:
    """One option as the form offers it.

    ``title``: English words; empty: its name. ``least`` and ``most``: None for no limit. ``default``: what counts
    where nothing is given; empty where that is the model's. ``drawings``: of the tasks that have this option.
    """

    name: str
    kind: Literal["number", "choice", "flag", "line"]
    title: str = ""
    step: str = "any"
    least: float | None = None
    most: float | None = None
    unit: str = ""
    choices: Sequence[str] = ()
    default: str = ""
    is_slider: bool = False
    slider_step: str = ""
    is_folded: bool = False
    is_of_labels: bool = False
    drawings: Sequence[str] = ()


def of_task(task: Task) -> list[OptionControl]:
    """Those that the task names, in its order, then its other options."""
    schema = task.params.model_json_schema()["properties"]
    named = {control.name: control for control in task.controls}
    others = [name for name in schema if name not in {*named, *ELSEWHERE, task.label_option}]
    return [_control(task, name, schema[name], named.get(name)) for name in (*named, *others)]


def of_all(found: Iterable[Task]) -> list[OptionControl]:
    """One control for each option, with the widest range of the tasks that have it."""
    merged: dict[str, OptionControl] = {}
    for control in (each for task in found for each in of_task(task)):
        first = merged.get(control.name, control)
        merged[control.name] = replace(
            first,
            least=None if None in (first.least, control.least) else min(first.least, control.least),  # type: ignore[type-var]
            most=None if None in (first.most, control.most) else max(first.most, control.most),  # type: ignore[type-var]
            choices=tuple(dict.fromkeys((*first.choices, *control.choices))),
            drawings=tuple(dict.fromkeys((*first.drawings, *control.drawings))),
        )
    return list(merged.values())


def _control(task: Task, name: str, whole: Mapping[str, Any], named: Control | None) -> OptionControl:
    schema = _value_schema(whole)
    unit = whole.get(UNIT) or schema.get(UNIT, "")
    kind, choices = _kind(schema)
    least, most = _bounds(schema) if named is None or named.range is None else named.range
    found = OptionControl(name, kind, least=least, most=most, unit=unit, choices=choices, drawings=(task.drawing,))
    if named is not None:
        words, step = named.title, f"{named.step:g}"
        is_slider = named.is_slider and None not in (least, most)
        return replace(
            found,
            title=words,
            step=step,
            slider_step=step,
            is_slider=is_slider,
            is_folded=named.is_folded,
            is_of_labels=named.is_of_labels,
        )
    found = replace(found, default=_default(task, found))
    if kind != "number":
        return found
    slider_step = _slider_step(found, is_whole=schema["type"] == "integer")
    step = "1" if schema["type"] == "integer" else "any"
    return replace(found, step=step, slider_step=slider_step, is_slider=bool(slider_step))


def _value_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the value, where it may be left out."""
    inner: Mapping[str, Any] = next((each for each in schema.get("anyOf", ()) if each.get("type") != "null"), schema)
    return inner


def _kind(schema: Mapping[str, Any]) -> tuple[Literal["number", "choice", "flag", "line"], Sequence[str]]:
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return "choice", choices
    if schema.get("type") == "boolean":
        return "flag", ()
    return ("number", ()) if schema.get("type") in ("integer", "number") else ("line", ())


def _bounds(schema: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The least and the largest value that a person may type."""
    whole = schema.get("type") == "integer"
    least, most = schema.get("minimum"), schema.get("maximum")
    if whole and "exclusiveMinimum" in schema:
        least = schema["exclusiveMinimum"] + 1
    if whole and "exclusiveMaximum" in schema:
        most = schema["exclusiveMaximum"] - 1
    return least, most


def _default(task: Task, control: OptionControl) -> str:
    """What the task's own options hold; a manifest may say otherwise for those that ``ServeSpec`` names."""
    value = getattr(task.default_options(ServeSpec()), control.name, None)
    if value is None or value == "" or control.name in ServeSpec.__dataclass_fields__:
        return ""
    if control.kind == "flag":
        return "yes" if value else "no"
    is_below = control.least is not None and value < control.least
    is_above = control.most is not None and value > control.most
    # Outside of what can be asked for: such as 0 for all.
    return "" if is_below or is_above else f"{value:.6g}" if control.kind == "number" else str(value)


def _slider_step(control: OptionControl, *, is_whole: bool) -> str:
    """Empty where a slider would have no end, or steps too coarse for a whole number."""
    if control.least is None or control.most is None or control.most <= control.least:
        return ""
    span = control.most - control.least
    if is_whole:
        return "1" if span <= 10 * SLIDER_STEPS else ""
    return f"{10.0 ** math.floor(math.log10(span / SLIDER_STEPS)):.12f}".rstrip("0").rstrip(".")


ALL = of_all(tasks.ALL)
NAMES = tuple(control.name for control in ALL)
FOLDED = tuple(control.name for control in ALL if control.is_folded)
# Of each task, as the page's script asks.
NAMES_OF = {task.name: [control.name for control in of_task(task)] for task in tasks.ALL}
