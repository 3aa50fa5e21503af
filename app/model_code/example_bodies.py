"""A request that a model with code answers, for descriptions, pages and load tests: its own example, or one made up."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from app.model_code.schema_marks import EXAMPLE_IMAGE, KIND
from app.models.manifests import Manifest
from app.storage import files

FOLDER = "examples"
EXPECTED = ".expected.json"
# A longer one is no help to who reads a description.
MOST_BYTES = 20_000


def body(manifest: Manifest) -> dict[str, Any]:
    """The body of ``POST /v1/models/<name>/predict``: the first of ``examples/`` that is JSON and short, or values that
    fit the schema.
    """
    for path in sorted((manifest.directory / FOLDER).glob("*.json")):
        if path.name.endswith(EXPECTED):
            continue
        try:
            document = json.loads(files.read(path, MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            return document
    return made_up(manifest.signature)


def calls(manifests: Iterable[Manifest]) -> dict[str, Any]:
    """The first of them that is a model with code, asked by JSON-RPC; by the name of the method."""
    found = next((each for each in manifests if each.code), None)
    if found is None:
        return {}
    params = {"model": found.name, **body(found)}
    return {"Model.predict": {"jsonrpc": "2.0", "method": "Model.predict", "params": params, "id": 1}}


def made_up(signature: Mapping[str, Any]) -> dict[str, Any]:
    """Values that fit the schema; what may be left out is. A text's pattern is not looked at."""
    inputs: Mapping[str, Any] = signature["inputs"]
    return {name: value(schema) for name, schema in inputs.items() if "anyOf" not in schema}


def value(schema: Mapping[str, Any]) -> Any:
    """One value that fits a schema."""
    if "anyOf" in schema:
        return None
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"]
    if kind == "object":
        return {name: value(schema["properties"][name]) for name in schema.get("required", ())}
    if kind == "array":
        return [value(schema["items"]) for _ in range(schema.get("minItems", 1))]
    if kind == "boolean":
        return True
    return _text(schema) if kind == "string" else _number(schema)


def _text(schema: Mapping[str, Any]) -> str:
    if schema.get(KIND) == "image":
        return EXAMPLE_IMAGE
    if schema.get("contentEncoding"):
        return base64.b64encode(b"any bytes").decode()
    words = "Any words"
    while len(words) < schema.get("minLength", 0):
        words += " and more"
    return words[: schema.get("maxLength", len(words))]


def _number(schema: Mapping[str, Any]) -> float:
    low = schema.get("minimum", min(1, schema.get("maximum", 1)))
    middle: float = (low + schema.get("maximum", low)) / 2
    return int(middle) if schema["type"] == "integer" else middle
