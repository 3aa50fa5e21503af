"""A JSON document for a model with code, into items and options. Knows no HTTP; whichever protocol brought it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import OptionError, RequestError
from app.model_code.schema_marks import BESIDE, KIND
from app.texts import Text
from app.web.api import base64_images, bodies

ITEMS = "items"


def from_json(signature: Mapping[str, Any], document: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The items and the options of an object: one item's values, or a list ``items``, beside options.

    Base64 becomes bytes. Raises RequestError, OptionError.
    """
    if not isinstance(document, dict):
        raise RequestError("The JSON is no object.", hint=_hint(signature))
    rows, options = split(signature, document)
    if ITEMS not in document:
        return [_bytes_of(signature, rows[0], "")], options
    return [_bytes_of(signature, row, f"{ITEMS}[{number}].") for number, row in enumerate(rows)], options


def split(signature: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The items as they were sent, and everything beside them. Raises OptionError."""
    options = dict(document)
    if ITEMS not in document:
        return [{name: options.pop(name) for name in signature["inputs"] if name in options}], options
    rows = options.pop(ITEMS)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise OptionError("%(field)s is no list of objects.", hint=_hint(signature), field=ITEMS)
    return rows, options


def _bytes_of(signature: Mapping[str, Any], row: dict[str, Any], where: str) -> dict[str, Any]:
    """Base64 becomes bytes where the model takes an image or bytes."""
    found = dict(row)
    for name, schema in signature["inputs"].items():
        if schema.get(KIND) in BESIDE and name in found:
            try:
                found[name] = base64_images.decode(found[name]) if isinstance(found[name], str) else None
            except ValueError:
                found[name] = None
            if found[name] is None:
                hint = "Send its bytes in base64, or as a part of a form."
                raise OptionError("%(field)s is no base64 text.", hint=hint, field=f"{where}{name}")
    return found


def typed(schemas: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Texts of a form or an address as the JSON values that they stand for."""
    return {name: _value(schemas.get(name, {}), text) for name, text in fields.items()}


def _value(schema: Mapping[str, Any], text: str) -> Any:
    if schema.get("type") == "string" or (text in schema.get("enum", ())):
        return text
    try:
        return bodies.load(text.encode())
    except RequestError:
        # The check says what is expected instead.
        return text


def _hint(signature: Mapping[str, Any]) -> Text:
    names = ", ".join((*signature["inputs"], *signature["options"]))
    return Text('An object with %(names)s; or {"items": [objects], …} with options beside it.', names=names)
