"""POST /v1/classify: name what is in each image."""

from flask import Response, request

from app.inference.pipeline import predictor
from app.tasks.classify import ClassifyParams
from app.web.api import answers, api, bodies, prediction_docs
from app.web.middleware import canary_header, deadlines
from app.web.openapi.operations import describe
from app.web.policy import PREDICTING_ROUTE


@api.post("/classify")
@describe(
    policy=PREDICTING_ROUTE,
    tag="Predictions",
    summary="Name what is in images",
    query=ClassifyParams,
    bodies=prediction_docs.bodies(ClassifyParams),
    answers={200: prediction_docs.answer(answers.ClassifyAnswer, prediction_docs.CLASSIFIED)},
    errors=prediction_docs.PREDICTION_ERRORS,
    headers=(canary_header.HEADER, prediction_docs.FRESHNESS),
)
def classify() -> Response:
    """Name what is in one or many images, best label first."""
    images, params = bodies.read(request)
    outcome = predictor().predict("classify", images, params, deadline=deadlines.current())
    return answers.answer(outcome)
