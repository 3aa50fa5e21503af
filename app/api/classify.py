"""POST /v1/classify: name what is in each image."""

from flask import Response, request

from app.api import answers, api, bodies
from app.guards import admission, deadlines
from app.predictions import predictor


@api.post("/classify")
def classify() -> Response:
    """Name what is in one or many images, best label first."""
    images, wishes = bodies.read(request)
    admission.begin()
    outcome = predictor().predict("classify", images, wishes, deadline=deadlines.current())
    return answers.answer(outcome, "predictions")
