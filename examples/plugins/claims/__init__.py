"""Claims: say what is on a photograph of damage."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from cask import limit, predict, public, settings

blueprint = Blueprint("claims", __name__)


@blueprint.post("/claims")
@limit("30 per minute")
def claim() -> ResponseReturnValue:
    """Say what is on a photograph."""
    return {"damage": predict("site-safety-detector", request.files["photo"], top=settings.rows)["detections"]}


@blueprint.get("/claims/page")
@public
def page() -> ResponseReturnValue:
    """How to send a photograph."""
    return render_template("claims/page.html")
