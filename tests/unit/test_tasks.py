"""What every task promises to those who do not know it by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app import tasks
from app.cache import entries
from app.inference.results import (
    EXPLAIN,
    Answer,
    Box,
    ClassifyOptions,
    Detection,
    DetectOptions,
    Explanation,
    Prediction,
    to_dict,
)
from app.models.manifests import ServeSpec
from app.tasks.base import Task
from app.tasks.embed import Embedding
from app.tasks.instances import Instance
from app.tasks.segment import Segmentation

ANSWERS: dict[str, list[Answer]] = {
    "classify": [[Prediction("cone", 0.75), Prediction("sign", 0.25)], [Prediction("sign", 0.5)]],
    "detect": [[Detection("cone", 0.75, Box(1.5, 2, 3, 4))], []],
    "instances": [[Instance("cone", 0.75, Box(1.5, 2, 3, 4), {"size": [8, 8], "counts": "0P1P1"})], []],
    "embed": [[Embedding([0.6, 0.0, -0.8])], [Embedding([0.0, 1.0, 0.0])]],
    "segment": [[Segmentation([{"label": "road", "area": 1.0, "colour": "#000000"}], "iVBO")]] * 2,
}


def answers(task: Task) -> list[Answer]:
    """To two images; those of the task's own example where none is above."""
    return ANSWERS.get(task.name) or [task.answer_of(task.example["results"][0])] * 2


each_task = pytest.mark.parametrize("task", tasks.ALL, ids=tasks.OFFERED)


@each_task
def test_answer_comes_back_from_the_wire_as_it_was(task: Task) -> None:
    for answer in answers(task):
        sent = json.loads(json.dumps([to_dict(row) for row in answer]))

        assert tasks.answer_from_json(task.name, sent) == answer


@each_task
def test_options_come_back_from_the_wire_as_they_were(task: Task) -> None:
    options = task.default_options(ServeSpec())

    assert tasks.options_from_json(task.name, json.loads(json.dumps(to_dict(options)))) == options


@each_task
def test_every_option_of_the_engine_has_a_default_or_a_wish(task: Task) -> None:
    assert {task.label_option, task.count_option} - {""} <= task.params.model_fields.keys()
    assert isinstance(task.default_options(ServeSpec()), task.options)


@each_task
def test_tensors_are_those_that_are_promised(task: Task) -> None:
    found = task.to_tensors(answers(task))

    for promised in task.tensors:
        tensor = found.pop(promised["name"])
        assert (tensor.ndim, tensor.shape[0]) == (len(promised["shape"]), 2)
    assert found == {}


@each_task
def test_a_row_of_results_tells_its_task(task: Task) -> None:
    assert tasks.of_row({"width": 1, task.rows: []}) is task


@each_task
def test_answer_is_read_from_what_callers_get(task: Task) -> None:
    """Ensembles and the page of a job read it so."""
    result = task.example["results"][0]

    assert task.result(task.answer_of(result))[task.rows] == result[task.rows]


KEPT = {
    "classify": '[1000.0,64,48,[{"label":"cone","score":0.75}]]',
    "detect": '[1000.0,64,48,[{"label":"cone","score":0.75,"box":{"x_min":1.5,"y_min":2.0,"x_max":3.0,"y_max":4.0}}]]',
    "instances": '[1000.0,64,48,[{"label":"cone","score":0.75,'
    '"box":{"x_min":1.5,"y_min":2.0,"x_max":3.0,"y_max":4.0},"mask":{"size":[8,8],"counts":"0P1P1"}}]]',
    "embed": '[1000.0,64,48,[{"vector":[0.6,0.0,-0.8]}]]',
    "segment": '[1000.0,64,48,[{"segments":[{"label":"road","area":0.5,"colour":"#000000"}],"mask":"iVBO"}]]',
}


@pytest.mark.parametrize("name", KEPT)
def test_answers_kept_by_earlier_releases_are_read(name: str) -> None:
    """Cache entries, results of jobs and rows of golden files lie on disks; they are written as before."""
    task = tasks.BY_NAME[name]
    entry = entries.from_text(name, KEPT[name], 0.0)

    assert entry is not None
    assert entries.to_text(entry) == KEPT[name]
    assert task.answer_of(task.result(entry.answer)) == entry.answer


def test_keys_of_kept_answers_stay() -> None:
    """They are made from how options print; who changes that throws away all that was kept."""
    assert repr(ClassifyOptions()) == "ClassifyOptions(top_k=5)"
    assert repr(DetectOptions()).startswith("DetectOptions(score_threshold=0.5, iou_threshold=0.5, max_results=100, ")


def test_an_explanation_comes_back_too() -> None:
    explanation = Explanation("cone", 0.5, "cam", [[0.0, 1.0]])

    assert tasks.answer_from_json(EXPLAIN, [to_dict(explanation)]) == [explanation]


@pytest.mark.parametrize("read", [tasks.answer_from_json, tasks.options_from_json])
def test_an_unknown_task_is_refused(read: Any) -> None:
    with pytest.raises(KeyError, match="segments"):
        read("segments", {})
