"""Named tensors and bytes behind a frame: what goes in comes out, and what is wrong is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.engine import tensors
from app.engine.protocol import ProtocolError

VALUES = {
    "image": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    "text": b"\x00any bytes",
    "scores": np.array([[0.5, -1.0], [np.inf, 2.0]], np.float32),
    "count": np.array(7, np.int64),
    "none": np.zeros((0, 4), np.float16),
    "flags": np.array([True, False]),
}


def test_what_is_packed_is_unpacked() -> None:
    rows, payload = tensors.pack(VALUES)

    found = tensors.unpack([list(map(_plain, row)) for row in rows], payload)

    assert list(found) == list(VALUES)
    assert found["text"] == VALUES["text"]
    for name, value in VALUES.items():
        if isinstance(value, np.ndarray):
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
            assert np.array_equal(found[name], value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_a_single_tensor_is_not_copied() -> None:
    image = VALUES["image"]

    _, payload = tensors.pack({"image": image})

    assert np.shares_memory(np.frombuffer(payload, np.uint8), image)


def test_a_tensor_in_pieces_keeps_its_values() -> None:
    turned = np.arange(24, dtype=np.int32).reshape(4, 6)[::-1, ::2]

    rows, payload = tensors.pack({"turned": turned})

    assert np.array_equal(tensors.unpack([list(map(_plain, rows[0]))], payload)["turned"], turned)


def test_what_has_no_type_on_the_wire_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="the tensor names is of type object"):
        tensors.pack({"names": np.array(["a", None], object)})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "tensors are None"),
        ({}, "tensors are {}"),
        ([["a", "uint8", [1]]] * 65, "a list of at most 64"),
        (["a"], "expected \\[name, type, shape\\]"),
        ([[1, "uint8", [4]]], "expected \\[name, type, shape\\]"),
        ([["a", "object", [4]]], "is of type object"),
        ([["a", ["uint8"], [4]]], "is of type"),
        ([["a", "uint8", 4]], "has the shape 4"),
        ([["a", "uint8", [-1, 4]]], "has the shape"),
        ([["a", "uint8", [2.0, 2]]], "has the shape"),
        ([["a", "uint8", [True] * 4]], "has the shape"),
        ([["a", "uint8", [1] * 9]], "has the shape"),
        ([["a", "bytes", [2, 2]]], "has the shape"),
        ([["a", "uint8", [5]]], "ends behind the payload's 4 bytes"),
        ([["a", "float32", [2]]], "ends behind the payload's 4 bytes"),
        ([["a", "uint8", [10**30]]], "ends behind the payload's 4 bytes"),
        ([["a", "uint8", [2]]], "the payload has 4 bytes, its tensors 2"),
        ([["a", "uint8", [2]], ["a", "uint8", [2]]], "stands twice"),
    ],
)
def test_what_is_wrong_is_said(rows: Any, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        tensors.unpack(rows, bytes(4))
