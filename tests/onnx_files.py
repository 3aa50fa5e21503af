"""ONNX files, written byte by byte with the field numbers of onnx.proto: without a library, so that files can lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

FLOAT, UINT8, INT64, STRING, FLOAT16 = 1, 2, 7, 8, 10
TYPES = {
    np.dtype(np.float32): FLOAT,
    np.dtype(np.uint8): UINT8,
    np.dtype(np.int64): INT64,
    np.dtype(np.float16): FLOAT16,
}


def model(
    nodes: Sequence[bytes],
    weights: Mapping[str, np.ndarray],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    *,
    opset: int = 17,
    notes: Mapping[str, str] | None = None,
    tensors: Sequence[bytes] = (),
    domain: str = "",
) -> bytes:
    """A whole file. ``tensors``: further initializers as they are. ``domain``: another one that operators may have."""
    graph = b"".join(
        (
            *(_bytes(1, node) for node in nodes),
            _text(2, "graph"),
            *(_bytes(5, tensor(name, value)) for name, value in weights.items()),
            *(_bytes(5, each) for each in tensors),
            *(_bytes(11, each) for each in inputs),
            *(_bytes(12, each) for each in outputs),
        )
    )
    said = [_bytes(14, _text(1, key) + _text(2, value)) for key, value in (notes or {}).items()]
    others = [_bytes(8, _text(1, domain) + _number(2, 1))] if domain else []
    return b"".join(
        (
            _number(1, 8),
            _text(2, "tests"),
            _text(3, "1.0"),
            _bytes(7, graph),
            _bytes(8, _text(1, "") + _number(2, opset)),
            *others,
            *said,
        )
    )


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: object) -> bytes:
    """One operator. Attributes: whole numbers, floats, texts, lists of whole numbers."""
    return b"".join(
        (
            *(_text(1, each) for each in inputs),
            *(_text(2, each) for each in outputs),
            _text(3, outputs[0]),
            _text(4, kind),
            *(_bytes(5, _attribute(name, value)) for name, value in attributes.items()),
            *([_text(7, domain)] if domain else []),
        )
    )


def tensor(name: str, value: np.ndarray) -> bytes:
    """Weights inside of the file."""
    value = np.ascontiguousarray(value)
    sides = b"".join(_number(1, side) for side in value.shape)
    return sides + _number(2, TYPES[value.dtype]) + _text(8, name) + _bytes(9, value.tobytes())


def external(name: str, shape: Sequence[int], location: str) -> bytes:
    """fp32 weights in another file."""
    sides = b"".join(_number(1, side) for side in shape)
    said = {"location": location, "offset": "0", "length": str(4 * int(np.prod(shape)))}
    entries = b"".join(_bytes(13, _text(1, key) + _text(2, value)) for key, value in said.items())
    return sides + _number(2, FLOAT) + _text(8, name) + entries + _number(14, 1)


def value(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> bytes:
    """An input or output; a text as a side is any number."""
    sides = b"".join(_bytes(1, _text(2, side) if isinstance(side, str) else _number(1, side)) for side in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, sides)))


def classifier(
    labels: int = 3,
    shape: Sequence[int | str] = ("n", 3, 32, 32),
    *,
    kind: int = FLOAT,
    ends: Sequence[bytes] = (),
    output: str = "scores",
    opset: int = 17,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """Scores from the mean colours: convolution, mean, one linear layer. ``ends``: operators behind ``scores``."""
    random = np.random.default_rng(5)
    dtype = np.float16 if kind == FLOAT16 else np.float32
    is_nhwc = shape[-1] in (1, 3) and shape[1] not in (1, 3)
    channels = int(shape[-1] if is_nhwc else shape[1])
    source, nodes = "images", []
    if is_nhwc:
        nodes.append(node("Transpose", [source], ["ordered"], perm=[0, 3, 1, 2]))
        source = "ordered"
    if kind == UINT8:
        nodes.append(node("Cast", [source], ["floats"], to=FLOAT))
        source = "floats"
    nodes += [
        node("Conv", [source, "w"], ["c"], strides=[2, 2], kernel_shape=[3, 3]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["f"], axis=1),
        node("Gemm", ["f", "l", "b"], ["scores"], transB=1),
    ]
    weights = {
        "w": random.normal(size=(8, channels, 3, 3)).astype(dtype),
        "l": random.normal(size=(labels, 8)).astype(dtype),
        "b": random.normal(size=labels).astype(dtype),
    }
    given = FLOAT16 if kind == FLOAT16 else FLOAT
    return model(
        [*nodes, *ends],
        weights,
        [value("images", shape, kind)],
        [value(output, [shape[0], labels], given)],
        opset=opset,
        notes=notes,
    )


def table(batch: int | str = "n") -> bytes:
    """Scores of a row with four features, and the best one: two outputs of different kinds."""
    nodes = [
        node("Gemm", ["features", "w", "b"], ["scores"]),
        node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
    ]
    weights = {"w": np.eye(4, 3, dtype=np.float32), "b": np.array([0, 0, 0.5], np.float32)}
    outputs = [value("scores", [batch, 3]), value("best", [batch], INT64)]
    return model(nodes, weights, [value("features", [batch, 4])], outputs)


def colours(cell: int = 8, side: int = 64) -> bytes:
    """A detector of red, green and blue cells with YOLO's head: a cell's score is how much of the colour it has."""
    count = side // cell
    centres = (np.arange(count) + 0.5) * cell
    sizes = np.full(count * count, cell)
    boxes = np.stack([np.tile(centres, count), np.repeat(centres, count), sizes, sizes]).astype(np.float32)[None]
    nodes = [
        node("AveragePool", ["images"], ["means"], kernel_shape=[cell, cell], strides=[cell, cell]),
        node("Reshape", ["means", "shape"], ["scores"]),
        # So that there are as many boxes as pictures.
        node("ReduceMean", ["scores"], ["mean"], axes=[1, 2], keepdims=1),
        node("Mul", ["mean", "zero"], ["nothing"]),
        node("Add", ["boxes", "nothing"], ["places"]),
        node("Concat", ["places", "scores"], ["output0"], axis=1),
    ]
    weights = {"shape": np.array([-1, 3, count * count]), "zero": np.zeros(1, np.float32), "boxes": boxes}
    outputs = [value("output0", ["n", 7, count * count])]
    return model(nodes, weights, [value("images", ["n", 3, side, side])], outputs)


def _attribute(name: str, given: object) -> bytes:
    # Type 2 is a whole number, 1 a float, 3 a text, 7 a list of whole numbers.
    if isinstance(given, int):
        return _text(1, name) + _number(3, given) + _number(20, 2)
    if isinstance(given, float):
        return _text(1, name) + b"\x15" + np.float32(given).tobytes() + _number(20, 1)
    if isinstance(given, str):
        return _text(1, name) + _text(4, given) + _number(20, 3)
    assert isinstance(given, list | tuple)
    return _text(1, name) + b"".join(_number(8, each) for each in given) + _number(20, 7)


def _number(field: int, given: int) -> bytes:
    return _varint(field << 3) + _varint(given & (2**64 - 1))


def _text(field: int, given: str) -> bytes:
    return _bytes(field, given.encode())


def _bytes(field: int, given: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(given)) + given


def _varint(given: int) -> bytes:
    found = bytearray()
    while given > 0x7F:
        found.append(given & 0x7F | 0x80)
        given >>= 7
    return bytes((*found, given))
