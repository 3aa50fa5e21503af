"""POST /v1/models/<name>/predict: ask a model with code. What it takes and gives, its own hints say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from app.errors import InputRefusedError, ModelCrashedError, RequestError
from app.inference import code_calls, code_items
from app.inference.code_calls import Call, Called
from app.inference.pipeline import Caller, Predictor, predictor
from app.model_code.schema_marks import BESIDE, KIND
from app.models.manifests import Manifest
from app.models.routing import Choice
from app.texts import Text
from app.web.api import answers, api, bodies, code_bodies, prediction_docs
from app.web.api.models import Versioned
from app.web.middleware import canary_header, deadlines, form_bodies, request_ids
from app.web.middleware.request_context import RequestContext
from app.web.openapi.operations import BINARY, JSON, Answer, Body, describe
from app.web.policy import PREDICTING_ROUTE

FORM = "multipart/form-data"
ANY_OBJECT = {"type": "object"}
ANSWERS = {
    "type": "object",
    "properties": {"model": ANY_OBJECT, "results": {"type": "array", "items": {}}, "request_id": {"type": "string"}},
    "required": ["model", "results", "request_id"],
}


@api.post("/models/<name>/predict")
@describe(
    "Ask a model with code",
    Answer("One result an item, in their order.", ANSWERS, headers=prediction_docs.PREDICTED),
    policy=PREDICTING_ROUTE,
    tag="Predictions",
    path={"name": "A name from `/v1/models`, of a model whose task is `code`."},
    query=Versioned,
    bodies=(
        Body(JSON, ANY_OBJECT),
        Body(FORM, ANY_OBJECT),
        Body("image/*", BINARY),
        Body("application/octet-stream", BINARY),
    ),
    headers=(canary_header.HEADER, prediction_docs.FRESHNESS),
    errors=(*prediction_docs.PREDICTION_ERRORS, InputRefusedError, ModelCrashedError),
)
def ask_model(name: str) -> Response:
    """Ask a model with code: an object with its parameters and options, or a list ``items`` of such beside options."""
    given = bodies.in_address(request)
    version = given.pop("version", None)
    caller = RequestContext()
    choice = code_calls.choose(predictor(), name, version, caller)
    items, options = _read(choice.manifest, given)
    asked = Call(name, version, items, options, deadlines.current(), choice)
    called = code_calls.call(predictor(), asked, caller)
    response = Response(document(called, request_ids.current()), mimetype=JSON)
    response.headers["Server-Timing"] = answers.server_timing(called.timings)
    return response


def document(called: Called, request_id: str) -> bytes:
    """The answers as the model gave them, never parsed here."""
    head = json.dumps({"model": answers.model_identity(called.manifest), "request_id": request_id})
    return head[:-1].encode() + b', "results": [' + b", ".join(called.answers) + b"]}\n"


# ── before Flask ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class FileQuestion:
    """What a request with one file as its body asks; ``parameter`` is the only one that the model has."""

    name: str
    version: str | None
    choice: Choice
    parameter: str
    options: Mapping[str, Any]

    def answer(
        self, asked: Predictor, data: bytes, deadline: float, caller: Caller, request_id: str
    ) -> tuple[bytes, dict[str, float]]:
        """The body and the timings of the answer. Raises as ``code_calls.call``."""
        call = Call(self.name, self.version, [{self.parameter: data}], self.options, deadline, self.choice)
        called = code_calls.call(asked, call, caller)
        return document(called, request_id), called.timings


def file_question(asked: Predictor, name: str, given: dict[str, str]) -> FileQuestion | None:
    """The question, with the options in the address read; None where the model takes something else than one file.

    Raises ModelNotFoundError, ModelNotReadyError, OptionError.
    """
    version = given.pop("version", None)
    choice = code_calls.choose(asked, name, version, None)
    signature = choice.manifest.signature
    if not (parameter := code_items.lone_file(signature)):
        return None
    options = code_bodies.typed(signature["options"], given)
    code_items.options(signature, options)
    return FileQuestion(name, version, choice, parameter, options)


# ── what was asked ────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(manifest: Manifest, given: Mapping[str, str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The items and the options. ``given``: the options in the address. Raises RequestError, MediaTypeError."""
    signature, kind = manifest.signature, request.mimetype
    beside = [name for name, schema in signature["inputs"].items() if schema.get(KIND) in BESIDE]
    typed = code_bodies.typed(signature["options"], given)
    if kind == JSON:
        items, options = code_bodies.from_json(signature, bodies.read_json(request))
        return items, {**typed, **options}
    if kind == FORM:
        return _from_form(signature, beside, typed)
    if (parameter := code_items.lone_file(signature)) and bodies.holds_bytes(kind):
        return [{parameter: bodies.read_whole(request)}], typed
    raw = Text(", or the bytes alone as image/* or application/octet-stream") if len(beside) == 1 else ""
    raise bodies.media_type_error(kind, Text("application/json or multipart/form-data%(raw)s", raw=raw))


def _from_form(
    signature: Mapping[str, Any], beside: list[str], typed: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One item: files in parts named as its parameters, everything else in fields."""
    if not beside:
        item: dict[str, Any] = {}
        fields = form_bodies.once(request.form)
    else:
        fields = bodies.fields_beside(request, tuple(beside))
        item = {name: _file(name) for name in beside if name in request.files}
    known = {**signature["inputs"], **signature["options"]}
    values = code_bodies.typed(known, fields)
    item |= {name: values.pop(name) for name in signature["inputs"].keys() & values.keys()}
    return [item], {**typed, **values}


def _file(name: str) -> bytes:
    files = request.files.getlist(name)
    if len(files) > 1:
        raise RequestError(
            "The form has %(count)s files named %(name)s.",
            hint="A form is one item; send several as JSON, or one after the other.",
            count=len(files),
            name=name,
        )
    return files[0].read()
