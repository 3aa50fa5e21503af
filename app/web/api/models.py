"""GET /v1/models: which models there are, and whether they can answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify, request
from pydantic import BaseModel, Field

from app.errors import ModelNotFoundError
from app.inference.options import NUMBERS
from app.inference.pipeline import predictor
from app.inference.results import to_dict
from app.inference.served_models import ModelStatus
from app.web.api import answers, api, bodies
from app.web.api.builds import build, like
from app.web.openapi.operations import CONDITION, UNCHANGED, Answer, describe
from app.web.policy import RoutePolicy

TAG = "Models"
# The same until something changes, asked often, and large.
LISTED_ROUTE = RoutePolicy(is_conditional=True, is_microcached=True)


class Versioned(BaseModel):
    """Which version of a model."""

    version: str | None = Field(None, description="Version of the model; the active one when left out.")


@api.get("/models")
@describe(
    "All models",
    Answer("Versions by model, the active one first.", answers.ModelList, headers=("ETag",)),
    policy=LISTED_ROUTE,
    tag=TAG,
    answers={304: UNCHANGED},
    headers=(CONDITION,),
)
def list_models() -> Response:
    """Every version that is held here or has a role, those that answer first."""
    return jsonify(models=rows())


@api.get("/models/<name>")
@describe(
    "One model",
    Answer("The model.", answers.ModelDetail, headers=("ETag",)),
    policy=LISTED_ROUTE,
    tag=TAG,
    path={"name": "A name from `/v1/models`."},
    query=Versioned,
    answers={304: UNCHANGED},
    headers=(CONDITION,),
    errors=(ModelNotFoundError,),
)
def show_model(name: str) -> Response:
    """One model, with what is known of its active version, or of that of ``?version=``; and all of its versions."""
    version = bodies.in_address(request).get("version")
    versions = [status for status in predictor().models() if status.manifest.name == name]
    for status in versions:
        if status.manifest.version == version or (not version and status.role == "active"):
            return jsonify(
                **_row(status),
                description=status.manifest.description,
                architecture=status.manifest.architecture,
                held_out=status.manifest.held_out,
                error=status.error,
                versions=[like(answers.ModelVersion, each, each.manifest) for each in versions],
                build=build(status),
                golden=_golden(status),
                drift=_drift(status),
            )
    # Says what there is instead.
    predictor().find(None, name, version)
    raise ModelNotFoundError("There is no %(name)s here.", name=name)


def _golden(status: ModelStatus) -> dict[str, Any]:
    found = status.golden
    at = datetime.fromtimestamp(found["at"], UTC).isoformat(timespec="seconds") if found else None
    return {"at": at, "is_passed": found.get("is_passed"), "error": found.get("error", "")}


def _drift(status: ModelStatus) -> dict[str, Any]:
    found = status.drift
    return {
        "images": found.get("images", 0),
        "reference_images": found.get("reference_images", 0),
        "figures": found.get("figures", {}),
    }


def rows() -> list[dict[str, Any]]:
    """Every model as a row of plain JSON types."""
    return [_row(status) for status in predictor().models()]


def _row(status: ModelStatus) -> dict[str, Any]:
    manifest = status.manifest
    options = to_dict(manifest.default_options())
    # As the description says, numbers: Python's True would pass for one.
    defaults = {name: value for name, value in options.items() if name in NUMBERS and type(value) in (int, float)}
    return {**like(answers.ModelRow, status, manifest), "defaults": defaults}
