"""Whether a value of a request fits its schema, for callers: the first fault by name. Knows no model's code."""

from __future__ import annotations

import base64
import binascii
import math
import sys
from collections.abc import Mapping
from typing import Any

from app.errors import OptionError
from app.texts import Text

SHOWN = 60
PATTERN_SECONDS = 0.1
PLAIN: Mapping[str, set[type]] = {"number": {int, float}, "integer": {int}}
# Beyond that a double cannot count.
MOST_INTEGER = 2**63 - 1


def check(schema: Mapping[str, Any], value: Any, field: str) -> Any:
    """The value as it goes to the model: a whole number that JSON writes as 3.0 is 3. Raises OptionError."""
    if "anyOf" in schema:
        return None if value is None else check(schema["anyOf"][0], value, field)
    if "enum" in schema:
        return _one_of(schema["enum"], value, field)
    return CHECKS[schema["type"]](schema, value, field)


def _one_of(known: list[Any], value: Any, field: str) -> Any:
    for each in known:
        if each == value and type(each) is type(value):
            return value
    names = ", ".join(repr(each) for each in known[:20])
    raise _error(field, value, Text("one of %(names)s", names=names))


def _text(schema: Mapping[str, Any], value: Any, field: str) -> Any:
    if not isinstance(value, str):
        raise _error(field, value, Text("a text"))
    if schema.get("contentEncoding"):
        return _base64(value, field)
    low, high = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    if not low <= len(value) <= high:
        words = Text("a text of %(low)s to %(high)s characters, it has %(count)s", low=low, high=high, count=len(value))
        raise _error(field, value, words)
    if "pattern" in schema and not _fits(schema["pattern"], value):
        raise _error(field, value, Text("a text that fits %(pattern)s", pattern=schema["pattern"]))
    # A lone half of a surrogate pair is no text that can be sent on.
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _error(field, value, Text("a text in UTF-8"))
    return value


def _fits(pattern: str, value: str) -> bool:
    """Whether a text fits, as far as that can be seen in time: some patterns take years for forty characters."""
    # Imported here: few models have a pattern.
    import regex

    try:
        return regex.fullmatch(pattern, value, timeout=PATTERN_SECONDS, concurrent=True) is not None
    except TimeoutError:
        return False


def _base64(value: str, field: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _error(field, value, Text("bytes in base64")) from None
    return value


def _number(schema: Mapping[str, Any], value: Any, field: str) -> Any:
    is_whole = schema["type"] == "integer"
    wanted = Text("a whole number") if is_whole else Text("a number")
    most = MOST_INTEGER if is_whole else sys.float_info.max
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise _error(field, value, wanted)
    if is_whole and value != int(value):
        raise _error(field, value, wanted)
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if not low <= value <= high:
        raise _error(field, value, Text("a number from %(low)s to %(high)s", low=low, high=high))
    return int(value) if is_whole else value


def _boolean(schema: Mapping[str, Any], value: Any, field: str) -> Any:
    if not isinstance(value, bool):
        raise _error(field, value, Text("true or false"))
    return value


def _array(schema: Mapping[str, Any], value: Any, field: str) -> Any:
    if not isinstance(value, list):
        raise _error(field, value, Text("a list"))
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        raise _error(field, Text("a list of %(count)s", count=len(value)), _length(low, high))
    items = schema["items"]
    if _are_plain(items, value):
        return value
    checked = [check(items, each, f"{field}[{number}]") for number, each in enumerate(value)]
    if items.get("type") == "array" and len({len(each) for each in checked}) > 1 and "x-cask-shape" in schema:
        raise _error(field, value, Text("rows of one length"))
    return checked


def _are_plain(schema: Mapping[str, Any], values: list[Any]) -> bool:
    """Whether all are numbers that fit, seen at a glance: a million one by one would take seconds."""
    wanted = PLAIN.get(schema.get("type", ""))
    if wanted is None or not values or not wanted.issuperset(map(type, values)):
        return False
    limit = MOST_INTEGER if schema["type"] == "integer" else sys.float_info.max
    low, high = max(schema.get("minimum", -limit), -limit), min(schema.get("maximum", limit), limit)
    return bool(low <= min(values) and max(values) <= high)


def _length(low: int, high: float) -> Text:
    if low == high:
        return Text("a list of %(count)s", count=low)
    if high == math.inf:
        return Text("a list of %(low)s at least", low=low)
    return Text("a list of %(low)s to %(high)s", low=low, high=high)


def _object(schema: Mapping[str, Any], value: Any, field: str) -> Any:
    if not isinstance(value, dict):
        raise _error(field, value, Text("an object"))
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", False)
    for name in schema.get("required", ()):
        if name not in value:
            raise OptionError("%(field)s is missing.", hint="Send it.", field=f"{field}.{name}")
    checked = {}
    for name, each in value.items():
        inner = known.get(name, rest)
        if not isinstance(inner, Mapping):
            raise OptionError(
                "%(field)s is unknown.",
                hint="There are: %(names)s.",
                field=_short(f"{field}.{name}"),
                names=", ".join(known),
            )
        checked[name] = check(inner, each, f"{field}.{name}")
    return checked


CHECKS = {
    "string": _text,
    "integer": _number,
    "number": _number,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}


def _error(field: str, value: Any, expected: Any) -> OptionError:
    return OptionError(
        "%(field)s is %(value)s.",
        hint="Expected: %(expected)s.",
        field=_short(field),
        value=value if isinstance(value, Text) else _short(repr(value)),
        expected=expected,
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
