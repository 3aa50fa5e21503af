"""/v2 besides predictions: who answers, which models there are, what they take, whether they are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, NotRequired

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, StrictBool
from typing_extensions import TypedDict

from app import __version__
from app.errors import ModelNotFoundError, ModelNotReadyError, RequestError
from app.inference.pipeline import predictor
from app.inference.served_models import ModelStatus
from app.texts import Text
from app.web.api import bodies, excerpts
from app.web.api.inference import PATH, Failure, inference, known, tensors_of
from app.web.api.tensors import TensorError
from app.web.middleware import error_handlers
from app.web.openapi.operations import JSON, Answer, Body, View, describe
from app.web.policy import WATCHED_ROUTE

STATES = {"ready": "READY", "loading": "LOADING"}
# Names of data types in Triton's configuration of a model; the others are the protocol's with TYPE_ before them.
CONFIG_TYPES = {"BYTES": "TYPE_STRING"}


class Server(TypedDict):
    """Who answers."""

    name: str
    version: str
    extensions: list[str]


class Live(TypedDict):
    """This process answers."""

    live: bool


class Ready(TypedDict):
    """Whether all models can answer."""

    ready: bool


class ModelReady(TypedDict):
    """Whether one model can answer."""

    name: str
    ready: bool


class Tensor(TypedDict):
    """A tensor that a model takes or gives; -1 stands for any number.

    ``parameters``: ``content_type`` says what BYTES hold (``str``, ``base64`` or ``json``), where it is known.
    """

    name: str
    datatype: str
    shape: list[int]
    parameters: NotRequired[dict[str, Any]]


class Metadata(TypedDict):
    """What a model takes and gives. Of a model for images either input is enough."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class IndexRow(TypedDict):
    """One version of one model."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class IndexParams(BaseModel):
    """Which rows of the index: all, or those that are ready."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ready: StrictBool | None = None


class Models(TypedDict):
    """The models that answer."""

    models: list[str]


class ConfigTensor(TypedDict):
    """A tensor in the words of Triton's configuration."""

    name: str
    data_type: str
    dims: list[int]


class Config(TypedDict):
    """What a model takes and gives, as Triton has it; ``max_batch_size`` of 0: the shapes hold the batch already."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]


class Count(TypedDict):
    """How often."""

    count: int


class InferenceStats(TypedDict):
    """What came of it."""

    success: Count


class ModelStats(TypedDict):
    """How much a version has computed since it was loaded, in images; what was answered from the cache is not."""

    name: str
    version: str
    inference_count: int
    inference_stats: InferenceStats


class Stats(TypedDict):
    """One row a version."""

    model_stats: list[ModelStats]


# For machines that watch; a host name of ours is asked for, as everywhere in this protocol.
HEALTH_ROUTE = replace(WATCHED_ROUTE, is_own_host_only=True)
NOT_READY = Answer("Not now.", ModelReady | Ready | Failure)


def of_model(ending: str, *what: Any, **promises: Any) -> Callable[[View], View]:
    """GET this of a model, by its name alone or with a version; what is promised besides goes to ``describe``."""

    def route(view: View) -> View:
        view = describe(*what, path=PATH, errors=(ModelNotFoundError,), **promises)(view)
        for address in ("/models/<name>/versions/<version>", "/models/<name>"):
            view = inference.get(address + ending)(view)
        return view

    return route


@inference.get("")
@describe("Server metadata", Answer("Who answers.", Server))
def server() -> Response:
    """Name, version and extensions of this server."""
    return jsonify(name="cask", version=__version__, extensions=["binary_tensor_data"])


@inference.get("/health/live")
@describe("Live", Answer("Alive.", Live), policy=HEALTH_ROUTE)
def live() -> Response:
    """This process answers."""
    return jsonify(live=True)


@inference.get("/health/ready")
@describe("Ready", Answer("All are ready.", Ready), policy=HEALTH_ROUTE, answers={503: NOT_READY})
def ready() -> Response:
    """Whether all models can answer, each in the version that is active."""
    is_ready = all(status.state == "ready" for status in predictor().models() if status.role == "active")
    return _readiness({"ready": is_ready}, is_ready=is_ready)


@of_model("", "Model metadata", Answer("What it takes and gives.", Metadata))
def metadata(name: str, version: str | None = None) -> Response:
    """The tensors that a model takes and gives."""
    manifest = known(name, version)
    versions = [status.manifest.version for status in predictor().models() if status.manifest.name == name]
    inputs, outputs = tensors_of(manifest)
    return jsonify(name=name, versions=versions, platform="cask", inputs=inputs, outputs=outputs)


@of_model("/ready", "Model ready", Answer("It is ready.", ModelReady), answers={503: NOT_READY})
def model_ready(name: str, version: str | None = None) -> Response:
    """Whether a model can answer."""
    manifest = predictor().find(None, name, version)
    is_ready = any(status.manifest == manifest and status.state == "ready" for status in predictor().models())
    return _readiness({"name": name, "ready": is_ready}, is_ready=is_ready)


@inference.get("/models")
@describe("Models", Answer("Their names.", Models))
def names() -> Response:
    """The names of all models, as KServe lists them."""
    return jsonify(models=[each.name for each in predictor().manifests])


@of_model("/config", "Model configuration", Answer("In Triton's words.", Config))
def config(name: str, version: str | None = None) -> Response:
    """The tensors that a model takes and gives, as Triton's configuration has them."""
    inputs, outputs = tensors_of(known(name, version))
    return jsonify(
        name=name,
        platform="cask",
        backend="",
        max_batch_size=0,
        input=[_config_tensor(row) for row in inputs],
        output=[_config_tensor(row) for row in outputs],
    )


@inference.get("/models/stats")
@describe("Statistics", Answer("Of every version that is held.", Stats))
def all_stats() -> Response:
    """How many images each version has computed."""
    return jsonify(model_stats=list(_stats(predictor().models())))


@of_model("/stats", "Model statistics", Answer("Of this model.", Stats))
def stats(name: str, version: str | None = None) -> Response:
    """How many images each version of a model has computed, or one version."""
    predictor().find(None, name, version)
    rows = [model for model in predictor().models() if model.manifest.name == name]
    return jsonify(model_stats=list(_stats([each for each in rows if version in (None, each.manifest.version)])))


@inference.post("/repository/index")
@describe(
    "Repository index",
    Answer("Models and their states.", list[IndexRow]),
    bodies=(Body(JSON, IndexParams, examples={"those that are ready": {"ready": True}}),),
    is_body_required=False,
    errors=(RequestError, TensorError),
)
def index() -> Response:
    """Every version of every model that is served here."""
    body = bodies.read_whole(request)
    document = bodies.load(body) if body else {}
    params = excerpts.fitting(IndexParams, document, Text("The JSON"), TensorError)
    rows = [
        {
            "name": status.manifest.name,
            "version": status.manifest.version,
            "state": STATES.get(status.state, "UNAVAILABLE"),
            "reason": status.error,
        }
        for status in predictor().models()
    ]
    return jsonify([row for row in rows if not params.ready or row["state"] == "READY"])


def _config_tensor(row: dict[str, Any]) -> ConfigTensor:
    return {
        "name": row["name"],
        "data_type": CONFIG_TYPES.get(row["datatype"], f"TYPE_{row['datatype']}"),
        "dims": row["shape"],
    }


def _stats(statuses: list[ModelStatus]) -> Iterator[ModelStats]:
    for status in statuses:
        count = int(status.drift.get("images", 0))
        yield {
            "name": status.manifest.name,
            "version": status.manifest.version,
            "inference_count": count,
            "inference_stats": {"success": {"count": count}},
        }


def _readiness(document: dict[str, Any], *, is_ready: bool) -> Response:
    response = jsonify(document)
    if not is_ready:
        response.status_code = 503
        error_handlers.add_retry_after(response, ModelNotReadyError("").retry_after_seconds)
    return response
