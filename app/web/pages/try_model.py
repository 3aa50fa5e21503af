"""The page that tries a model with code: its form, and what it answers. Works without scripts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flask import Response, make_response, redirect, render_template, request, url_for
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as BaseResponse

from app.errors import CaskError, ModelNotFoundError
from app.inference import code_calls
from app.inference.code_calls import Call, Called
from app.inference.pipeline import predictor
from app.models.manifests import Manifest
from app.web.api import code_bodies
from app.web.middleware import deadlines, form_bodies
from app.web.middleware.request_context import RequestContext
from app.web.openapi.operations import Body, a_page, describe
from app.web.pages import curl, model_answer, model_fields, pages, prediction_view, previews, try_image
from app.web.pages.model_answer import ModelAnswer
from app.web.pages.model_fields import Field
from app.web.pages.previews import Preview
from app.web.policy import PAGE_ROUTE

PATH = {"name": "A name from `/v1/models`."}
TO_IMAGES = a_page("To the page for images, of a model that takes nothing else.")
REFUSED = a_page("The page, with what is wrong.")
FORM = {
    "type": "object",
    "properties": dict[str, object](),
    "description": "The parameters and options of the model, as the page sends them.",
}


@dataclass(frozen=True)
class Shown:
    """What the page shows of an answer, or of a failure; ``seen`` is the picture that was sent."""

    called: Called | None = None
    answer: ModelAnswer | None = None
    error: CaskError | None = None
    seen: Preview | None = None
    name: str = ""
    size: tuple[int, int] = (0, 0)
    command: str = ""


@pages.get("/models/<name>")
@describe("The page of a model with code", a_page("Its form."), path=PATH, answers={303: TO_IMAGES, 404: REFUSED})
def try_model(name: str) -> BaseResponse:
    """The form of a model with code."""
    manifest = predictor().find(None, name)
    if not manifest.code:
        return redirect(url_for("pages.try_image"), 303)
    return _page(manifest, model_fields.fields(manifest.signature), Shown())


@pages.post("/models/<name>")
@describe(
    "The form of a model with code",
    a_page("The page with the answer."),
    policy=replace(PAGE_ROUTE, predicts=True),
    path=PATH,
    bodies=(Body("multipart/form-data", FORM),),
    answers=dict.fromkeys((400, 404, 413, 415, 422, 500, 503, 504), REFUSED),
)
def ask_with_form(name: str) -> BaseResponse:
    """Answer the form with the same page; what is wrong stands beside its field."""
    caller = RequestContext()
    choice = code_calls.choose(predictor(), name, None, caller)
    manifest = choice.manifest
    fields = model_fields.typed(model_fields.fields(manifest.signature), form_bodies.once(request.form))
    files, data = dict[str, FileStorage](), dict[str, bytes]()
    try:
        sent = form_bodies.once(request.files)
        files = {field.name: sent[field.name] for field in fields if sent.get(field.name)}
        data = {key: file.read() for key, file in files.items()}
        item, options = model_fields.values(fields, data)
        asked = Call(
            name,
            None,
            [_typed(manifest, item)],
            code_bodies.typed(manifest.signature["options"], options),
            deadlines.current(),
            choice,
        )
        called = code_calls.call(predictor(), asked, caller)
    except ModelNotFoundError:
        raise
    except CaskError as error:
        return _page(manifest, model_fields.with_error(fields, error.message), Shown(error=error))
    image = next((field.name for field in fields if field.kind == "image" and field.name in data), "")
    names = {key: file.filename or key for key, file in files.items()}
    return _page(
        called.manifest,
        fields,
        _shown(called, data.get(image, b""), names.get(image, ""), _command(name, fields, names)),
    )


def _typed(manifest: Manifest, item: dict[str, object]) -> dict[str, object]:
    """Texts of the form as the JSON values that they stand for."""
    schemas = manifest.signature["inputs"]
    found = dict(item)
    for name, value in item.items():
        if isinstance(value, str):
            found |= code_bodies.typed(schemas, {name: value})
        elif isinstance(value, dict):
            found[name] = code_bodies.typed(schemas[name]["properties"], value)
    return found


def _shown(called: Called, image: bytes, name: str, command: str) -> Shown:
    seen, size = previews.measured(predictor().decoder, image, deadlines.current()) if image else (None, (0, 0))
    answer = model_answer.of(called.manifest.signature["answer"], json.loads(called.answers[0]), seen, size)
    return Shown(called, answer, None, seen, name, size, command)


def _command(name: str, fields: Sequence[Field], files: dict[str, str]) -> str:
    """The same question for a terminal: as a form where there are files, else as JSON."""
    address = shlex.quote(f"{request.url_root.rstrip('/')}{try_image.API_PATH}/models/{name}/predict")
    if any(field.is_file for field in fields):
        parts = [f"{field.name}=@{curl.file(files[field.name])}" for field in fields if field.name in files]
        parts += [f"{field.name}={field.value}" for field in fields if field.value and not field.is_file]
        return " \\\n  ".join(["curl", *(f"-F {shlex.quote(part)}" for part in parts), address])
    item, options = model_fields.values(list(fields), {})
    manifest = predictor().find(None, name)
    document = {**_typed(manifest, item), **code_bodies.typed(manifest.signature["options"], options)}
    body = shlex.quote(json.dumps(document, ensure_ascii=False))
    return " \\\n  ".join(["curl -H 'Content-Type: application/json'", f"-d {body}", address])


def _page(manifest: Manifest, fields: Sequence[Field], shown: Shown) -> Response:
    statuses = [status for status in predictor().models() if status.manifest.name == manifest.name]
    page = render_template(
        "try_model.html",
        manifest=manifest,
        description=manifest.signature["description"],
        fields=fields,
        shown=shown,
        steps=prediction_view.STEPS,
        engine_state=try_image.engine_state(statuses),
        api_url=request.script_root + try_image.API_PATH,
    )
    return make_response(page, shown.error.status if shown.error else 200)
