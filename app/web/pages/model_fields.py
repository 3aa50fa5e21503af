"""The form of a model with code: a field for each parameter and option, made from its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.model_code import example_bodies
from app.model_code.schema_marks import BESIDE, KIND

# A longer text is written on several lines.
LINE_CHARACTERS = 120
NUMBERS = ("integer", "number")


@dataclass(frozen=True)
class Field:
    """One field. ``kind``: line, text, number, choice, flag, image, file or json. ``path``: where its value belongs.

    ``value``: as it was typed, or the default; ``error``: what is wrong with it.
    """

    name: str
    path: tuple[str, ...]
    schema: Mapping[str, Any]
    kind: str
    is_needed: bool
    is_option: bool
    value: str = ""
    error: Any = ""

    @property
    def is_file(self) -> bool:
        return self.kind in ("image", "file")

    @property
    def choices(self) -> list[str]:
        """What can be chosen, as a form sends it."""
        values = self.schema.get("enum") or ([True, False] if self.schema.get("type") == "boolean" else [])
        return [value if isinstance(value, str) else json.dumps(value) for value in values]

    @property
    def bounds(self) -> tuple[Any, Any]:
        """The least and the largest number; None for no limit."""
        return self.schema.get("minimum"), self.schema.get("maximum")


def fields(signature: Mapping[str, Any]) -> list[Field]:
    """All fields in the order of ``predict``, with what stands in them at first."""
    found = [each for name, schema in signature["inputs"].items() for each in _of(name, schema)]
    return found + [
        replace(_one((name,), schema, is_needed=False), is_option=True, value=_shown(schema["default"]))
        for name, schema in signature["options"].items()
    ]


def _of(name: str, schema: Mapping[str, Any]) -> Iterator[Field]:
    """A row of a table is a field for each of its columns."""
    if not schema.get("properties"):
        yield _one((name,), schema, is_needed="anyOf" not in schema)
        return
    for key, inner in schema["properties"].items():
        yield _one((name, key), inner, is_needed=key in schema.get("required", ()))


def _one(path: tuple[str, ...], schema: Mapping[str, Any], *, is_needed: bool) -> Field:
    inner = schema["anyOf"][0] if "anyOf" in schema else schema
    kind = _kind(inner, is_needed=is_needed or "default" in schema)
    value = json.dumps(example_bodies.value(inner)) if kind == "json" and is_needed else ""
    return Field(".".join(path), path, inner, kind, is_needed and "anyOf" not in schema, False, value)


def _kind(schema: Mapping[str, Any], *, is_needed: bool) -> str:
    if schema.get(KIND) in BESIDE:
        return "image" if schema[KIND] == "image" else "file"
    if "enum" in schema:
        return "choice"
    kind = schema.get("type", "")
    if kind == "boolean":
        # What may be left out has three states.
        return "flag" if is_needed else "choice"
    if kind == "string":
        return "line" if schema.get("maxLength", LINE_CHARACTERS + 1) <= LINE_CHARACTERS else "text"
    return "number" if kind in NUMBERS else "json"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def typed(found: list[Field], form: Mapping[str, str]) -> list[Field]:
    """The fields with what a person typed."""
    return [
        replace(field, value=json.dumps(field.name in form) if field.kind == "flag" else form.get(field.name, ""))
        for field in found
    ]


def values(found: list[Field], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, str]]:
    """One item, and the options as texts; what was left empty and may be is not there. A file's name is its field's."""
    item: dict[str, Any] = {}
    options: dict[str, str] = {}
    for field in found:
        is_text = field.kind in ("line", "text")
        if field.is_file:
            if field.name in files:
                item[field.name] = files[field.name]
        elif field.value == "" and not (is_text and field.is_needed):
            # A row needs its other columns all the same.
            item.update({field.path[0]: item.get(field.path[0], {})} if len(field.path) > 1 else {})
        elif field.is_option:
            options[field.name] = field.value
        elif len(field.path) > 1:
            item.setdefault(field.path[0], {})[field.path[1]] = field.value
        else:
            item[field.name] = field.value
    return item, options


def with_error(found: list[Field], message: Any) -> list[Field]:
    """The fields with a failure beside the one that it names; as they were where it names none."""
    named = str(getattr(message, "values", {}).get("field", "")).partition("[")[0]
    best = next((field for field in found if field.name == named), None)
    best = best or next((field for field in found if named.startswith(f"{field.name}.")), None)
    return [replace(field, error=message) if field is best else field for field in found]
