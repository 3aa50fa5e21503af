"""What lies behind the JSON of a frame: named tensors and bytes, each with its type and shape. Never pickle. A leaf.

The JSON names them in order as ``[name, type, shape]``; their bytes follow each other without gaps, little-endian and
row by row. The type ``bytes`` is a text of bytes, whose shape is its length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.engine.protocol import Buffer, ProtocolError

BYTES = "bytes"
TYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
}
# A dtype's own name takes longer to find than all the rest.
NAMES = {dtype: name for name, dtype in TYPES.items()}
MAX_TENSORS = 64
MAX_SIDES = 8


def pack(tensors: Mapping[str, np.ndarray | bytes]) -> tuple[list[list[Any]], Buffer]:
    """The list for the JSON, and the payload; a single tensor that lies in one piece is not copied.

    Raises ProtocolError for a type that does not travel.
    """
    rows: list[list[Any]] = []
    buffers: list[Buffer] = []
    for name, value in tensors.items():
        if isinstance(value, bytes):
            rows.append([name, BYTES, [len(value)]])
            buffers.append(value)
            continue
        kind = NAMES.get(value.dtype)
        if kind is None:
            raise ProtocolError(f"the tensor {name} is of type {value.dtype}, expected one of {', '.join(TYPES)}")
        rows.append([name, kind, value.shape])
        # A view where the values lie in one piece, else a copy.
        buffers.append(value.reshape(-1).view(np.uint8).data)
    return rows, buffers[0] if len(buffers) == 1 else b"".join(buffers)


def unpack(rows: Any, payload: Buffer) -> dict[str, Any]:
    """Name → array, or bytes. The arrays are views into the payload. Raises ProtocolError naming what is wrong."""
    if not isinstance(rows, list) or len(rows) > MAX_TENSORS:
        raise ProtocolError(f"tensors are {str(rows)[:80]}, expected a list of at most {MAX_TENSORS}")
    data, begin = memoryview(payload), 0
    found: dict[str, Any] = {}
    for row in rows:
        name, kind, shape = _row(row)
        if name in found:
            raise ProtocolError(f"the tensor {name!r} stands twice")
        size = math.prod(shape) * (1 if kind == BYTES else TYPES[kind].itemsize)
        if begin + size > data.nbytes:
            raise ProtocolError(f"the tensor {name!r} of {kind} {shape} ends behind the payload's {data.nbytes} bytes")
        part = data[begin : begin + size]
        found[name] = bytes(part) if kind == BYTES else np.frombuffer(part, TYPES[kind]).reshape(shape)
        begin += size
    if begin != data.nbytes:
        raise ProtocolError(f"the payload has {data.nbytes} bytes, its tensors {begin}")
    return found


def _row(row: Any) -> tuple[str, str, Sequence[int]]:
    """Raises ProtocolError for what is no name, type and shape."""
    if not isinstance(row, list) or len(row) != 3 or not isinstance(row[0], str):
        raise ProtocolError(f"a tensor is {str(row)[:80]}, expected [name, type, shape]")
    name, kind, shape = row
    if kind != BYTES and (not isinstance(kind, str) or kind not in TYPES):
        raise ProtocolError(f"the tensor {name[:80]!r} is of type {str(kind)[:80]}")
    most = 1 if kind == BYTES else MAX_SIDES
    is_shape = isinstance(shape, list) and len(shape) <= most
    if not is_shape or not all(type(side) is int and side >= 0 for side in shape):
        raise ProtocolError(f"the tensor {name[:80]!r} has the shape {str(shape)[:80]}")
    return name, kind, shape
