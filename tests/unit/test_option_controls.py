"""The form offers every option of a task that nobody has named: by its type, with range, default and unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from flask import Flask
from pydantic import Field

from app import tasks
from app.inference.results import Options
from app.tasks.base import Control, Task
from app.tasks.embed import Embed
from app.tasks.params import UNIT, TaskParams
from app.web.pages import option_controls
from app.web.pages.option_controls import OptionControl
from tests import fakes


class HeatParams(TaskParams):
    bands: int | None = Field(None, ge=1, le=16, description="How many bands.")
    many: int | None = Field(None, ge=1, le=65536, description="Too many for a slider.")
    gain: float | None = Field(None, ge=0, le=2, description="A factor.")
    margin: float | None = Field(None, ge=0, description="At the edges.", json_schema_extra={UNIT: "px"})
    above: int | None = Field(None, gt=0, lt=10, description="Between them.")
    inverted: bool | None = Field(None, description="Dark is 1.")
    scale: Literal["linear", "square"] | None = Field(None, description="Of the numbers.")
    note: str | None = Field(None, description="Comes back.")


@dataclass(frozen=True, slots=True)
class HeatOptions(Options):
    bands: int = 4
    many: int = 0
    gain: float = 0.5
    margin: float = 0.0
    above: int = 3
    inverted: bool = True
    scale: str = "square"
    note: str = ""


class Heat(Embed):
    params = HeatParams
    options = HeatOptions
    drawing = "table"
    controls = (Control("above", "Above", is_slider=True),)

    def default_options(self, serve: Any) -> Any:
        return HeatOptions()


def found() -> dict[str, OptionControl]:
    return {control.name: control for control in option_controls.of_task(Heat())}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bands", {"kind": "number", "least": 1, "most": 16, "step": "1", "default": "4", "is_slider": True}),
        ("many", {"kind": "number", "most": 65536, "default": "", "is_slider": False}),
        ("gain", {"kind": "number", "step": "any", "slider_step": "0.01", "default": "0.5", "is_slider": True}),
        ("margin", {"kind": "number", "least": 0, "most": None, "unit": "px", "default": "0", "is_slider": False}),
        ("above", {"title": "Above", "least": 1, "most": 9, "is_slider": True}),
        ("inverted", {"kind": "flag", "default": "yes"}),
        ("scale", {"kind": "choice", "choices": ["linear", "square"], "default": "square"}),
        ("note", {"kind": "line", "default": ""}),
    ],
)
def test_option_is_offered_by_its_type(name: str, said: dict[str, Any]) -> None:
    control = found()[name]

    assert {key: getattr(control, key) for key in said} == said


def test_options_that_a_task_names_come_first_and_none_twice() -> None:
    assert list(found()) == ["above", "bands", "many", "gain", "margin", "inverted", "scale", "note"]


@pytest.mark.parametrize("task", tasks.ALL, ids=tasks.OFFERED)
def test_form_offers_every_option_of_a_task(task: Task) -> None:
    elsewhere = {*TaskParams.model_fields, task.label_option, "explain"}

    assert set(option_controls.NAMES_OF[task.name]) == task.params.model_fields.keys() - elsewhere


def test_option_of_several_tasks_is_one_control_with_the_widest_range() -> None:
    class Wide(HeatParams):
        bands: int | None = Field(None, ge=0, le=8, description="How many bands.")
        gain: float | None = Field(None, description="A factor.")

    class Warm(Heat):
        params, drawing = Wide, "labels"

    merged = {control.name: control for control in option_controls.of_all([Heat(), Warm()])}

    assert (merged["bands"].least, merged["bands"].most) == (0, 16)
    assert (merged["gain"].least, merged["gain"].most) == (None, None)
    assert merged["bands"].drawings == ("table", "labels")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return fakes.make_app(tmp_path_factory.mktemp("app"), fakes.FakeEngine())


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("bands", "7", ['type="range" min="1" max="16" step="1"', 'step="1" value="7" placeholder="4"', "1 to 16"]),
        ("margin", "", ['type="number"', 'min="0" step="any" value="" placeholder="0"', "at least 0 px"]),
        ("inverted", "false", ["default (yes)", '<option value="false" selected>no']),
        ("scale", "linear", ["default (square)", "<option selected>linear</option>"]),
        ("note", 'a "b"', ['type="text"', "a &#34;b&#34;"]),
    ],
)
def test_control_says_range_default_and_unit_and_what_was_typed(
    app: Flask, name: str, value: str, parts: list[str]
) -> None:
    with app.test_request_context("/"):
        macros: Any = app.jinja_env.get_template("options.html").make_module({})
        text = " ".join(str(macros.control(found()[name], value)).split())

    assert [part for part in parts if part not in text] == [], text
    assert f'<label for="option-{name}">' in text
    assert set(re.findall(r'aria-describedby="(.*?)"', text)) <= set(re.findall(r' id="(.*?)"', text))
