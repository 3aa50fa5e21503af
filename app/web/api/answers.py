"""Outcomes as JSON, with what every answer carries: model, request id, timings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from flask import Response, jsonify
from pydantic import Field
from typing_extensions import TypedDict

from app import tasks
from app.inference import overlays
from app.inference.pipeline import ImageResult, Outcome
from app.inference.results import PIXEL_DIGITS, rounded, to_dict
from app.models.manifests import BY_SIGNATURE, Manifest
from app.models.roles import Role
from app.tasks.base import ModelIdentity
from app.web.api.builds import Build
from app.web.middleware import request_ids

if TYPE_CHECKING:
    ModelTask = str
else:
    # Also of models with code.
    ModelTask = Literal[(*tasks.NAMES, *BY_SIGNATURE)]
ModelState = Literal["ready", "loading", "failed", "unloaded", "unavailable"]
ModelRole = Annotated[Role, Field(description="What the version is for.")]
RequestShare = Annotated[float, Field(ge=0, le=100, description="Percent of the requests that it answers.")]


class ModelRow(TypedDict):
    """One version of a model that is held here or has a role."""

    name: str
    version: str
    digest: str
    task: ModelTask
    labels: list[str]
    role: ModelRole
    share: RequestShare
    state: ModelState
    computed_by: Annotated[str, Field(description="Runtime and precision; empty until it is ready.")]
    device: Annotated[str, Field(description="`cpu` or a GPU such as `cuda:0`; empty until it is ready.")]
    demonstration: bool
    random_weights: bool
    defaults: dict[str, float]


class ModelList(TypedDict):
    """Every version that is held here or has a role, the active one of each model first."""

    models: list[ModelRow]


class ModelVersion(TypedDict):
    """One version of a model, in short."""

    version: str
    digest: str
    role: ModelRole
    share: RequestShare
    state: ModelState
    computed_by: str
    error: str


class Golden(TypedDict):
    """The last self-test: whether the stored answers are still given."""

    at: Annotated[str | None, Field(description="When (ISO 8601, UTC); null before the first.")]
    is_passed: bool | None
    error: Annotated[str, Field(description="What differs; else empty.")]


class DriftFigure(TypedDict):
    """One figure of the latest input against the model's sample pictures."""

    mean: float | None
    reference_mean: float | None
    psi: Annotated[float | None, Field(description="Population stability index; null with too few images or samples.")]
    by_chance: Annotated[float | None, Field(description="What the index would be about if nothing had changed.")]
    is_drifted: bool


class Drift(TypedDict):
    """How the latest input differs from what the model was made for: brightness, size, labels, score."""

    images: Annotated[int, Field(ge=0, description="Images computed since it was loaded.")]
    reference_images: Annotated[int, Field(ge=0, description="Sample pictures that it is compared with.")]
    figures: dict[str, DriftFigure]


class ModelDetail(ModelRow):
    """One model, with what is known of it."""

    description: str
    architecture: str
    held_out: dict[str, Any]
    error: Annotated[str, Field(description="Why it failed; else empty.")]
    versions: list[ModelVersion]
    build: Annotated[Build, Field(description="In which forms it was tried here, how fast and how faithful each is.")]
    golden: Golden
    drift: Drift


def answer(outcome: Outcome) -> Response:
    """The response for an outcome."""
    response = jsonify(**document(outcome), request_id=request_ids.current())
    response.headers["Server-Timing"] = server_timing(outcome.timings)
    return response


def document(outcome: Outcome) -> dict[str, Any]:
    """Model and results as plain JSON types."""
    task = tasks.BY_NAME[outcome.manifest.task]
    return {
        "model": model_identity(outcome.manifest),
        "results": [
            {
                "width": result.width,
                "height": result.height,
                **task.result(result.answer),
                **_explanation(result),
            }
            for result in outcome.results
        ],
    }


def _explanation(result: ImageResult) -> dict[str, Any]:
    if result.explanation is None:
        return {}
    placed = result.explanation
    overlay = overlays.data_address(placed.explanation.map, placed.region, result.width, result.height)
    region = {side: round(value, PIXEL_DIGITS) for side, value in to_dict(placed.region).items()}
    return {"explanation": {**rounded(placed.explanation), "region": region, "overlay": overlay}}


def model_identity(manifest: Manifest) -> ModelIdentity:
    """Which model answered: name, version and digest."""
    return {"name": manifest.name, "version": manifest.version, "digest": manifest.digest}


def server_timing(timings: dict[str, float]) -> str:
    """Milliseconds as the Server-Timing header writes them (W3C Server Timing)."""
    return ", ".join([f"{name};dur={milliseconds:.2f}" for name, milliseconds in timings.items()])
