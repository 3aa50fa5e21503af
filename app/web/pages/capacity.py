"""The page of the capacity card: how much load this service can take, as the last load test measured it."""

from __future__ import annotations

from flask import current_app, render_template

from app.web import capacity_card
from app.web.openapi.operations import a_page, describe
from app.web.pages import pages


@pages.get("/capacity")
@describe("The page of the measured capacity", a_page("What the last load test found, or how to make one."))
def capacity() -> str:
    """What the last load test of this service found."""
    settings = current_app.extensions["settings"]
    return render_template("capacity.html", card=capacity_card.of(settings), env=settings.env)
