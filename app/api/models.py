"""GET /v1/models: which models there are, and whether they can answer."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from pydantic import BaseModel, Field

from app.api import answers, api
from app.errors import ModelNotFoundError
from app.openapi.operations import Answer, describe
from app.predictions import ModelStatus, predictor
from app.results import to_dict

TAG = "Models"


class Versioned(BaseModel):
    """Which version of a model."""

    version: str | None = Field(None, description="Version of the model; the newest one when left out.")


@api.get("/models")
@describe(
    tag=TAG,
    summary="All models",
    answers={200: Answer(description="Models in the order of MODELS.", schema=answers.ModelList)},
)
def list_models() -> Response:
    """Every model that is served here."""
    return jsonify(models=rows())


@api.get("/models/<name>")
@describe(
    tag=TAG,
    summary="One model",
    path={"name": "A name from `/v1/models`."},
    query=Versioned,
    answers={200: Answer(description="The model.", schema=answers.ModelDetail)},
    errors=(ModelNotFoundError,),
)
def show_model(name: str) -> Response:
    """One model, with what is known of it; ``?version=`` for another than the newest."""
    chosen = predictor().find(None, name, request.args.get("version"))
    for status in predictor().models():
        if status.manifest == chosen:
            return jsonify(
                **_row(status),
                description=chosen.description,
                architecture=chosen.architecture,
                held_out=chosen.held_out,
                error=status.error,
            )
    raise ModelNotFoundError(f"There is no {name} here.")


def rows() -> list[dict[str, Any]]:
    """Every model as a row of plain JSON types."""
    return [_row(status) for status in predictor().models()]


def _row(status: ModelStatus) -> dict[str, Any]:
    manifest = status.manifest
    return {
        **answers.model_identity(manifest),
        "task": manifest.task,
        "labels": list(manifest.labels),
        "state": status.state,
        "computed_by": status.computed_by,
        "demonstration": manifest.demonstration,
        "random_weights": manifest.random_weights,
        "defaults": to_dict(manifest.default_options()),
    }
