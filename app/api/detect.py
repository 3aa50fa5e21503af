"""POST /v1/detect: find objects in each image."""

from flask import Response, request

from app.api import answers, api, bodies
from app.guards import admission, deadlines
from app.predictions import predictor


@api.post("/detect")
def detect() -> Response:
    """Find objects in one or many images; boxes are pixels of the upright image."""
    images, wishes = bodies.read(request)
    admission.begin()
    outcome = predictor().predict("detect", images, wishes, deadline=deadlines.current())
    return answers.answer(outcome, "detections")
