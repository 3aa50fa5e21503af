"""What a network's outputs become for each task of pictures: probabilities, a vector, or the class of each pixel.

Each head is a small network of OpenVINO behind the file's own outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import ModelLoadError
from app.runtimes.importing.network_wanted import Wanted

# Operators after which scores are shares already.
_SHARES = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
_SHAPERS = {"Reshape", "Squeeze", "Unsqueeze", "Convert", "Transpose"}
_LABELS_AXIS = 1


@dataclass(frozen=True)
class Head:
    """``outputs``: the places of the network's outputs that are read. ``make``: from them to what a runtime answers.

    ``count``: of labels that are scored, 0 where it cannot be told. ``said``: in words.
    """

    outputs: tuple[int, ...]
    make: Callable[[list[Any]], list[Any]]
    count: int
    said: str
    options: dict[str, Any]


def sides(port: Any) -> list[int]:
    """Of an output's shape; -1 where any."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return []
    return [each.get_length() if each.is_static else -1 for each in shape]


def described(port: Any) -> str:
    """A port in words: ``logits f32 [n, 1000]``."""
    names = sorted(port.get_names())
    shape = ", ".join("n" if side < 0 else str(side) for side in sides(port))
    return f"{names[0] if names else 'unnamed'} {port.get_element_type().get_type_name()} [{shape}]"


def outputs_in_words(model: Any) -> str:
    """All outputs, for messages."""
    return ", ".join(described(port) for port in model.outputs)


def scores(model: Any, wanted: Wanted) -> Head:
    """Probabilities of labels, float32 [B, labels]. Raises ModelLoadError where no output fits."""
    place = _chosen(model, wanted, _is_scores, "scores of labels, [n, labels]")
    port = model.output(place)
    count, shares = _last(sides(port)), _shares_by(port)

    def make(outputs: list[Any]) -> list[Any]:
        from openvino import opset13 as ops

        flat = _flat(outputs[0])
        return [flat if shares else ops.softmax(flat, _LABELS_AXIS).output(0)]

    how = f"which are shares already ({shares})" if shares else "to which softmax is applied"
    return Head((place,), make, count, f"labels are scored by {described(port)}, {how}", {})


def vector(model: Any, wanted: Wanted) -> Head:
    """One vector a picture, float32 [B, length]. Raises ModelLoadError where no output fits."""
    place = _chosen(model, wanted, _is_scores, "a vector, [n, length]")
    is_normalised = bool(wanted.options.get("normalised", True))

    def make(outputs: list[Any]) -> list[Any]:
        from openvino import opset13 as ops

        vectors = _flat(outputs[0])
        if not is_normalised:
            return [vectors]
        return [ops.normalize_l2(vectors, np.array([1]), 1e-12, "max").output(0)]

    said = f"the vector is {described(model.output(place))}, {'of length 1' if is_normalised else 'as it is'}"
    return Head((place,), make, 0, said, {"normalised": is_normalised})


def classes_of_pixels(model: Any, wanted: Wanted, side: int) -> Head:
    """The number of each pixel's class, uint8 [B, side, side]. Raises ModelLoadError where no output fits."""
    place = _chosen(model, wanted, _is_map, "scores of each pixel, [n, labels, height, width]")
    port = model.output(place)
    shape = sides(port)
    is_of_classes = len(shape) == 3 or shape[1] == 1

    def make(outputs: list[Any]) -> list[Any]:
        from openvino import opset13 as ops

        if is_of_classes:
            numbers = outputs[0].get_node() if len(shape) == 3 else ops.squeeze(outputs[0], np.array([1]))
            return [ops.convert(numbers, "u8").output(0)]
        found = outputs[0]
        if shape[2:] != [side, side]:
            found = ops.interpolate(
                found, np.array([side, side]), "linear_onnx", "sizes", axes=np.array([2, 3])
            ).output(0)
        best = ops.topk(found, np.array(1), 1, "max", "none", "i32")
        return [ops.convert(ops.squeeze(best.output(1), np.array([1])), "u8").output(0)]

    how = "the number of each pixel's class" if is_of_classes else "scores, of which the best counts"
    return Head((place,), make, 0 if is_of_classes else shape[1], f"pixels are told by {described(port)}: {how}", {})


def _chosen(model: Any, wanted: Wanted, fits: Callable[[list[int], int], bool], what: str) -> int:
    """The place of the output that is named, else of the first that fits."""
    names = [sorted(port.get_names()) for port in model.outputs]
    if wanted.output:
        named = [place for place, each in enumerate(names) if wanted.output in each]
        if not named:
            hint = f"There are: {outputs_in_words(model)}."
            raise ModelLoadError(f"{wanted.file} has no output {wanted.output!r}.", hint=hint)
        if not fits(sides(model.output(named[0])), 0):
            raise ModelLoadError(
                f"{wanted.file}: the output {described(model.output(named[0]))} is not {what}.", hint="Name another."
            )
        return named[0]
    for labels in (wanted.labels, 0):
        for place, port in enumerate(model.outputs):
            if fits(sides(port), labels):
                return place
    raise ModelLoadError(
        f"{wanted.file} gives {outputs_in_words(model)}; TASK={wanted.task} needs {what}.",
        hint="Take another TASK (tensor gives arrays as they are), or export the network with that output.",
    )


def _is_scores(shape: list[int], labels: int) -> bool:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return len(shape) == 2 and (not labels or shape[1] == labels)


def _is_map(shape: list[int], labels: int) -> bool:
    return len(shape) in (3, 4) and (not labels or (len(shape) == 4 and shape[1] == labels))


def _last(shape: list[int]) -> int:
    return max(0, shape[1])


def _flat(port: Any) -> Any:
    """[n, k, 1, 1] as [n, k]."""
    from openvino import opset13 as ops

    extra = list(range(2, len(sides(port))))
    return ops.squeeze(port, np.array(extra)).output(0) if extra else port


def _shares_by(port: Any) -> str:
    """The operator that makes shares of the scores, if the network ends in one."""
    node = port.get_node().input_value(0).get_node()
    while node.get_type_name() in _SHAPERS:
        node = node.input_value(0).get_node()
    return _SHARES.get(node.get_type_name(), "")
