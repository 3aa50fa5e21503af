"""Where a classifier looked, from the network that answers: class activation maps by OpenVINO, without torch.

A network that ends in a mean over places and one linear layer sums, for each label, what every place of its last
feature map says for it. That sum's parts are the map: M_c(x, y) = sum over k of w_ck * F_k(x, y) (Zhou and others,
"Learning Deep Features for Discriminative Localization", 2016, equation 2). For such networks Grad-CAM gives the same
map but for a constant factor (Selvaraju and others, "Grad-CAM", 2017, section 3.1), so nothing need be differentiated.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ExplanationUnsupportedError, ModelLoadError
from app.runtimes.classifier import Explainer

METHOD = "cam"
# What stands between the parts that matter and changes no place: int8's rounding, shapes.
_TRANSPARENT = {"FakeQuantize", "Reshape", "Squeeze", "Unsqueeze", "Convert"}
_MEANS = {"ReduceMean", "AdaptiveAvgPool"}


def explainer(path: Path) -> Explainer:
    """The map of one label on one image, by the network in this file and with its own rounding.

    Raises ModelLoadError, ExplanationUnsupportedError where the network has another end.
    """
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(path)
        features, weights = _end(model)
        outputs = [model.get_results()[0].input_value(0), features, *([] if weights is None else [weights])]
        explained = openvino.Model(outputs, model.get_parameters(), METHOD)
        compiled = core.compile_model(explained, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    except RuntimeError as error:
        raise ModelLoadError(f"{path} cannot be loaded: {error}", hint="Build it again: make model-build.") from None
    lock, request = threading.Lock(), compiled.create_infer_request()

    def explain(image: np.ndarray, label: int | None) -> tuple[int, float, np.ndarray]:
        with lock:
            results = request.infer({0: image[None]}, share_inputs=True)
            scores, maps, *rest = (np.array(results[output]) for output in compiled.outputs)
        chosen = int(scores[0].argmax()) if label is None else label
        return chosen, float(scores[0, chosen]), _map(maps[0], rest[0] if rest else None, chosen, scores.shape[1])

    return explain


def _map(maps: np.ndarray, weights: np.ndarray | None, label: int, labels: int) -> np.ndarray:
    """The label's own map, float32 [H, W], from feature maps [K, H, W] and weights [labels, K] or [K, labels]."""
    if weights is None:
        found: np.ndarray = maps[label]
        return found
    by_label = weights if weights.shape[0] == labels and weights.shape[1] == len(maps) else weights.T
    return np.tensordot(by_label[label], maps, axes=1)


def _end(model: Any) -> tuple[Any, Any | None]:
    """The last feature map and the linear layer's weights; None where the mean's channels are the labels themselves."""
    source, weights = model.get_results()[0].input_value(0), None
    while (node := source.get_node()).get_type_name() not in _MEANS:
        kind = node.get_type_name()
        if kind == "MatMul" and weights is None:
            weights = node.input_value(1)
        elif kind == "Add" and weights is None and _is_constant(node.input_value(1)):
            pass  # the linear layer's bias, which says nothing of places
        elif kind == "Softmax" or kind in _TRANSPARENT:
            pass
        else:
            raise _unsupported(kind)
        source = node.input_value(0)
    features = node.input_value(0)
    if features.get_partial_shape().rank.get_length() != 4:
        raise _unsupported("a mean over something else than places")
    return features, weights


def _is_constant(source: Any) -> bool:
    return bool(source.get_node().get_type_name() == "Constant")


def _unsupported(found: str) -> ExplanationUnsupportedError:
    return ExplanationUnsupportedError(
        "The network ends in %(found)s, not in a mean over places and one linear layer.",
        hint="Leave explain out, or ask the operator of this service for a model that can be explained.",
        found=found,
    )
