"""JSON-RPC 2.0 at /api: the same predictions by methods, in batches and as notifications, and a page to try them on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NotRequired

from flask import Blueprint, Response, jsonify, render_template, request
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr
from typing_extensions import TypedDict

from app import __version__, tasks
from app.errors import CaskError, InputRefusedError, ModelCrashedError, OptionError, RequestError
from app.inference import code_calls
from app.inference.pipeline import predictor
from app.model_code import example_bodies
from app.models.manifests import Task
from app.telemetry import metrics
from app.texts import Text, gettext_noop
from app.web.api import answers, bodies, code_bodies, excerpts, models, prediction_docs
from app.web.middleware import canary_header, deadlines, error_handlers, request_ids
from app.web.middleware.request_context import RequestContext
from app.web.openapi import operations
from app.web.openapi.operations import EXAMPLE_IMAGE, JSON, Answer, Body, a_list, a_page, an_object, describe
from app.web.policy import PREDICTING_ROUTE

rpc = Blueprint("rpc", __name__, template_folder="../templates")

# Codes of the specification (https://www.jsonrpc.org/specification, section 5.1).
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
# Its range for servers: not now, or not in time; ``data`` says more.
UNAVAILABLE = -32000
MAX_CALLS = 32
HINT = gettext_noop('A call is {"jsonrpc": "2.0", "method": "Image.detect", "params": {"image": base64}, "id": 1}.')


class MethodError(RequestError):
    """There is no such method."""

    code = "rpc_method_not_found"
    status = 404
    title = "There is no such method"


class CallError(RequestError):
    """A call is not one of JSON-RPC 2.0."""

    code = "rpc_call_invalid"
    title = "The call is malformed"


Id = StrictStr | StrictInt | StrictFloat | None


class Call(BaseModel):
    """One call; without ``id`` it is a notification, which is not answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jsonrpc: Literal["2.0"]
    method: StrictStr
    params: dict[str, Any] | list[Any] = Field(default_factory=dict)
    id: Id = None

    @property
    def is_notification(self) -> bool:
        return "id" not in self.model_fields_set


class Trouble(TypedDict):
    """Why a call failed; ``data`` is a problem document."""

    code: int
    message: str
    data: dict[str, Any]


class Reply(TypedDict):
    """The answer to one call: it has either ``result`` or ``error``."""

    jsonrpc: Literal["2.0"]
    id: Id
    result: NotRequired[Any]
    error: NotRequired[Trouble]


@dataclass(frozen=True)
class Method:
    """What can be called. ``names`` are its parameters in the order in which they may be given without names."""

    run: Callable[[dict[str, Any]], Any]
    sentence: str
    names: tuple[str, ...] = ()
    example: dict[str, Any] | None = None


def _predict(task: Task) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def run(params: dict[str, Any]) -> dict[str, Any]:
        images, given = _images(params)
        return answers.document(predictor().predict(task, images, given, deadline=deadlines.current()))

    return run


def _images(params: dict[str, Any]) -> tuple[list[bytes], dict[str, Any]]:
    """``image``, one or a list, and the options beside it. Raises ImageMissingError."""
    given = dict(params)
    image = given.pop("image", [])
    return bodies.pictures(image if isinstance(image, list) else [image]), bodies.flat(given)


def _ask_model(params: dict[str, Any]) -> dict[str, Any]:
    """A model with code: the body of POST /v1/models/<name>/predict, with ``model`` and ``version`` beside it."""
    given = dict(params)
    name, version = given.pop("model", None), given.pop("version", None)
    for field, value in (("model", name), ("version", version)):
        if not isinstance(value, str) and (field == "model" or value is not None):
            raise OptionError(
                "%(field)s is %(value)s.",
                hint="A name from `/v1/models`, of a model whose task is `code`.",
                field=field,
                value=ascii(str(value)[:80]),
            )
    caller = RequestContext()
    choice = code_calls.choose(predictor(), name, version, caller)
    items, options = code_bodies.from_json(choice.manifest.signature, given)
    call = code_calls.Call(name, version, items, options, deadlines.current(), choice)
    called = code_calls.call(predictor(), call, caller)
    return {"model": answers.model_identity(called.manifest), "results": [json.loads(each) for each in called.answers]}


IMAGE = {"image": EXAMPLE_IMAGE}
ASK_MODEL = "Model.predict"
METHODS = {
    "App.index": Method(lambda _: f"Welcome to Cask {__version__}", gettext_noop("Says who answers.")),
    "Model.list": Method(lambda _: models.rows(), gettext_noop("All models, as GET /v1/models lists them.")),
    ASK_MODEL: Method(
        _ask_model,
        gettext_noop("A model with code, as POST /v1/models/<name>/predict asks it."),
        ("model", "items"),
        {"model": "tickets", "text": "My parcel is late"},
    ),
    **{
        f"Image.{name}": Method(
            _predict(name), task.rpc_sentence, ("image", task.rpc_option), {**IMAGE, **task.rpc_example}
        )
        for name, task in sorted(tasks.BY_NAME.items())
    },
}
EXAMPLES = {
    name: {"jsonrpc": "2.0", "method": name, **({"params": method.example} if method.example else {}), "id": 1}
    for name, method in METHODS.items()
}
BATCH = [EXAMPLES["App.index"], EXAMPLES[f"Image.{tasks.ALL[0].name}"], {"jsonrpc": "2.0", "method": "Model.list"}]


def _without_code(examples: dict[str, Any]) -> dict[str, Any]:
    """Those that any service answers; where it has a model with code, one of its own is put there."""
    return {name: example for name, example in examples.items() if name != ASK_MODEL}


def _call_schema(name: str) -> dict[str, Any]:
    method, accepted = METHODS[name], PARAMS.get(name)
    head = {"jsonrpc": {"const": "2.0"}, "method": {"const": name}, "id": {"type": ["string", "number", "null"]}}
    if name == ASK_MODEL:
        named = an_object({"model": {"type": "string"}, "version": {"type": "string"}}, "model")
        row = [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]
        listed = {"type": "array", "prefixItems": row, "items": {}, "minItems": 2, "maxItems": 2}
        params = {"anyOf": [{**named, "additionalProperties": {}}, listed]}
        return an_object({**head, "params": params}, "jsonrpc", "method", "params")
    if accepted is None:
        params = {"anyOf": [{"type": "object", "maxProperties": 0}, {"type": "array", "maxItems": 0, "items": {}}]}
        return an_object({**head, "params": params}, "jsonrpc", "method")
    options = prediction_docs.options(accepted)
    row = [IMAGES, *(options[each] for each in method.names[1:])]
    listed = {"type": "array", "prefixItems": row, "items": {}, "minItems": 1, "maxItems": len(row)}
    named = an_object({"image": IMAGES, **options}, "image")
    return an_object({**head, "params": {"anyOf": [named, listed]}}, "jsonrpc", "method", "params")


PARAMS: dict[str, type[BaseModel]] = {f"Image.{task.name}": task.params for task in tasks.ALL}
IMAGES = {"anyOf": [prediction_docs.BASE64_IMAGE, a_list(prediction_docs.BASE64_IMAGE)]}
CALLS = {
    "type": "array",
    "items": {},
    "minItems": 1,
    "maxItems": MAX_CALLS,
    "description": "Calls; each gets a reply of its own.",
}
SCHEMA = {"anyOf": [*map(_call_schema, METHODS), CALLS]}


@rpc.get("/api/browse", endpoint="browse")
@rpc.get("/api", endpoint="page")
@describe("The methods, to try", a_page("A page."))
def page() -> str:
    """Every method, with an example where there is a model to answer it."""
    manifests = predictor().manifests
    there = {f"Image.{manifest.task}" for manifest in manifests}
    shown = {name: call for name, call in _without_code(EXAMPLES).items() if name in there or name not in PARAMS}
    shown |= example_bodies.calls(manifests)
    return render_template("rpc.html", methods=METHODS, examples={**shown, "A batch": BATCH})


@rpc.post("/api")
@describe(
    "Call methods",
    Answer(
        "A reply, or one for each call of a batch that is no notification.",
        Reply | list[Reply],
        example={"jsonrpc": "2.0", "id": 1, "result": "Welcome to Cask"},
        headers=("X-Cache", "Age"),
    ),
    policy=PREDICTING_ROUTE,
    bodies=(Body(JSON, SCHEMA, examples={**_without_code(EXAMPLES), "a batch": BATCH}),),
    answers={204: Answer("All calls were notifications.")},
    errors=(*prediction_docs.PREDICTION_ERRORS, InputRefusedError, ModelCrashedError, MethodError, CallError),
    headers=(canary_header.HEADER, prediction_docs.FRESHNESS),
)
def call() -> Response:
    """Call one method, or several in a batch; a single call that fails has the HTTP status of its failure."""
    # A wrong one is refused here, whether or not a call would ask for it.
    canary_header.requested(request)
    document = bodies.read_json(request)
    if isinstance(document, list):
        return _batch(document)
    reply = _call(document)
    if reply is None:
        return Response(status=204)
    response = jsonify(reply)
    if "error" in reply:
        problem = reply["error"]["data"]
        response.status_code = problem["status"]
        error_handlers.add_retry_after(response, problem.get("retry_after_seconds"))
    return response


def _batch(calls: list[Any]) -> Response:
    if not calls:
        raise CallError("The batch is empty.", hint=HINT)
    if len(calls) > MAX_CALLS:
        raise CallError(
            "The batch has %(count)s calls; at most %(most)s are accepted.",
            hint="Send several.",
            count=len(calls),
            most=MAX_CALLS,
        )
    replies = [reply for each in calls if (reply := _call(each, is_part=True)) is not None]
    return jsonify(replies) if replies else Response(status=204)


def _call(document: Any, *, is_part: bool = False) -> Reply | None:
    """Run one call; every failure becomes its reply, so that the others of a batch are answered."""
    known = _id(document)
    try:
        call = _read(document)
        result = METHODS[call.method].run(_params(call))
    except CaskError as error:
        error_handlers.log_failure(error)
        # A call that cannot be read may have been a notification; the specification answers it all the same.
        is_notification = isinstance(document, dict) and "id" not in document and not isinstance(error, CallError)
        if is_part or is_notification:
            # The answer's status says nothing of it.
            metrics.FAILED_PARTS.add(part="call", code=error.code)
        return None if is_notification else _failed(known, error)
    return None if call.is_notification else {"jsonrpc": "2.0", "id": call.id, "result": result}


def _read(document: Any) -> Call:
    call = excerpts.fitting(Call, document, Text("the call"), CallError, hint=HINT)
    if call.method not in METHODS:
        raise MethodError(
            "There is no method %(name)s.",
            hint="There are: %(names)s.",
            name=repr(excerpts.shown(call.method)),
            names=", ".join(METHODS),
        )
    return call


def _params(call: Call) -> dict[str, Any]:
    """The parameters by name. Raises OptionError where there are more than the method has."""
    names = METHODS[call.method].names
    if isinstance(call.params, list):
        if len(call.params) > len(names):
            raise OptionError(
                "%(method)s takes %(count)s parameters without names.",
                hint=", ".join(names),
                method=call.method,
                count=len(names),
            )
        return dict(zip(names, call.params, strict=False))
    if call.params and not names:
        raise OptionError("%(method)s takes no parameters.", hint='Leave out "params".', method=call.method)
    return call.params


def _id(document: Any) -> Id:
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, str | int | float) and not isinstance(found, bool) else None


def _failed(known: Id, error: CaskError, code: int | None = None, request_id: str = "") -> Reply:
    data: dict[str, Any] = {**error.to_problem(request_id or request_ids.current())}
    if error.retry_after_seconds is not None:
        data["retry_after_seconds"] = error.retry_after_seconds
    number = _code(error) if code is None else code
    return {"jsonrpc": "2.0", "id": known, "error": {"code": number, "message": error.message, "data": data}}


def _code(error: CaskError) -> int:
    """The number that the specification has for a failure of a call."""
    if isinstance(error, CallError):
        return INVALID_REQUEST
    if isinstance(error, MethodError):
        return METHOD_NOT_FOUND
    if isinstance(error, RequestError):
        return UNAVAILABLE if error.status == 429 else INVALID_PARAMS
    return UNAVAILABLE if error.status in (503, 504) else INTERNAL_ERROR


def _answer_failure(error: CaskError) -> Response:
    """What went wrong before a call was found: the body is no JSON, or a guard refused the request."""
    code = PARSE_ERROR if type(error) is RequestError else INVALID_REQUEST
    response = jsonify(_failed(None, error, code if isinstance(error, RequestError) else None))
    response.status_code = error.status
    return response


error_handlers.shape(rpc.name, _answer_failure)
operations.put(
    rpc,
    tag="JSON-RPC",
    error_schema=Reply,
    error_example=lambda error, request_id: _failed(None, error, request_id=request_id),
)
