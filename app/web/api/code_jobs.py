"""Jobs for models with code: items of a body into a pack, options checked when the job is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import ModelNotFoundError, OptionError
from app.inference import code_items as checked
from app.inference.pipeline import predictor
from app.jobs import code_items
from app.jobs.code_items import NAMES
from app.jobs.image_packs import Pack
from app.models.routing import Choice
from app.web.api import bodies, code_bodies

JSON_LINES = "application/x-ndjson"


def choice(given: Mapping[str, Any]) -> Choice | None:
    """Who answers, where a model with code is named; None for any other job. Raises ModelNotFoundError, OptionError."""
    name, version = given.get("model"), given.get("version")
    if not isinstance(name, str) or not name or not isinstance(version, str | None):
        return None
    try:
        found = predictor().settle(None, name, version or None)
    except ModelNotFoundError:
        if code_bodies.ITEMS in given:
            raise
        return None
    return found if found.manifest.code else None


def read_items(chosen: Choice, body: Mapping[str, Any] | bytes, pack: Pack) -> dict[str, Any]:
    """Put the items of a JSON document, or of JSON lines, into the pack; return what stands beside them.

    Raises OptionError, RequestError, and what ``Pack.add`` raises.
    """
    signature = chosen.manifest.signature
    if isinstance(body, bytes):
        lines = [line for line in body.splitlines() if line.strip()]
        document: dict[str, Any] = {
            code_bodies.ITEMS: [bodies.load(line) for line in lines[: pack.limits.max_images + 1]]
        }
    else:
        document = dict(body)
    beside = {name: document.pop(name) for name in (*NAMES, "task", "webhook_url") if name in document}
    items, options = code_bodies.from_json(signature, document)
    for number, item in enumerate(items):
        where = f"{code_bodies.ITEMS}[{number}]."
        pack.add(f"item {number + 1}", code_items.pack(signature, item, where))
    if not items:
        raise OptionError("%(field)s is empty.", hint="Send one at least.", field=code_bodies.ITEMS)
    return {**beside, **options}


def check_files(chosen: Choice) -> None:
    """Whether files alone can be the items of this model. Raises OptionError."""
    manifest = chosen.manifest
    if not checked.lone_file(manifest.signature):
        raise OptionError(
            "%(name)s takes %(names)s, not files alone.",
            hint="Send JSON with model and a list of items.",
            name=manifest.name,
            names=", ".join(manifest.signature["inputs"]),
        )
