"""/v2: the Open Inference Protocol, as KServe and Triton have it, so that their stock clients work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired

import numpy as np
from flask import Blueprint, Response, jsonify
from typing_extensions import TypedDict

from app import tasks
from app.errors import CaskError, InputRefusedError, ModelCrashedError, OptionError
from app.inference.options import PARAMS_OF_TASK
from app.inference.pipeline import ImageData, predictor
from app.models.manifests import Manifest
from app.web.api import bodies, code_inference, code_tensors, excerpts, infer_requests, prediction_docs, tensors
from app.web.api.tensors import InferRequest, TensorError
from app.web.middleware import canary_header, error_handlers, request_ids
from app.web.openapi import operations
from app.web.openapi.operations import EXAMPLE_IMAGE, JSON, Answer, Body, describe
from app.web.policy import PREDICTING_ROUTE

inference = Blueprint("inference", __name__, url_prefix="/v2")

ENCODED = "image"
DECODED = "pixels"
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

# In the words of each task's own file.
_OUTPUTS = "; ".join(f"{name}: {', '.join(row['name'] for row in rows)}" for name, rows in sorted(OUTPUTS.items()))
INFERRED = Answer(
    f"The tensors that were asked for; in octets where some are binary. There are, by the model's task: {_OUTPUTS}.",
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
    errors=(*prediction_docs.PREDICTION_ERRORS, InputRefusedError, ModelCrashedError, TensorError),
)
def infer(name: str, version: str | None = None) -> Response:
    """Predict the images of a tensor: encoded ones as BYTES, or pixels as UINT8. Takes and gives binary tensors too.

    A model with code takes the tensors that its metadata names.
    """
    manifest = known(name, version)
    if manifest.code:
        return code_inference.infer(name, version)
    return _of_images(name, version, manifest)


# ── what was asked ────────────────────────────────────────────────────────────────────────────────────────────────────


def known(name: str, version: str | None) -> Manifest:
    """The model of this name. Raises ModelNotFoundError."""
    return predictor().find(None, name, version)


def tensors_of(manifest: Manifest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The inputs and outputs of a model, as its metadata has them."""
    if manifest.code:
        return code_tensors.inputs(manifest.signature), code_tensors.outputs(manifest.signature)
    return INPUTS, OUTPUTS[manifest.task]


def _of_images(name: str, version: str | None, manifest: Manifest) -> Response:
    asked, images = _read()
    infer_requests.check_outputs(asked, [row["name"] for row in OUTPUTS[manifest.task]])
    outcome = predictor().predict(
        manifest.task,
        images,
        _params(asked.parameters, manifest),
        model=name,
        version=version,
        deadline=infer_requests.deadline(asked.parameters),
    )
    task = tasks.BY_NAME[outcome.manifest.task]
    found = task.to_tensors([result.answer for result in outcome.results])
    # Of each upright image, in pixels.
    found["sizes"] = np.array([(result.width, result.height) for result in outcome.results], np.int32)
    return infer_requests.answer(asked, outcome.manifest, found, outcome.timings)


def _read() -> tuple[InferRequest, Sequence[ImageData]]:
    """The JSON part and the images. Raises RequestError, TensorError, MediaTypeError."""
    asked, parts = infer_requests.read()
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


from app.web.api import repository  # noqa: E402, F401 - it adds its views to the blueprint
