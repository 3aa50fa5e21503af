"""From a type hint to a kind: its JSON schema, and how a value of it is read from JSON and written to it.

Runs in the model's own process and when a model is added; knows the standard library and ``cask`` only.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union

import cask
from app.model_code import hint_advice, png
from app.model_code.schema_marks import DTYPE, KIND, SHAPE

Schema = dict[str, Any]
NULL: Schema = {"type": "null"}
MOST_LABELS = 256
KNOWN = (
    "str, int, float, bool, bytes, Image, a dataclass, an array with Shape, list[T], dict[str, T], T | None, Literal"
    " or an enum; in answers also Label, Box, Detection, Mask, Embedding"
)


# What stands inside of Annotated, and the type that it is for.
NARROWED: dict[type, str] = {
    cask.Range: "int",
    cask.Text: "str",
    cask.Choice: "str",
    cask.Labels: "str",
    cask.Shape: "Image",
}
NOTES = tuple(NARROWED)


class UnsupportedError(Exception):
    """A type that cannot be sent; the text says which, and what can."""


class Kind(NamedTuple):
    """``schema``: of the JSON value. ``read``: from JSON, checked before. ``write``: to JSON.

    ``write`` raises TypeError or ValueError for what the hint does not promise.
    """

    schema: Schema
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


class Pixels(NamedTuple):
    """A picture as it comes over the socket: uint8 values, height × width × 3 or height × width."""

    data: memoryview
    shape: tuple[int, ...]
    width: int
    height: int


def kind_of(hint: Any, folder: Path) -> Kind:
    """The kind of a hint. ``folder``: where files of ``Labels`` lie. Raises UnsupportedError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:], folder)
    if origin in (Union, types.UnionType):
        return _optional(hint, arguments, folder)
    if origin is Literal:
        return _one_of(list(arguments))
    if origin is list and arguments:
        return _list(kind_of(arguments[0], folder))
    if origin is dict and arguments and arguments[0] is str:
        return _mapping(kind_of(arguments[1], folder))
    if near := hint_advice.instead(hint):
        raise UnsupportedError(f"{shown_hint(hint)} cannot be sent; write {near}")
    if _is_array(hint):
        raise UnsupportedError("an array needs its sides: Annotated[np.ndarray, Shape(None, 4)]")
    if isinstance(hint, type):
        return _of_class(hint, folder)
    if isinstance(hint, types.ModuleType):
        name = hint.__name__.rpartition(".")[2]
        known = f"; write from cask import {name}" if hasattr(cask, name) else ""
        raise UnsupportedError(f"{hint.__name__} is a module, not a type{known}")
    if isinstance(hint, NOTES):
        raise UnsupportedError(f"{hint!r} narrows a type; write Annotated[{NARROWED[type(hint)]}, …] around it")
    raise UnsupportedError(f"{shown_hint(hint)} cannot be sent; use {KNOWN}")


def _of_class(hint: type, folder: Path) -> Kind:
    if hint in PLAIN:
        return PLAIN[hint]
    if issubclass(hint, enum.Enum):
        return _enum(hint)
    if dataclasses.is_dataclass(hint):
        return _row(hint, folder)
    name = getattr(hint, "__name__", str(hint))
    if name == cask.Image.__name__:
        raise UnsupportedError(f"{hint.__module__}.{name} cannot be sent; use cask.Image, whose pixels are an array")
    if hint in (dict, list):
        raise UnsupportedError(f"{name} does not say what is in it; write {name}[{'str, ' * (hint is dict)}float]")
    if hint.__module__ == "model" and isinstance(vars(hint).get("__annotations__"), dict):
        raise UnsupportedError(f"{name} is a class with fields; write @dataclass above it, without a base")
    raise UnsupportedError(f"{name} cannot be sent; use {KNOWN}")


# ── plain values ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _checked(kind: type | tuple[type, ...], name: str) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        value = value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{_shown(value)} where {name} was promised")
        return value

    return write


def _number(value: Any) -> float:
    number = float(_checked((int, float), "a number")(value))
    if not math.isfinite(number):
        raise ValueError(f"{number} where a finite number was promised")
    return number


def _encoded(value: Any) -> str:
    return base64.b64encode(_checked((bytes, bytearray), "bytes")(value)).decode()


def _same(value: Any) -> Any:
    return value


def _bytes(value: Any) -> bytes:
    # As a part of its own over the socket, or inside of a row.
    return base64.b64decode(value) if isinstance(value, str) else bytes(value)


def _image(value: Pixels) -> cask.Image:
    import numpy as np

    pixels = np.frombuffer(value.data, np.uint8).reshape(value.shape)
    return cask.Image(pixels, value.width, value.height)


def _picture(value: Any) -> str:
    if not isinstance(value, cask.Image):
        raise TypeError(f"{_shown(value)} where a cask.Image was promised; write Image(numpy.asarray(picture))")
    return base64.b64encode(png.encode(value.pixels)).decode()


def _vector(value: Any) -> list[float]:
    return [_number(each) for each in _checked(cask.Embedding, "an Embedding")(value).vector]


def _mask(value: Any) -> dict[str, Any]:
    """The picture and the share of each class that is there, largest first."""
    _checked(cask.Mask, "a Mask")(value)
    import numpy as np

    labels, counts = list(value.labels), np.bincount(value.classes.ravel(), minlength=1)
    if len(labels) > MOST_LABELS or len(counts) > len(labels):
        raise ValueError(f"a Mask has the class {len(counts) - 1}, but {len(labels)} labels (at most {MOST_LABELS})")
    found = [(int(count), label) for count, label in zip(counts, labels, strict=False) if count]
    areas = [{"label": str(label), "pixels": count} for count, label in sorted(found, reverse=True)]
    return {"png": base64.b64encode(png.encode(value.classes)).decode(), "areas": areas}


IMAGE: Schema = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*", KIND: "image"}
AREA: Schema = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "pixels": {"type": "integer", "minimum": 1}},
    "required": ["label", "pixels"],
}
MASK: Schema = {
    "type": "object",
    "properties": {
        "png": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
        "areas": {"type": "array", "items": AREA},
    },
    "required": ["png", "areas"],
}
PLAIN: Mapping[type, Kind] = {
    str: Kind({"type": "string"}, _same, _checked(str, "a text")),
    int: Kind({"type": "integer"}, int, _checked(int, "a whole number")),
    float: Kind({"type": "number"}, float, _number),
    bool: Kind({"type": "boolean"}, _same, _checked(bool, "true or false")),
    bytes: Kind({"type": "string", "contentEncoding": "base64", KIND: "bytes"}, _bytes, _encoded),
    cask.Image: Kind(IMAGE, _image, _picture),
    cask.Mask: Kind(MASK, _same, _mask),
    cask.Embedding: Kind({"type": "array", "items": {"type": "number"}}, _same, _vector),
    type(None): Kind(NULL, _same, _checked(type(None), "None")),
}


# ── made of others ───────────────────────────────────────────────────────────────────────────────────────────────────


def _optional(hint: Any, arguments: Sequence[Any], folder: Path) -> Kind:
    others = [each for each in arguments if each is not type(None)]
    if len(others) != 1 or len(arguments) != 2:
        raise UnsupportedError(f"{hint} is several types at once; only T | None can be sent")
    inner = kind_of(others[0], folder)
    return Kind(
        {"anyOf": [inner.schema, NULL]},
        lambda value: None if value is None else inner.read(value),
        lambda value: None if value is None else inner.write(value),
    )


def _one_of(values: list[Any]) -> Kind:
    if not values or not all(isinstance(value, str | int | bool) for value in values):
        raise UnsupportedError(f"{values!r} are not all texts or whole numbers")

    def write(value: Any) -> Any:
        if value not in values:
            raise ValueError(f"{_shown(value)} where one of {values!r} was promised")
        return value

    return Kind({"enum": values}, _same, write)


def _enum(hint: type[enum.Enum]) -> Kind:
    values = _one_of([member.value for member in hint])
    return Kind(values.schema, hint, lambda value: hint(value).value)


def _list(inner: Kind) -> Kind:
    if inner.schema.get(KIND) == "image":
        raise UnsupportedError("a list of Images for one item cannot be sent; give each picture its own parameter")

    def write(value: Any) -> list[Any]:
        if isinstance(value, str | bytes | Mapping):
            raise TypeError(f"{_shown(value)} where a list was promised")
        return [inner.write(each) for each in value]

    return Kind({"type": "array", "items": inner.schema}, lambda value: [inner.read(each) for each in value], write)


def _mapping(inner: Kind) -> Kind:
    def write(value: Any) -> dict[str, Any]:
        return {str(key): inner.write(each) for key, each in _checked(dict, "a dict")(value).items()}

    return Kind(
        {"type": "object", "additionalProperties": inner.schema},
        lambda value: {key: inner.read(each) for key, each in value.items()},
        write,
    )


def _row(hint: type, folder: Path) -> Kind:
    """A dataclass: an object with its fields; what has a default may be left out."""
    hints = typing.get_type_hints(hint, include_extras=True)
    kinds, required = {}, []
    for field in dataclasses.fields(hint):
        try:
            kind = kinds[field.name] = kind_of(hints[field.name], folder)
        except UnsupportedError as error:
            raise UnsupportedError(f"in {hint.__name__}.{field.name}: {error}") from None
        if kind.schema.get(KIND) == "image":
            raise UnsupportedError(f"in {hint.__name__}.{field.name}: an Image must be a parameter of its own")
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    schema: Schema = {
        "type": "object",
        "properties": {name: kind.schema for name, kind in kinds.items()},
        "required": required,
        "additionalProperties": False,
    }

    def write(value: Any) -> dict[str, Any]:
        if not isinstance(value, hint):
            write_it = f"; write {hint.__name__}(**…)" if isinstance(value, dict) else ""
            raise TypeError(f"{_shown(value)} where a {hint.__name__} was promised{write_it}")
        return {name: kind.write(getattr(value, name)) for name, kind in kinds.items()}

    return Kind(schema, lambda value: hint(**{name: kinds[name].read(each) for name, each in value.items()}), write)


# ── annotations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _annotated(base: Any, notes: Sequence[Any], folder: Path) -> Kind:
    shape = next((note for note in notes if isinstance(note, cask.Shape)), None)
    if shape is not None:
        kind = _array(shape) if _is_array(base) else _shaped_image(base, shape)
    else:
        kind = kind_of(base, folder)
    for note in notes:
        kind = _narrowed(kind, note, folder)
    return kind


def _narrowed(kind: Kind, note: Any, folder: Path) -> Kind:
    if note in NOTES:
        raise UnsupportedError(f"{note.__name__} stands without its values; write {note.__name__}(…)")
    kinds = kind.schema.get("type")
    if isinstance(note, cask.Range):
        _must(kinds in ("integer", "number"), "Range", "int or float")
        limits = {"minimum": note.low, "maximum": note.high}
        return kind._replace(schema={**kind.schema, **{key: side for key, side in limits.items() if side is not None}})
    if isinstance(note, cask.Text):
        _must(kinds == "string" and KIND not in kind.schema, "Text", "str")
        pattern = f"^(?:{note.pattern})$" if note.pattern else None
        wanted = {"minLength": note.min_length or None, "maxLength": note.max_length, "pattern": pattern}
        return kind._replace(schema={**kind.schema, **{key: each for key, each in wanted.items() if each is not None}})
    if isinstance(note, cask.Choice):
        _must(kinds == "string", "Choice", "str")
        return _one_of(list(note.values))
    if isinstance(note, cask.Labels):
        _must(kinds == "string", "Labels", "str")
        return _one_of(_lines(folder, note.file))
    return kind


def _must(is_so: bool, note: str, types_: str) -> None:
    if not is_so:
        raise UnsupportedError(f"{note} is for {types_}")


def _lines(folder: Path, name: str) -> list[str]:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnsupportedError(f"Labels({name!r}) lies outside of the model's folder; put a copy of the file into it")
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except FileNotFoundError:
        there = ", ".join(sorted(each.name for each in path.parent.glob("*.txt"))) or "none"
        said = f"Labels({name!r}): there is no such file in the model's folder; text files there: {there}"
        raise UnsupportedError(said) from None
    except (OSError, ValueError) as error:
        raise UnsupportedError(
            f"Labels({name!r}) cannot be read: {error}; write a text with one label a line"
        ) from None
    if not any(lines):
        raise UnsupportedError(f"Labels({name!r}) holds no line")
    return [line for line in lines if line]


def _is_array(hint: Any) -> bool:
    named = typing.get_origin(hint) or hint
    return (getattr(named, "__module__", ""), getattr(named, "__name__", "")) == ("numpy", "ndarray")


def _shaped_image(base: Any, shape: cask.Shape) -> Kind:
    if base is not cask.Image:
        raise UnsupportedError("Shape is for np.ndarray or Image")
    channels, sides = shape.sides[2:], shape.sides[:2]
    if len(sides) != 2 or channels not in ((), (3,)) or (sides[0] is None) != (sides[1] is None):
        raise UnsupportedError(
            f"Shape{shape.sides!r} of an Image: give height, width and 3 for RGB, or height and width for grey; "
            "both sides or None twice"
        )
    return PLAIN[cask.Image]._replace(schema={**IMAGE, SHAPE: list(shape.sides)})


def _array(shape: cask.Shape) -> Kind:
    import numpy as np

    try:
        dtype = np.dtype(shape.dtype)
    except TypeError:
        raise UnsupportedError(f"Shape has the dtype {shape.dtype!r}, which numpy does not know") from None
    if dtype.kind not in "fiub":
        raise UnsupportedError(f"Shape has the dtype {shape.dtype!r}; floats, whole numbers and bool can be sent")
    schema: Schema = {"type": {"f": "number", "b": "boolean"}.get(dtype.kind, "integer")}
    if dtype.kind in "iu":
        schema |= {"minimum": int(np.iinfo(dtype).min), "maximum": int(np.iinfo(dtype).max)}
    if dtype.kind == "f" and dtype.itemsize < np.dtype(float).itemsize:
        # What is beyond would be infinite in the array.
        schema |= {"minimum": float(np.finfo(dtype).min), "maximum": float(np.finfo(dtype).max)}
    for side in reversed(shape.sides):
        schema = {"type": "array", "items": schema, **({} if side is None else {"minItems": side, "maxItems": side})}

    def write(value: Any) -> Any:
        array = np.asarray(value, dtype)
        if array.ndim != len(shape.sides) or any(
            side not in (None, there) for side, there in zip(shape.sides, array.shape, strict=True)
        ):
            raise ValueError(f"an array of {array.shape} where {shape.sides} was promised")
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError("an array with NaN or infinity")
        return array.tolist()

    schema |= {KIND: "array", SHAPE: list(shape.sides), DTYPE: dtype.name}
    # An empty list does not say how long its rows would be.
    empty = tuple(side or 0 for side in shape.sides)
    return Kind(schema, lambda value: np.asarray(value, dtype) if value else np.empty(empty, dtype), write)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"


def shown_hint(hint: Any) -> str:
    """A type as people write it."""
    if _is_array(hint):
        return "np.ndarray"
    return hint_advice.named(hint)


def check_limits(schema: Schema, value: Any) -> None:
    """Raises ValueError for a value, as JSON, beyond what its annotations allow."""
    is_text = isinstance(value, str) and "enum" not in schema
    low, high = (schema.get(key) for key in (("minLength", "maxLength") if is_text else ("minimum", "maximum")))
    size = len(value) if is_text else value
    if (low is not None and size < low) or (high is not None and size > high):
        limits = f"{'-∞' if low is None else low} to {'∞' if high is None else high}"
        raise ValueError(
            f"{size} characters where {limits} were promised" if is_text else f"{size} where {limits} was promised"
        )
