"""Elements of tensors for models with code: numbers and texts from a request, answers into arrays."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from app.web.api import tensors
from app.web.api.tensors import InputTensor, TensorError


class Column(NamedTuple):
    """One tensor. ``sides``: of one item's value, -1 for any length; ``content``: what BYTES hold, else empty.

    ``path``: the fields that lead to its values in an answer. ``is_listed``: an item has a list of them.
    """

    name: str
    datatype: str
    sides: tuple[int, ...] = ()
    content: str = ""
    is_optional: bool = False
    path: tuple[str, ...] = ()
    is_listed: bool = False

    def row(self) -> dict[str, Any]:
        """As the metadata has it."""
        shape = [-1, *((-1,) if self.is_listed else ()), *self.sides]
        more: dict[str, Any] = {"content_type": self.content} if self.content else {}
        more |= {"optional": True} if self.is_optional else {}
        return {"name": self.name, "datatype": self.datatype, "shape": shape, **({"parameters": more} if more else {})}


def read_numbers(tensor: InputTensor, part: memoryview | None, sides: Sequence[int]) -> list[Any]:
    """A number an item, or nested lists of them where it has ``sides``. Raises TensorError."""
    if part is None:
        flat = tensors.flat(tensor.data or [])
        if any(isinstance(each, list | dict) for each in flat):
            raise TensorError("%(name)s holds something else than numbers.", name=tensor.name)
        values = np.empty(len(flat), object)
        values[:] = flat
    else:
        kind = tensors.NUMBERS[tensor.datatype]
        tensors.check_count(tensor, len(part) / kind.itemsize)
        values = np.frombuffer(part, np.uint8).astype(bool) if tensor.datatype == "BOOL" else np.frombuffer(part, kind)
    tensors.check_count(tensor, values.size)
    found: list[Any] = values.reshape(tensor.shape if sides else [tensor.shape[0]]).tolist()
    return found


def read_strings(tensor: InputTensor, part: memoryview | None) -> list[Any]:
    """A text an item; from JSON also whatever stands there. Raises TensorError."""
    if part is None:
        found = tensors.flat(tensor.data or [])
        tensors.check_count(tensor, len(found))
        return found
    try:
        return [each.decode() for each in tensors.read_texts(tensor, part)]
    except UnicodeDecodeError:
        raise TensorError("An element of %(name)s is not UTF-8.", name=tensor.name) from None


def stacked(kind: Column, values: Sequence[Any]) -> np.ndarray:
    """One row an item. Raises TensorError where they are of different sides, or too large for the datatype."""
    if kind.datatype == "BYTES":
        found = np.empty(len(values), object)
        found[:] = [_element(kind, each) for each in values]
        return found
    try:
        return np.array(values, tensors.NUMBERS[kind.datatype])
    except (ValueError, OverflowError):
        raise TensorError(
            "The answers fit into no tensor %(name)s of %(datatype)s.",
            hint="Ask about one item at a time, or ask POST /v1/models/<name>/predict.",
            name=kind.name,
            datatype=kind.datatype,
        ) from None


def padded(kind: Column, lists: Sequence[Sequence[Any]]) -> np.ndarray:
    """A row an item, as long as the longest; shorter ones end with zeros or empty texts. Raises TensorError."""
    width = max((len(each) for each in lists), default=0)
    if kind.datatype == "BYTES":
        found = np.full((len(lists), width), b"" if kind.content == "base64" else "", object)
    else:
        found = np.zeros((len(lists), width), tensors.NUMBERS[kind.datatype])
    for row, values in zip(found, lists, strict=True):
        if values:
            row[: len(values)] = stacked(kind, values)
    return found


def _element(kind: Column, value: Any) -> str | bytes:
    if kind.content == "json":
        return json.dumps(value, ensure_ascii=False)
    return base64.b64decode(value) if kind.content == "base64" else str(value)
