"""A value for a schema of OpenAPI 3.0 or 3.1: what its author shows, else the smallest that fits. No sockets."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from loadtest.statuses import UsageError

TEXTS = {
    "date": "2024-02-29",
    "date-time": "2024-02-29T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1M",
    "uuid": "3f2c41d0-6b7a-4e3d-8c07-b42a5e3d1c07",
    "email": "load@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "/",
    "password": "load-test-1A!",
}
# Deeper than this a description goes in circles that no reference shows.
DEPTH_MOST = 60


class Endless(Exception):  # noqa: N818 - what a schema is that requires itself
    """A value of this schema would have to hold another one, and so on."""


class Picture(str):
    """Stands for the bytes of a picture: ``raw`` or as base64."""

    __slots__ = ()


RAW, BASE64 = Picture("raw"), Picture("base64")


class Values:
    """Makes values for one description; ``made_up`` names those that nobody but us vouches for."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._under_way: list[str] = []
        self.made_up: list[str] = []

    def resolve(self, part: Any) -> Any:
        """What a reference leads to, its neighbours over it. Raises UsageError for one that leads out or nowhere."""
        seen = []
        while isinstance(part, Mapping) and isinstance(part.get("$ref"), str):
            name = part["$ref"]
            if name in seen:
                raise UsageError(f"The reference {name!r} leads to itself; expected what it stands for.")
            seen.append(name)
            beside = {key: value for key, value in part.items() if key != "$ref"}
            found = self._follow(name)
            part = {**found, **beside} if isinstance(found, Mapping) else found
        return part

    def _follow(self, name: str) -> Any:
        found: Any = self._document
        if not name.startswith("#"):
            raise UsageError(f"The reference {name!r} leads out of the description; bundle it into one file first.")
        for step in name[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~").replace("%7B", "{").replace("%7D", "}")
            try:
                found = found[int(step)] if isinstance(found, list) else found[step]
            except (KeyError, IndexError, ValueError, TypeError):
                raise UsageError(f"The reference {name!r} leads to nothing in the description.") from None
        return found

    def of(self, schema: Any, name: str) -> Any:
        """A value. Raises Endless where it would hold itself."""
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if reference in self._under_way or len(self._under_way) > DEPTH_MOST:
            raise Endless(name)
        self._under_way.append(str(reference or f"#{len(self._under_way)}"))
        try:
            return plain(self._of(self.resolve(schema), name))
        finally:
            self._under_way.pop()

    def _of(self, schema: Any, name: str) -> Any:
        if not isinstance(schema, Mapping):
            return "text"
        shown = shown_of(schema)
        if shown is not NOTHING:
            return shown
        if "allOf" in schema:
            return self._of(self.merged(schema), name)
        for word in ("oneOf", "anyOf"):
            if schema.get(word):
                return self._one_of(schema, word, name)
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, name)
        if kind == "array":
            return self._array(schema, name)
        if kind == "null":
            return None
        if kind == "boolean":
            return True
        self.made_up.append(name)
        return _text(schema) if kind == "string" else _number(schema, kind)

    def merged(self, schema: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
        """One schema that asks for what all of ``allOf`` do. Raises Endless where it holds itself."""
        if depth > DEPTH_MOST:
            raise Endless("allOf")
        merged: dict[str, Any] = {"properties": {}, "required": []}
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        for part in (*map(self.resolve, schema["allOf"]), rest):
            part = self.merged(part, depth + 1) if isinstance(part, Mapping) and "allOf" in part else part
            for key, value in part.items() if isinstance(part, Mapping) else ():
                if key == "properties":
                    merged[key].update(value)
                elif key == "required" and isinstance(value, list):
                    merged[key] += value
                else:
                    merged[key] = value
        return merged if merged["properties"] else {k: v for k, v in merged.items() if k != "properties"}

    def _one_of(self, schema: Mapping[str, Any], word: str, name: str) -> Any:
        """The first form that ends, before null; what all forms share stands beside it."""
        rest = {key: value for key, value in schema.items() if key not in (word, "discriminator")}
        forms = sorted(schema[word], key=lambda each: self.resolve(each).get("type") == "null")
        for form in forms:
            try:
                value = self.of({"allOf": [rest, form]} if "properties" in rest else form, name)
            except Endless:
                continue
            told = schema.get("discriminator", {})
            if isinstance(value, dict) and told.get("propertyName"):
                reference = form.get("$ref", "")
                named = next((key for key, each in told.get("mapping", {}).items() if each == reference), None)
                value[told["propertyName"]] = named or reference.rpartition("/")[2]
            return value
        raise Endless(name)

    def _object(self, schema: Mapping[str, Any], name: str) -> dict[str, Any]:
        """What is required, and what has a value shown; nothing that only the server says."""
        made = {}
        required = schema.get("required") if isinstance(schema.get("required"), list) else []
        for key, part in (schema.get("properties") or {}).items():
            resolved = self.resolve(part)
            is_shown = isinstance(resolved, Mapping) and ("example" in resolved or "examples" in resolved)
            if isinstance(resolved, Mapping) and resolved.get("readOnly"):
                continue
            if key in (required or ()):
                made[key] = self.of(part, f"{name}.{key}".lstrip("."))
            elif is_shown:
                made[key] = self.of(part, key)
        return made

    def _array(self, schema: Mapping[str, Any], name: str) -> list[Any]:
        least = int(schema.get("minItems") or 0)
        if "prefixItems" in schema:
            return [self.of(each, name) for each in schema["prefixItems"]]
        try:
            one = self.of(schema.get("items", {}), name)
        except Endless:
            if least:
                raise
            return []
        return [one] * max(1, least)


NOTHING = object()


def shown_of(schema: Mapping[str, Any]) -> Any:
    """What the author of a schema, parameter or body shows of it; NOTHING where that is nothing."""
    if "example" in schema:
        return schema["example"]
    examples = schema.get("examples")
    if isinstance(examples, Mapping):
        shown = [each["value"] for each in examples.values() if isinstance(each, Mapping) and "value" in each]
        return shown[0] if shown else NOTHING
    if isinstance(examples, list) and examples:
        return examples[0]
    if "const" in schema:
        return schema["const"]
    if schema.get("default") is not None:
        return schema["default"]
    return next((each for each in schema.get("enum") or () if each is not None), NOTHING)


def _kind(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds or []
    kinds = [each for each in kinds if each != "null"] or kinds
    if kinds:
        return str(kinds[0])
    for word, kind in (("properties", "object"), ("required", "object"), ("items", "array"), ("minimum", "number")):
        if word in schema:
            return kind
    return "string"


def _text(schema: Mapping[str, Any]) -> str:
    form = str(schema.get("format", ""))
    if form == "binary" or (
        schema.get("contentMediaType", "").startswith("image/") and not schema.get("contentEncoding")
    ):
        return RAW
    if form in ("byte", "base64") or schema.get("contentEncoding") == "base64":
        return BASE64
    text = TEXTS.get(form, "text")
    text += "x" * (int(schema.get("minLength") or 0) - len(text))
    return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def _number(schema: Mapping[str, Any], kind: str) -> float | int:
    """The least that fits; bounds that exclude are numbers since 3.1, and were flags before."""
    least, most = schema.get("minimum"), schema.get("maximum")
    over, under = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf") or 1
    if over is True:
        over, least = least, None
    if under is True:
        under, most = most, None
    if over is not None and over is not False:
        whole = over + step
        least = whole if kind == "integer" or under is None or whole < under else (over + under) / 2
    value = least if least is not None else 1
    ends = [each for each in (most, under - step if under not in (None, False) else None) if each is not None]
    value = min([value, *ends]) if least is None else value
    value = -(-value // step) * step if "multipleOf" in schema else value
    return int(value) if kind == "integer" else value


def plain(value: Any) -> Any:
    """The value as JSON has it: YAML reads dates as dates."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
