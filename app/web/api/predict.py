"""POST /v1/<task>: what each task says about each image. One view a task, made from the list of tasks."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, request

from app import tasks
from app.inference.pipeline import predictor
from app.tasks.base import Task
from app.web.api import answers, api, bodies, prediction_docs
from app.web.middleware import canary_header, deadlines
from app.web.openapi.operations import describe
from app.web.policy import PREDICTING_ROUTE


def _view(task: Task) -> Callable[[], Response]:
    """The view that asks for ``task``, with its promises."""

    def predict() -> Response:
        images, params = bodies.read(request)
        outcome = predictor().predict(task.name, images, params, deadline=deadlines.current())
        return answers.answer(outcome)

    predict.__doc__ = task.sentence
    return describe(
        policy=PREDICTING_ROUTE,
        tag="Predictions",
        summary=task.summary,
        query=task.params,
        bodies=prediction_docs.bodies(task.params),
        answers={200: prediction_docs.answer(task)},
        errors=prediction_docs.PREDICTION_ERRORS,
        headers=(canary_header.HEADER, prediction_docs.FRESHNESS),
    )(predict)


for _name in tasks.NAMES:
    api.post(f"/{_name}", endpoint=_name)(_view(tasks.BY_NAME[_name]))
