"""Written for cask 1.0, when that was all there was. A test holds it as it is: see tests/contract/test_cask_1.py."""

from pathlib import Path

from flask import Blueprint, render_template, request, session

import cask
from cask import API_VERSION, count, limit, predict, public, scope, settings

from .parts import word

blueprint = Blueprint("keepsake", __name__)


@blueprint.post("/keepsake")
@limit("2 per minute")
@limit("90 per hour")
def keep():
    """Keep what is on a photograph."""
    answer = predict("classifier", request.files["photo"], version=None, top=settings.rows)
    request.files["photo"].seek(0)
    both = predict("classifier", [request.files["photo"].read()] * 2, top=1)
    Path(settings.file).write_text(answer["predictions"][0]["label"])
    count("kept")
    cask.count("labels", len(answer["predictions"]))
    return {"kept": [row["label"] for row in answer["predictions"]], "both": [len(row["predictions"]) for row in both]}


@blueprint.get("/keepsake")
@public
def page():
    """A page with our layout."""
    session["seen"] = 1
    return render_template("keepsake/page.html", words=word())


@blueprint.get("/keepsake/settings")
@scope("any")
def values():
    return {
        "rows": settings.rows,
        "share": settings.share,
        "is_open": settings.is_open,
        "places": settings.places,
        "api": API_VERSION,
        "kept": Path(settings.file).read_text(),
    }


@blueprint.delete("/keepsake")
@scope("admin")
def remove():
    return "", 204


@blueprint.get("/keepsake/failing")
@scope("predict")
def failing():
    raise KeyError("failing")


@blueprint.errorhandler(KeyError)
def told(error):
    return {"told": str(error)}, 418


@blueprint.before_request
def before():
    request.environ["keepsake.seen"] = True


@blueprint.app_template_filter("twice")
def twice(text):
    return text * 2


def init_app(app):
    app.extensions["keepsake"] = 1
    app.add_url_rule("/keepsake/plain", "keepsake_plain", public(lambda: "plain"))
