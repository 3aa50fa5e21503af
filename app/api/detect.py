"""POST /v1/detect: find objects in each image."""

from flask import Response, request

from app.api import answers, api, bodies, described
from app.guards import canaries, deadlines
from app.openapi.operations import describe
from app.policy import PREDICTING_ROUTE
from app.predictions import predictor
from app.tasks.detect import DetectWishes


@api.post("/detect")
@describe(
    policy=PREDICTING_ROUTE,
    tag="Predictions",
    summary="Find objects in images",
    query=DetectWishes,
    bodies=described.bodies(DetectWishes),
    answers={200: described.answer(answers.DetectAnswer, described.DETECTED)},
    errors=described.PREDICTION_ERRORS,
    headers=(canaries.HEADER, described.FRESHNESS),
)
def detect() -> Response:
    """Find objects in one or many images; boxes are pixels of the upright image."""
    images, wishes = bodies.read(request)
    outcome = predictor().predict("detect", images, wishes, deadline=deadlines.current())
    return answers.answer(outcome)
