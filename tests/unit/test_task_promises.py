"""A task that says too little, or what is taken, stops the start with file, line and what was expected."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import Field

from app import tasks
from app.inference.results import Options
from app.tasks import option_promises, promises
from app.tasks.base import Control, Task
from app.tasks.embed import Embed, EmbedOptions
from app.tasks.params import TaskParams

REST: dict[str, Any] = {
    "name": "heat",
    "rows": "heat",
    "image": type("Heated", (), {"__annotations__": {"heat": list}}),
}
REST["example"] = {"results": [{"heat": [0.5]}]}


class Silent(TaskParams):
    """It has an option without a word."""

    unit: str | None = None


class Listed(TaskParams):
    unit: list[int] | None = Field(None, description="Of the numbers.")


class Counted(TaskParams):
    unit: Literal[1, 2] | None = Field(None, description="Of the numbers.")


class Worded(TaskParams):
    unit: str | None = Field(None, description="Of the numbers.")
    top_k: str | None = Field(None, description="A number in another task.")


class Asking(TaskParams):
    unit: str | None = Field(None, description="Of the numbers.")
    image: str | None = Field(None, description="What the form asks for itself.")


class Spoken(TaskParams):
    unit: str | None = Field(None, description="Of the numbers.")


@dataclass(frozen=True, slots=True)
class Kept(Options):
    """Every option of these tests, so that each mistake stands alone."""

    unit: str = ""
    image: str = ""
    top_k: str = ""


REST |= {"params": Spoken, "options": Kept, "count_option": "unit", "rpc_option": "unit"}


def made(**changes: Any) -> type[Task]:
    return type("Heat", (Embed,), REST | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "detect"}, "name is 'detect', which is taken by Detect; expected another"),
        ({"name": "jobs"}, "name is 'jobs', which is taken by Cask itself"),
        ({"name": "wärme"}, "name is 'wärme'; expected a word of small letters, digits and _"),
        ({"name": None}, "name is None; expected a word"),
        ({"rows": "width"}, "rows is 'width', which is taken by Cask itself"),
        ({"rows": "heats"}, "image has no 'heats', which rows says; it has heat"),
        ({"example": {"results": [{"value": 1}]}}, "example has no 'heat', which rows says; it has value"),
        ({"count_option": "top"}, "it speaks of the option 'top', but params has model, version, unit"),
        ({"rpc_example": {"size": 1}}, "it speaks of the option 'size'"),
        ({"controls": (Control("size", "Size"),)}, "it speaks of the option 'size'"),
        ({"params": Silent}, "the option 'unit' has no description; expected a sentence"),
        ({"params": Listed}, "the option 'unit' is list[int] | None; expected bool, int, float, str or a Literal"),
        ({"params": Counted}, "the option 'unit' is typing.Optional[typing.Literal[1, 2]]; expected bool, int"),
        ({"params": Worded}, "the option 'top_k' is str | None, and int | None in Classify; expected another name"),
        ({"options": EmbedOptions}, "the option 'unit' is in params and not in options, so no model would get it"),
        ({"params": Asking}, "the option 'image' is what a form of Cask asks for itself; expected another name"),
        ({"params": dict}, "params is <class 'dict'>; expected a subclass of TaskParams"),
        ({"options": dict}, "options is <class 'dict'>; expected a subclass of Options"),
        ({"drawing": "boxen"}, "drawing is 'boxen'; expected one of boxes, labels, mask, vector, table"),
    ],
)
def test_task_that_promises_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"Heat: {words}")):
        option_promises.checked(promises.instances([*map(type, tasks.ALL), made(**changes)]))


def test_task_that_lacks_something_is_named_with_its_place() -> None:
    class Half(Task):
        name = "half"

    place = f"{__file__}, line {inspect.getsourcelines(Half)[1]}: Half: it lacks agreement, check, count_option"

    with pytest.raises(TypeError, match=re.escape(place)):
        promises.instances([Half])


def test_task_that_promises_all_is_one() -> None:
    (task,) = promises.instances([made()])

    assert task.name == "heat"
