"""Models with code as the Open Inference Protocol has them: which tensors they take and give, made from their schema.

An input is a tensor of a parameter's name, with one row an item. What no tensor can hold (a row of a table, a list of
any length, a dict) is BYTES with a JSON text an item. An answer with fields becomes a tensor a field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from app.model_code.schema_marks import BESIDE, DTYPE, KIND, SHAPE
from app.web.api import bodies, code_elements, tensors
from app.web.api.code_elements import Column
from app.web.api.tensors import InferRequest, InputTensor, TensorError

Schema = Mapping[str, Any]
# The protocol's names of a JSON type.
PLAIN = {"integer": "INT64", "number": "FP64", "boolean": "BOOL"}
ENUMS: dict[Any, str] = {bool: "BOOL", int: "INT64", str: "BYTES"}
DATATYPES = {kind.name: datatype for datatype, kind in tensors.NUMBERS.items()}
ANSWER, COUNTS = "answer", "counts"
TEXT, BASE64, JSON = "str", "base64", "json"


def inputs(signature: Schema) -> list[dict[str, Any]]:
    """What the model takes, as the metadata has it."""
    return [_column(name, schema).row() for name, schema in signature["inputs"].items()]


def outputs(signature: Schema) -> list[dict[str, Any]]:
    """What the model gives, as the metadata has it."""
    return [column.row() for column in _columns(signature["answer"])]


def _column(name: str, schema: Schema) -> Column:
    is_optional = "anyOf" in schema
    inner = schema["anyOf"][0] if is_optional else schema
    return Column(name, *_kind(inner), is_optional=is_optional)


def _kind(schema: Schema) -> tuple[str, tuple[int, ...], str]:
    """Datatype, sides and content of a value."""
    if "enum" in schema:
        kinds = {type(value) for value in schema["enum"]}
        datatype = ENUMS[kinds.pop()] if len(kinds) == 1 else ""
        return (datatype, (), TEXT if datatype == "BYTES" else "") if datatype else ("BYTES", (), JSON)
    if schema.get(KIND) in BESIDE or schema.get("contentEncoding"):
        return "BYTES", (), BASE64
    if SHAPE in schema and schema.get(DTYPE) in DATATYPES:
        return DATATYPES[schema[DTYPE]], tuple(-1 if side is None else side for side in schema[SHAPE]), ""
    kind = schema.get("type", "")
    if kind == "string":
        return "BYTES", (), TEXT
    return (PLAIN[kind], (), "") if kind in PLAIN else ("BYTES", (), JSON)


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────────────────────────


def read(signature: Schema, asked: InferRequest, parts: Sequence[memoryview | None]) -> list[dict[str, Any]]:
    """The items of a request: each has a value a parameter. Raises TensorError, RequestError."""
    known = {name: _column(name, schema) for name, schema in signature["inputs"].items()}
    given = [tensor.name for tensor in asked.inputs]
    wrong = [name for name in given if name not in known or given.count(name) > 1]
    if wrong:
        raise TensorError(
            "There is no input %(name)s, or it is there twice.",
            hint="Inputs: %(known)s.",
            name=ascii(wrong[0][:40]),
            known=", ".join(known),
        )
    counts = {tensor.shape[0] for tensor in asked.inputs}
    if len(counts) > 1:
        raise TensorError(
            "The inputs have %(counts)s items.",
            hint="The first side of each shape is the number of items.",
            counts=" and ".join(str(count) for count in sorted(counts)),
        )
    lists = {
        tensor.name: _values(known[tensor.name], tensor, part) for tensor, part in zip(asked.inputs, parts, strict=True)
    }
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _values(column: Column, tensor: InputTensor, part: memoryview | None) -> list[Any]:
    # Whether a number of another width fits is looked at with its value.
    if tensor.datatype not in (("BYTES",) if column.datatype == "BYTES" else tensors.NUMBERS):
        raise TensorError(
            "%(name)s is of %(datatype)s.",
            hint="Expected: %(expected)s.",
            name=tensor.name,
            datatype=ascii(tensor.datatype[:40]),
            expected=column.datatype,
        )
    _check_shape(column, tensor)
    if column.datatype != "BYTES":
        return code_elements.read_numbers(tensor, part, column.sides)
    if column.content == BASE64:
        return list(tensors.read_texts(tensor, part))
    texts = code_elements.read_strings(tensor, part)
    if column.content == TEXT:
        return texts
    # An object may stand in the JSON as it is.
    return [bodies.load(each.encode(errors="surrogatepass")) if isinstance(each, str) else each for each in texts]


def _check_shape(column: Column, tensor: InputTensor) -> None:
    sides = tensor.shape[1:]
    if column.sides:
        fits = len(sides) == len(column.sides) and all(
            wanted in (-1, side) for side, wanted in zip(sides, column.sides, strict=True)
        )
        # Rows of no length would be as many as the caller likes.
        fits = fits and 0 not in sides[:-1]
    else:
        fits = all(side == 1 for side in sides)
    if not fits:
        raise TensorError(
            "%(name)s has the shape %(shape)s.",
            hint="Expected: %(expected)s.",
            name=tensor.name,
            shape=tensor.shape,
            expected=[-1, *column.sides],
        )


# ── what is answered ──────────────────────────────────────────────────────────────────────────────────────────────────


def write(signature: Schema, answers: Sequence[Any]) -> dict[str, np.ndarray]:
    """The tensors of the answers, a row each. Raises TensorError where they fit into none."""
    found: dict[str, np.ndarray] = {}
    columns = _columns(signature["answer"])
    for column in columns:
        if column.is_listed:
            lists = [[_at(one, column.path) for one in answer] for answer in answers]
            found[column.name] = code_elements.padded(column, lists)
        elif column is columns[-1] and any(each.is_listed for each in columns):
            found[column.name] = np.array([len(answer) for answer in answers], np.int32)
        else:
            found[column.name] = code_elements.stacked(column, [_at(answer, column.path) for answer in answers])
    return found


def _columns(schema: Schema) -> list[Column]:
    if schema.get("type") != "array" or SHAPE in schema:
        return list(_fields(ANSWER, schema, (), is_listed=False))
    items = schema["items"]
    if items.get("type") == "array" or "anyOf" in items:
        return [Column(ANSWER, "BYTES", (), JSON)]
    columns = list(_fields(ANSWER, items, (), is_listed=True))
    name = COUNTS
    while name in {column.name for column in columns}:
        name += "_"
    return [*columns, Column(name, "INT32")]


def _fields(name: str, schema: Schema, path: tuple[str, ...], *, is_listed: bool) -> Iterator[Column]:
    """The value's tensor, or one for each field of an object; ``box.x_min`` is a field of a field."""
    if schema.get("properties"):
        for key, inner in schema["properties"].items():
            yield from _fields(".".join((*path, key)), inner, (*path, key), is_listed=is_listed)
        return
    datatype, sides, content = ("BYTES", (), JSON) if "anyOf" in schema else _kind(schema)
    if is_listed and sides:
        datatype, sides, content = "BYTES", (), JSON
    yield Column(name, datatype, sides, content, path=path, is_listed=is_listed)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value[key]
    return value
