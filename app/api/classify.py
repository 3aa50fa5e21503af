"""POST /v1/classify: name what is in each image."""

from flask import Response, request

from app.api import answers, api, bodies, described
from app.guards import canaries, deadlines
from app.openapi.operations import describe
from app.policy import PREDICTING_ROUTE
from app.predictions import predictor
from app.tasks.classify import ClassifyWishes


@api.post("/classify")
@describe(
    policy=PREDICTING_ROUTE,
    tag="Predictions",
    summary="Name what is in images",
    query=ClassifyWishes,
    bodies=described.bodies(ClassifyWishes),
    answers={200: described.answer(answers.ClassifyAnswer, described.CLASSIFIED)},
    errors=described.PREDICTION_ERRORS,
    headers=(canaries.HEADER, described.FRESHNESS),
)
def classify() -> Response:
    """Name what is in one or many images, best label first."""
    images, wishes = bodies.read(request)
    outcome = predictor().predict("classify", images, wishes, deadline=deadlines.current())
    return answers.answer(outcome)
