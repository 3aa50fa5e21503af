"""What a model with code is asked, checked against what it promises: values as JSON, pixels and bytes beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.errors import CaskError, OptionError, RequestTooLargeError
from app.model_code import validation
from app.model_code.schema_marks import BESIDE, KIND, SHAPE
from app.texts import Text

# Shape of the pixels, width and height of the upright original, and the pixels.
Pixels = tuple[Sequence[int], int, int, memoryview]
Data = bytes | memoryview
MOST_VALUES = 1_000_000
# The bytes of a picture, and the shape that the model asks for.
ReadPicture = Callable[[bytes, Sequence[int | None] | None], Pixels]


def options(signature: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the model, checked. Raises OptionError."""
    known: Mapping[str, Any] = signature["options"]
    _refuse_unknown(given, known, "", (*signature["inputs"], *known))
    return {
        name: validation.check(schema, given[name], name) if name in given else schema["default"]
        for name, schema in known.items()
    }


def lone_file(signature: Mapping[str, Any]) -> str:
    """The one parameter of a model that takes an image or bytes and nothing else; empty for another."""
    inputs = signature["inputs"]
    return next((name for name in inputs if inputs[name].get(KIND) in BESIDE), "") if len(inputs) == 1 else ""


def check_size(items: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> None:
    """Whether they can be checked in a moment: each value is looked at. Raises RequestTooLargeError."""
    count, waiting = 0, [*(each for item in items for each in item.values()), *given.values()]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, list | dict):
            continue
        count += len(value)
        if count > MOST_VALUES:
            raise RequestTooLargeError(
                "The request has more than %(most)s values.",
                hint="Send fewer at once; large arrays belong into a parameter of bytes, or an Image.",
                most=MOST_VALUES,
            )
        waiting += value.values() if isinstance(value, dict) else value


def item(
    signature: Mapping[str, Any], given: Mapping[str, Any], read_picture: ReadPicture, where: str = ""
) -> tuple[list[Any], Data]:
    """The values of one item, and the bytes that they point into. ``where``: before the names in messages.

    Raises OptionError, and what ``read_picture`` raises, with the parameter's name before it.
    """
    known: Mapping[str, Any] = signature["inputs"]
    _refuse_unknown(given, known, where, known)
    values: list[Any] = []
    parts, at = list[Data](), 0
    for name, schema in known.items():
        if name not in given:
            if schema.get("anyOf"):
                values.append(None)
                continue
            raise OptionError("%(field)s is missing.", hint="Send it.", field=f"{where}{name}")
        kind = schema.get(KIND)
        if kind == "image":
            shape, width, height, pixels = _picture(schema, given[name], read_picture, f"{where}{name}")
            values.append([at, len(pixels), shape, width, height])
            parts.append(pixels)
            at += len(pixels)
        elif kind in BESIDE:
            values.append([at, len(given[name])])
            parts.append(given[name])
            at += len(given[name])
        else:
            values.append(validation.check(schema, given[name], f"{where}{name}"))
    # One picture, as most models take it, is not copied.
    return values, parts[0] if len(parts) == 1 else b"".join(parts)


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], where: str, there: Sequence[str] | Any) -> None:
    for name in given:
        if name not in known:
            shown, names = ascii(f"{where}{name}"[:80]), ", ".join(there)
            raise OptionError("%(name)s is unknown.", hint="There are: %(names)s.", name=shown, names=names)


def _picture(schema: Mapping[str, Any], data: bytes, read_picture: ReadPicture, field_name: str) -> Pixels:
    try:
        return read_picture(data, schema.get(SHAPE))
    except CaskError as error:
        error.message = Text("%(field)s: %(said)s", field=field_name, said=error.message)
        raise
