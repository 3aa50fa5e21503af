"""/v2: the Open Inference Protocol, as KServe and Triton have it, so that their stock clients work."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired

import numpy as np
from flask import Blueprint, Response, jsonify, request
from typing_extensions import TypedDict

from app import tasks
from app.errors import CaskError, ModelNotFoundError, OptionError
from app.inference.options import PARAMS_OF_TASK
from app.inference.pipeline import ImageData, Outcome, predictor
from app.models.manifests import Manifest
from app.texts import Text
from app.web.api import answers, bodies, excerpts, prediction_docs, tensors
from app.web.api.tensors import InferRequest, TensorError
from app.web.middleware import canary_header, deadlines, error_handlers, request_ids
from app.web.openapi import operations
from app.web.openapi.operations import EXAMPLE_IMAGE, JSON, Answer, Body, describe
from app.web.policy import PREDICTING_ROUTE

inference = Blueprint("inference", __name__, url_prefix="/v2")

HEADER_LENGTH = "Inference-Header-Content-Length"
ENCODED = "image"
DECODED = "pixels"
SHARED_MEMORY = "shared_memory_region"
# A day.
MAX_TIMEOUT_MICROSECONDS = 86_400_000_000
INPUTS: list[dict[str, Any]] = [
    {"name": ENCODED, "datatype": "BYTES", "shape": [-1]},
    {"name": DECODED, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
]
SIZES = {"name": "sizes", "datatype": "INT32", "shape": [-1, 2]}
OUTPUTS = {task.name: [*task.tensors, SIZES] for task in tasks.ALL}
PATH = {"name": "A name from `/v1/models`.", "version": "A version of that model."}


class Failure(TypedDict):
    """A failure as the protocol has it; ``code`` and the rest are those of our problem documents."""

    error: str
    code: str
    status: int
    hint: str
    request_id: str


class OutputTensor(TypedDict):
    """One tensor of an answer, row by row; a binary one has ``binary_data_size`` in place of ``data``."""

    name: str
    datatype: str
    shape: list[int]
    data: NotRequired[list[Any]]
    parameters: NotRequired[dict[str, int]]


class Inferred(TypedDict):
    """The answer; ``digest`` in the parameters is the model's."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    parameters: dict[str, str]
    outputs: list[OutputTensor]


def _failure(error: CaskError, request_id: str) -> dict[str, Any]:
    problem = error.to_problem(request_id)
    return {"error": error.message, **{name: problem[name] for name in ("code", "status", "hint", "request_id")}}


def _answer_failure(error: CaskError) -> Response:
    response = jsonify(_failure(error, request_ids.current()))
    response.status_code = error.status
    return response


error_handlers.shape(inference.name, _answer_failure, below="/v2")
operations.put(inference, tag="Open Inference Protocol", error_schema=Failure, error_example=_failure)
EXAMPLE = {"inputs": [{"name": ENCODED, "datatype": "BYTES", "shape": [1], "data": [EXAMPLE_IMAGE]}]}

INFERRED = Answer(
    "The tensors that were asked for; in octets where some are binary.",
    Inferred,
    headers=prediction_docs.PREDICTED,
    is_binary_too=True,
)


@inference.post("/models/<name>/infer")
@inference.post("/models/<name>/versions/<version>/infer")
@describe(
    "Infer",
    INFERRED,
    policy=PREDICTING_ROUTE,
    path=PATH,
    bodies=(Body(JSON, prediction_docs.INFER, examples={"one image": EXAMPLE}),),
    headers=(canary_header.HEADER, prediction_docs.FRESHNESS),
    errors=(*prediction_docs.PREDICTION_ERRORS, TensorError),
)
def infer(name: str, version: str | None = None) -> Response:
    """Predict the images of a tensor: encoded ones as BYTES, or pixels as UINT8. Takes and gives binary tensors too."""
    manifest = known(name, version)
    asked, images = _read()
    _check_outputs(asked, manifest)
    outcome = predictor().predict(
        manifest.task,
        images,
        _params(asked.parameters, manifest),
        model=manifest.name,
        version=version,
        deadline=_deadline(asked.parameters),
    )
    return _answer(asked, outcome)


# ── what was asked ────────────────────────────────────────────────────────────────────────────────────────────────────


def known(name: str, version: str | None) -> Manifest:
    """The model of this name, one that takes images. Raises ModelNotFoundError."""
    found = predictor().find(None, name, version)
    if found.code:
        raise ModelNotFoundError(
            "%(name)s is a model with code, which this protocol does not reach.",
            hint="Ask POST /v1/models/%(plain)s/predict.",
            name=found.key,
            plain=found.name,
        )
    return found


def _read() -> tuple[InferRequest, Sequence[ImageData]]:
    """The JSON part and the images. Raises RequestError, TensorError, MediaTypeError."""
    body = bodies.read_whole(request)
    length = _header_length(len(body))
    asked = excerpts.fitting(InferRequest, bodies.load(body[:length]), Text("The JSON"), TensorError)
    _check_shared_memory(asked)
    parts = tensors.binary_parts(asked.inputs, memoryview(body)[length:])
    if len(asked.inputs) != 1 or (asked.inputs[0].name, asked.inputs[0].datatype) not in _INPUT_KINDS:
        pairs = [(excerpts.shown(input_.name, 40), excerpts.shown(input_.datatype, 40)) for input_ in asked.inputs]
        given = ", ".join(f"{name} of {datatype}" for name, datatype in pairs)
        raise TensorError(
            "The inputs are %(given)s.",
            hint="Send one: %(encoded)s of BYTES with encoded images, or %(decoded)s of UINT8.",
            given=given,
            encoded=ENCODED,
            decoded=DECODED,
        )
    if asked.inputs[0].name == ENCODED:
        return asked, tensors.read_texts(asked.inputs[0], parts[0])
    return asked, tensors.read_pixels(asked.inputs[0], parts[0])


_INPUT_KINDS = {(row["name"], row["datatype"]) for row in INPUTS}


def _header_length(whole: int) -> int:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return whole
    if not text.isdecimal() or not text.isascii() or len(text) > 12 or int(text) > whole:
        raise TensorError(
            "%(name)s is %(value)s; the body has %(whole)s bytes.",
            name=HEADER_LENGTH,
            value=repr(text[:40]),
            whole=whole,
        )
    return int(text)


def _check_shared_memory(asked: InferRequest) -> None:
    shared = [input_.name for input_ in asked.inputs if SHARED_MEMORY in input_.parameters]
    shared += [output.name for output in asked.outputs if SHARED_MEMORY in output.parameters]
    if shared:
        where = excerpts.shown(shared[0], 40)
        raise TensorError("%(where)s lies in shared memory.", hint="Send the data with the request.", where=where)


def _check_outputs(asked: InferRequest, manifest: Manifest) -> None:
    known = [row["name"] for row in OUTPUTS[manifest.task]]
    for requested_output in asked.outputs:
        if requested_output.name not in known:
            raise TensorError(
                "There is no output %(name)s.",
                hint="Outputs: %(known)s.",
                name=repr(excerpts.shown(requested_output.name, 40)),
                known=", ".join(known),
            )


# The address says which model answers, and an explanation is no tensor.
NOT_HERE = ("model", "version", "explain", "explain_label")
OPTIONS = {name for kind in PARAMS_OF_TASK.values() for name in kind.model_fields}


def _params(parameters: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """The options among the parameters. What is none of ours is ignored: stock clients add parameters of their own.

    Raises OptionError for an option that this model does not have.
    """
    given = {name: value for name, value in parameters.items() if name in OPTIONS and value is not None}
    known = [name for name in PARAMS_OF_TASK[manifest.task].model_fields if name not in NOT_HERE]
    for name in given:
        if name not in known:
            raise OptionError(
                "%(name)s is not a parameter of %(task)s here.",
                hint="Known: %(known)s.",
                name=name,
                task=manifest.task,
                known=", ".join(known),
            )
    return bodies.flat(given)


def _deadline(parameters: Mapping[str, Any]) -> float:
    """The request's deadline, or the protocol's ``timeout`` in microseconds where that is sooner."""
    timeout = bodies.whole(parameters.get("timeout"))
    if timeout is None:
        return deadlines.current()
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise OptionError(
            "timeout is %(value)s.", hint="Microseconds, a whole number; 0 for none.", value=repr(str(timeout)[:40])
        )
    # Longer than any deadline is as good as none.
    seconds = min(timeout, MAX_TIMEOUT_MICROSECONDS) / 1e6
    return min(deadlines.current(), time.monotonic() + seconds) if timeout else deadlines.current()


# ── what is answered ──────────────────────────────────────────────────────────────────────────────────────────────────


def _answer(asked: InferRequest, outcome: Outcome) -> Response:
    task = tasks.BY_NAME[outcome.manifest.task]
    found = {**task.to_tensors([result.answer for result in outcome.results]), "sizes": _sizes(outcome)}
    requested_outputs = {requested_output.name: requested_output for requested_output in asked.outputs}
    names = list(requested_outputs) or list(found)
    rows = [
        tensors.write(name, found[name], is_binary=tensors.wants_binary(requested_outputs.get(name), asked.parameters))
        for name in names
    ]
    document = {
        "model_name": outcome.manifest.name,
        "model_version": outcome.manifest.version,
        **({"id": asked.id} if asked.id is not None else {}),
        "parameters": {"digest": outcome.manifest.digest},
        "outputs": [head for head, _ in rows],
    }
    response = _binary(document, [data for _, data in rows]) if any(data for _, data in rows) else jsonify(document)
    response.headers["Server-Timing"] = answers.server_timing(outcome.timings)
    return response


def _binary(document: dict[str, Any], parts: list[bytes]) -> Response:
    head = json.dumps(document, allow_nan=False).encode()
    response = Response(b"".join((head, *parts)), content_type="application/octet-stream")
    response.headers[HEADER_LENGTH] = str(len(head))
    return response


def _sizes(outcome: Outcome) -> np.ndarray:
    """Width and height of each upright image in pixels."""
    return np.array([(result.width, result.height) for result in outcome.results], np.int32)


from app.web.api import repository  # noqa: E402, F401 - it adds its views to the blueprint
