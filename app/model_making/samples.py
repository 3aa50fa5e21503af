"""Requests made from a model's types: what they allow and their author may not have thought of, and what they do not.

The same ones each time: a test that was red is red again.
"""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from app.errors import OptionError
from app.model_code import png, validation
from app.model_code.schema_marks import BESIDE, DTYPE, KIND, SHAPE

SEED = 14
# At most so long a text where the type has no limit, and so many requests of mixed values.
LONG_CHARACTERS, MIXED = 20_000, 60
LONG = "A" * LONG_CHARACTERS
TEXTS = (
    "",
    "a",
    " ",
    "\n\t",
    "0",
    "-1",
    "Grüße, 東京 🚀",
    "ﷺ\u200d\u0301",
    "<b>'\";--",
    "\x00\x1f",
    "word " * 9,
    LONG,
)
NUMBERS = (0, 1, -1, 2, 3, 10, 255, 1000, -(2**31), 2**31, 2**53, -(2**63) + 1, 2**63 - 1)
FRACTIONS = (0.0, -0.0, 0.5, -0.5, 1e-9, 1e9, -1e9, 1e-300, 1e18)
SIDES = ((1, 1), (1, 97), (97, 1), (48, 64), (240, 320))
WRONG: tuple[Any, ...] = (None, {"x": 1}, [[]], "\ud800", -1e308, True)
Schema = Mapping[str, Any]
Request = dict[str, Any]


def fitting(signature: Mapping[str, Any], first: Request | None = None) -> Iterator[Request]:
    """Bodies that the types allow: one value after the other at its edges, then mixed ones.

    ``first``: an example, whose values stand beside those that vary; where a pattern is asked for, only it has some.
    """
    draw = random.Random(SEED)  # noqa: S311 - the same each time
    known = {**signature["inputs"], **signature["options"]}
    pools = {name: _pool(schema, (first or {}).get(name)) for name, schema in known.items()}
    needed = {name: pools[name] for name in pools if name in signature["inputs"] or pools[name]}
    if not all(needed.values()):
        return
    base = {name: values[0] for name, values in needed.items() if name in signature["inputs"]}
    base |= {name: value for name, value in (first or {}).items() if name in known}
    for name, values in needed.items():
        yield from ({**base, name: value} for value in values)
    for _ in range(MIXED):
        yield {name: draw.choice(values) for name, values in needed.items()}


def wrong(signature: Mapping[str, Any], fits: Request) -> Iterator[tuple[str, Request]]:
    """Bodies that the types do not allow, with the name of what is wrong; from one that fits."""
    for name, schema in {**signature["inputs"], **signature["options"]}.items():
        yield from ((name, {**fits, name: value}) for value in WRONG if not _fits(schema, value))
    yield "an unknown name", {**fits, "no_such_parameter": 1}
    for name, schema in signature["inputs"].items():
        if "anyOf" not in schema:
            yield f"no {name}", {other: value for other, value in fits.items() if other != name}


def _pool(schema: Schema, example: Any) -> list[Any]:
    values = [*([] if example is None else [example]), *_values(schema)]
    return [value for value in values if _fits(schema, value)]


def _fits(schema: Schema, value: Any) -> bool:
    try:
        validation.check(schema, value, "")
    except (OptionError, TypeError, ValueError, OverflowError):
        return False
    return schema.get(KIND) not in BESIDE or isinstance(value, str)


def _values(schema: Schema) -> list[Any]:
    if "anyOf" in schema:
        return [*_values(schema["anyOf"][0]), None]
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get(SHAPE) and schema.get(KIND) == "array":
        return list(_arrays(schema))
    makers = {"string": _texts, "integer": _numbers, "number": _numbers, "array": _lists, "object": _objects}
    return [True, False] if schema["type"] == "boolean" else makers[schema["type"]](schema)


def _texts(schema: Schema) -> list[Any]:
    kind = schema.get(KIND)
    if kind == "image":
        return [_base64(png.encode(_picture(height, width))) for height, width in SIDES]
    if kind == "bytes":
        return [_base64(data) for data in (b"a", b"\0", bytes(range(256)) * 64)]
    low, high = schema.get("minLength", 0), schema.get("maxLength", LONG_CHARACTERS)
    texts = ["a" * low, "a" * min(high, LONG_CHARACTERS), *TEXTS]
    return texts if "pattern" not in schema else [text for text in texts if re.fullmatch(schema["pattern"], text)]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _picture(height: int, width: int) -> np.ndarray:
    """Noise with a plain upper half."""
    pixels = np.random.default_rng(SEED).integers(0, 256, (height, width, 3), np.uint8)
    pixels[: height // 2] = 255
    return pixels


def _numbers(schema: Schema) -> list[Any]:
    edges = [schema[side] for side in ("minimum", "maximum") if side in schema]
    middle = [type(edges[0])(sum(edges) / 2)] if len(edges) == 2 else []
    return [*middle, *edges, *NUMBERS, *(FRACTIONS if schema["type"] == "number" else ())]


def _lists(schema: Schema) -> list[Any]:
    inner = _values(schema["items"])
    low = max(1, schema.get("minItems", 0))
    return [inner[:low], inner, inner[:1] * max(low, 100), []] if inner else [[]]


def _arrays(schema: Schema) -> Iterator[Any]:
    """Of the sides that the model asks for; a side of any length has one, two and five values."""
    dtype = np.dtype(schema[DTYPE])
    for free in (2, 1, 5):
        shape = tuple(free if side is None else side for side in schema[SHAPE])
        noise = np.random.default_rng(SEED).normal(0, 3, shape)
        for made in (noise, np.zeros(shape), np.ones(shape), -np.ones(shape), np.full(shape, 1e4)):
            yield (made.astype(dtype) if dtype.kind == "b" else np.clip(made, *_limits(dtype)).astype(dtype)).tolist()


def _limits(dtype: np.dtype) -> tuple[float, float]:
    found = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return float(found.min), float(found.max)


def _objects(schema: Schema) -> list[Any]:
    rest = schema.get("additionalProperties")
    if isinstance(rest, Mapping):
        return [{}, *({"a": value} for value in _values(rest))]
    pools = {
        name: [value for value in _values(each) if _fits(each, value)] for name, each in schema["properties"].items()
    }
    if not all(pools[name] for name in schema.get("required", ())):
        return []
    base = {name: values[0] for name, values in pools.items() if values}
    rows = [{**base, name: value} for name, values in pools.items() for value in values]
    least = {name: base[name] for name in schema.get("required", ())}
    return [base, least, *rows]
