"""Notes: a page with a table of its own, for whoever passes the service on."""

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from cask import count, limit, public, settings

from . import table

blueprint = Blueprint("notes", __name__)


@blueprint.get("/notes")
@public
def page() -> ResponseReturnValue:
    """The latest notes, and a form for another one."""
    return render_template("notes/page.html", rows=table.latest(settings.database, settings.shown))


@blueprint.post("/notes")
@limit("20 per minute")
def add() -> ResponseReturnValue:
    """Keep a note."""
    text = request.form.get("text", "").strip()
    if not text or len(text) > 500:
        count("refused")
        return {"detail": "text is empty or has more than 500 characters"}, 422
    table.add(settings.database, text)
    count("kept")
    return redirect(url_for("notes.page"), 303)
