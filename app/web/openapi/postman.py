"""The OpenAPI document as a Postman collection (format 2.1): one request for each form of body of each address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
BASE_URL = "http://localhost:8000"
# Relative to the working directory that Postman is given: the checkout.
SAMPLE = "models/samples/site-morning.jpg"
AUTH = {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]}
RAW = {"raw": {"language": "json"}}


def collection(document: dict[str, Any], base_url: str = BASE_URL) -> dict[str, Any]:
    """The collection of an OpenAPI document; folders are its tags, ``{{base_url}}`` is where the service answers.

    Where the service asks for tokens, every request shows ``{{token}}``, to be filled in after the import.
    """
    needs_token = "securitySchemes" in document["components"]
    token = [{"key": "token", "value": "", "type": "secret"}] if needs_token else []
    folders: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            folders[operation["tags"][0]] += _items(path, method.upper(), operation)
    return {
        "info": {"name": document["info"]["title"], "version": document["info"]["version"], "schema": SCHEMA},
        **({"auth": AUTH} if needs_token else {}),
        "variable": [{"key": "base_url", "value": base_url}, *token],
        "item": [{"name": name, "item": items} for name, items in folders.items()],
    }


def _items(path: str, method: str, operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    request = {"method": method, "url": _url(path, operation), "description": operation["description"]}
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        yield {"name": operation["summary"], "request": request}
    for media_type, row in content.items():
        for name, body in _bodies(media_type, row):
            # Postman writes the boundary of a form by itself.
            header = [] if "multipart" in media_type else [{"key": "Content-Type", "value": _one(media_type)}]
            yield {"name": f"{operation['summary']}: {name}", "request": {**request, "header": header, "body": body}}


def _url(path: str, operation: dict[str, Any]) -> dict[str, Any]:
    known = {row["name"]: str(row.get("example", "")) for row in operation["parameters"] if row.get("in") == "path"}
    names = [row["name"] for row in operation["parameters"] if row.get("in") == "query"]
    filled = path.format(**known)
    return {
        "raw": "{{base_url}}" + filled,
        "host": ["{{base_url}}"],
        "path": filled.strip("/").split("/") if filled != "/" else [""],
        # To be switched on where they are wanted.
        "query": [{"key": name, "value": "", "disabled": True} for name in names],
    }


def _bodies(media_type: str, row: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "multipart" in media_type:
        yield "form", {"mode": "formdata", "formdata": list(_fields(row["schema"]))}
    elif "urlencoded" in media_type:
        yield "form", {"mode": "urlencoded", "urlencoded": list(_texts(row["schema"]))}
    elif examples := row.get("examples"):
        for name, example in examples.items():
            yield name, {"mode": "raw", "raw": json.dumps(example["value"], indent=2), "options": RAW}
    else:
        yield _one(media_type), {"mode": "file", "file": {"src": SAMPLE}}


def _fields(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, row in schema["properties"].items():
        if row.get("items", {}).get("format") == "binary":
            yield {"key": name, "type": "file", "src": [SAMPLE]}
        else:
            description = row.get("description", "")
            yield {"key": name, "type": "text", "value": "", "disabled": True, "description": description}


def _texts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Fields of a form without files: the token from the collection's variable, others to be switched on."""
    for name, row in schema["properties"].items():
        is_token = name == "token"
        value = "{{token}}" if is_token else ""
        yield {"key": name, "value": value, "disabled": not is_token, "description": row.get("description", "")}


def _one(media_type: str) -> str:
    return media_type.replace("image/*", "image/jpeg")
