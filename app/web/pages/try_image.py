"""The page that tries an image. Works as a plain form; static/js/page.js makes it answer at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flask import Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from app import tasks
from app.inference.pipeline import predictor
from app.inference.served_models import ModelStatus
from app.texts import gettext_noop
from app.web.middleware import form_bodies
from app.web.openapi.operations import BINARY, Body, a_list, a_page, an_open_object, describe
from app.web.pages import drawing, languages, option_controls, pages, prediction_form, prediction_view, samples
from app.web.pages.prediction_form import PredictionForm
from app.web.pages.prediction_view import Answered
from app.web.policy import PAGE_ROUTE

SHORT_DIGEST_CHARACTERS = 12
API_PATH = "/v1"
PAGE = a_page("The page; with answers, where pictures were sent.")
REFUSED = a_page("The page, with what is wrong.")
_PREDICTING = ", ".join(f"{API_PATH}/{name}" for name in prediction_form.TASKS)
FORM = {
    **an_open_object({"image_upload": a_list(BINARY), "task": {"enum": list(prediction_form.TASKS)}}, "image_upload"),
    "description": f"Also `model` and the options of POST {_PREDICTING}, as the page sends them.",
}


@pages.get("/")
@describe("The page", PAGE)
def try_image() -> Response:
    """The page, with nothing asked yet."""
    return _page(prediction_form.first(), [])


@pages.post("/upload")
@describe(
    "The page's form",
    PAGE,
    policy=replace(PAGE_ROUTE, predicts=True),
    bodies=(Body("multipart/form-data", FORM),),
    answers=dict.fromkeys((400, 404, 413, 415, 422, 500, 503, 504), REFUSED),
)
def upload() -> Response:
    """Answer the plain form with the same page, boxes drawn. The status is that of the first refused picture."""
    fields = form_bodies.once(request.form)
    form = prediction_form.read(fields)
    uploads = prediction_form.uploads(fields, request.files.getlist("image_upload"))
    return _page(form, prediction_view.answer(form, uploads, request.url_root.rstrip("/") + API_PATH))


@pages.get("/upload")
@describe("Back to the page", answers={303: a_page("To the page.")})
def upload_again() -> BaseResponse:
    """Who reloads the address of an answer starts over."""
    return redirect(url_for("pages.try_image"), 303)


@pages.app_template_filter()
def milliseconds(value: float) -> str:
    """Two digits are as much as one can read: ``0.4 ms``, ``17 ms``."""
    return f"{languages.number(value, 1 if value < 10 else 0)} ms"


@pages.app_template_filter()
def short_digest(digest: str) -> str:
    """``sha256:`` and enough characters to tell versions apart."""
    kind, _, characters = digest.rpartition(":")
    return f"{kind}:{characters[:SHORT_DIGEST_CHARACTERS]}" if kind else characters[:SHORT_DIGEST_CHARACTERS]


pages.add_app_template_filter(tasks.BY_NAME.get, "task")
pages.add_app_template_filter(option_controls.NAMES_OF.get, "option_names")
pages.add_app_template_filter(drawing.hue, "hue")
pages.add_app_template_filter(drawing.share, "share")
pages.add_app_template_filter(drawing.count, "count_labels")
pages.add_app_template_filter(drawing.cells)


def _page(form: PredictionForm, answers: Sequence[Answered]) -> Response:
    models = [status for status in predictor().models() if prediction_form.is_offered(status)]
    offered = prediction_form.offered_tasks()
    page = render_template(
        "try_image.html",
        asked=form,
        tasks=offered,
        controls=option_controls.of_all(tasks.BY_NAME[name] for name in offered),
        answered=answers,
        models=models,
        samples=samples.find(),
        engine_state=engine_state(models),
        api_url=request.script_root + API_PATH,
    )
    return make_response(page, prediction_view.status(answers))


def engine_state(models: Sequence[ModelStatus]) -> tuple[str, str]:
    """A class and English words for the light at the top; the script's engine.js says the same."""
    states = {status.state for status in models}
    if "loading" in states:
        return "is-loading", gettext_noop("Loading models")
    if "ready" in states:
        return "is-ready", gettext_noop("Ready")
    return "is-away", gettext_noop("Engine away")
