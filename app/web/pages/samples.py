"""Sample pictures from the model store, so that a newcomer gets an answer with one click."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from flask import Response, abort, send_from_directory

from app.inference.pipeline import predictor
from app.web.openapi.operations import Answer, a_page, describe
from app.web.pages import pages
from app.web.policy import PAGE_ROUTE

INDEX = "index.json"
MAX_AGE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture that ships with the models.

    ``name`` is its file, ``title`` what people read, ``task`` what it was made to show; empty where it fits all.
    """

    name: str
    title: str
    task: str


@pages.get("/samples/<name>")
@describe(
    "A sample picture",
    Answer("The picture.", {"type": "string", "format": "binary"}, media_type="image/jpeg"),
    policy=replace(PAGE_ROUTE, is_limited=False, is_storable=True),
    path={"name": "A name that the page offers."},
    answers={404: a_page("There is no such sample.")},
)
def sample(name: str) -> Response:
    """One sample picture; only files that the index names are served."""
    if name not in {each.name for each in find()}:
        abort(404)
    return send_from_directory(_folder(), name, max_age=MAX_AGE_SECONDS)


def read(name: str) -> bytes | None:
    """The bytes of one sample; None where the index does not name it."""
    return (_folder() / name).read_bytes() if name in {each.name for each in find()} else None


def find() -> list[Sample]:
    """All samples in the order of the index; none where the store has no samples."""
    try:
        index = json.loads((_folder() / INDEX).read_bytes())
    except (OSError, ValueError):
        return []
    rows = index.get("images", []) if isinstance(index, dict) else index
    return [each for each in map(_sample, rows) if each and (_folder() / each.name).is_file()]


def _folder() -> Path:
    """Beside the models: <store>/samples, where a model is <store>/<name>/<version>."""
    manifests = predictor().manifests
    if not manifests:
        raise FileNotFoundError
    return manifests[0].directory.parents[1] / "samples"


def _sample(row: object) -> Sample | None:
    if not isinstance(row, dict) or not isinstance(name := row.get("file"), str) or Path(name).name != name:
        return None
    title = Path(name).stem.replace("-", " ").replace("_", " ").capitalize()
    return Sample(name, str(row.get("title") or title), str(row.get("task") or ""))
