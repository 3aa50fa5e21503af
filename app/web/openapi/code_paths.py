"""Models with code in the description: an address for each, with what the hints of its ``predict`` say."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from app.model_code import example_bodies
from app.model_code.schema_marks import BESIDE, KIND
from app.models.manifests import Manifest
from app.web.openapi.operations import BINARY, a_list, an_object

GENERAL = "/v1/models/{name}/predict"
RPC, PAGE, JOBS = "/api", "/models/{name}", "/v1/jobs"
ITEMS = "items"
Schema = dict[str, Any]


def add(paths: dict[str, Any], manifests: Iterable[Manifest]) -> None:
    """Put the address of each model with code into ``paths`` in place of the general one, which says nothing."""
    manifests, general = list(manifests), paths.pop(GENERAL, None)
    if rpc := paths.get(RPC):
        rpc["post"]["requestBody"]["content"]["application/json"]["examples"] |= {
            name: {"value": call} for name, call in example_bodies.calls(manifests).items()
        }
    coded = [each for each in manifests if each.code]
    if coded and JOBS in paths:
        content = paths[JOBS]["post"]["requestBody"]["content"]["application/json"]
        content["schema"] = {"anyOf": [content["schema"], *(_job(each) for each in coded)]}
    page = paths.pop(PAGE, {})
    for manifest in manifests:
        if manifest.code and general:
            paths[GENERAL.replace("{name}", manifest.name)] = {"post": _operation(general["post"], manifest)}
            paths[PAGE.replace("{name}", manifest.name)] = {
                method: _named(operation, manifest) for method, operation in page.items()
            }


def _job(manifest: Manifest) -> Schema:
    """What a job of this model is made of: many items, and options beside them."""
    several: Schema = _bodies(manifest)["application/json"]["schema"]["anyOf"][1]
    named = {"model": {"const": manifest.name}, "webhook_url": {"type": "string", "format": "uri"}}
    return {
        **several,
        "properties": {**several["properties"], **named},
        "required": ["model", *several["required"]],
        "description": f"Many items for {manifest.name}, a model with code; or JSON lines (application/x-ndjson).",
    }


def _named(general: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """An operation on this model: its name is no parameter."""
    parameters = [each for each in general["parameters"] if (each.get("in"), each.get("name")) != ("path", "name")]
    named = f"{general['operationId']}_{manifest.name}"
    return {
        **copy.deepcopy(dict(general)),
        "operationId": named,
        "summary": f"{general['summary']}: {manifest.name}",
        "parameters": parameters,
    }


def _operation(general: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    signature = manifest.signature
    found = _named(general, manifest)
    lines = signature["description"].splitlines() or [f"Ask {manifest.name}."]
    found |= {
        "summary": f"Ask {manifest.name}",
        "description": lines[0],
        "requestBody": {"required": True, "content": _bodies(manifest)},
    }
    answer = found["responses"]["200"]["content"]["application/json"]["schema"]
    answer["properties"]["results"]["items"] = signature["answer"]
    return found


def _bodies(manifest: Manifest) -> dict[str, Any]:
    signature = manifest.signature
    inputs = {name: _base64(schema) for name, schema in signature["inputs"].items()}
    options = signature["options"]
    required = [name for name, schema in inputs.items() if "anyOf" not in schema]
    one = an_object({**inputs, **options}, *required)
    several = an_object({ITEMS: a_list(an_object(inputs, *required)), **options}, ITEMS)
    examples = {"an example": {"value": example_bodies.body(manifest)}}
    content: dict[str, Any] = {"application/json": {"schema": {"anyOf": [one, several]}, "examples": examples}}
    beside = [name for name, schema in signature["inputs"].items() if schema.get(KIND) in BESIDE]
    if beside:
        form = {**one, "properties": {**inputs, **options, **dict.fromkeys(beside, BINARY)}}
        content["multipart/form-data"] = {"schema": form}
    if len(beside) == len(inputs) == 1:
        content |= {kind: {"schema": BINARY} for kind in ("image/*", "application/octet-stream")}
    return content


def _base64(schema: Schema) -> Schema:
    return {**schema, "format": "base64-image"} if schema.get("x-cask-kind") == "image" else schema
