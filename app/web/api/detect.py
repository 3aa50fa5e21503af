"""POST /v1/detect: find objects in each image."""

from flask import Response, request

from app.inference.pipeline import predictor
from app.tasks.detect import DetectParams
from app.web.api import answers, api, bodies, prediction_docs
from app.web.middleware import canary_header, deadlines
from app.web.openapi.operations import describe
from app.web.policy import PREDICTING_ROUTE


@api.post("/detect")
@describe(
    policy=PREDICTING_ROUTE,
    tag="Predictions",
    summary="Find objects in images",
    query=DetectParams,
    bodies=prediction_docs.bodies(DetectParams),
    answers={200: prediction_docs.answer(answers.DetectAnswer, prediction_docs.DETECTED)},
    errors=prediction_docs.PREDICTION_ERRORS,
    headers=(canary_header.HEADER, prediction_docs.FRESHNESS),
)
def detect() -> Response:
    """Find objects in one or many images; boxes are pixels of the upright image."""
    images, params = bodies.read(request)
    outcome = predictor().predict("detect", images, params, deadline=deadlines.current())
    return answers.answer(outcome)
