"""Other people's detectors: planted outputs in real ONNX files, against a decoding that is written down box by box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from app.errors import CaskError
from app.inference.results import Box, Detection, DetectOptions
from app.models.manifests import Manifest
from app.runtimes.checks import proof
from app.runtimes.importing import network_conversion, network_process
from app.runtimes.importing.add_network import NewNetwork, add_network
from app.runtimes.importing.network_wanted import Converted, Wanted
from app.runtimes.registry import load_model
from tests import onnx_files

LABELS = ("cat", "dog", "owl")
SIDE = 64
PLACES = 300
THRESHOLD, IOU = 0.4, 0.5
OPTIONS = DetectOptions(THRESHOLD, IOU, 1000)


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Add a network that answers these arrays to any picture."""

    def convert(wanted: Wanted, folder: Path, **_: object) -> Converted:
        return network_conversion.convert(wanted, folder)

    monkeypatch.setattr(network_process, "convert", convert)
    # What is planted does not move with the picture, which make model-add would find.
    monkeypatch.setattr(proof, "_moves", lambda model: "")

    def added(outputs: dict[str, np.ndarray], labels: Sequence[str] | None = LABELS, **changes) -> Manifest:
        (tmp_path / "a.onnx").write_bytes(planted(outputs))
        given = NewNetwork(tmp_path / "a.onnx", "detect", labels and tuple(labels), "mine", "1", **changes)
        return add_network(given, tmp_path / "models")

    return added


def planted(outputs: dict[str, np.ndarray]) -> bytes:
    """Each output is its array plus nothing of the picture; those with a batch of 1 get one row a picture."""
    nodes = [onnx_files.node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1)]
    weights, values = {"zero": np.zeros(1, np.float32)}, []
    nodes.append(onnx_files.node("Mul", ["mean", "zero"], ["nothing"]))
    for name, array in outputs.items():
        weights[f"{name}_planted"] = array
        kind = onnx_files.TYPES[array.dtype]
        if array.ndim == 3:
            nodes += [
                onnx_files.node("Squeeze", ["nothing", "last"], [f"{name}_flat"]),
                onnx_files.node("Add", [f"{name}_planted", f"{name}_flat"], [name]),
            ]
            weights["last"] = np.array([3])
        else:
            nodes.append(onnx_files.node("Identity", [f"{name}_planted"], [name]))
        values.append(onnx_files.value(name, ["n", *array.shape[1:]] if array.ndim == 3 else list(array.shape), kind))
    return onnx_files.model(nodes, weights, [onnx_files.value("images", ["n", 3, SIDE, SIDE])], values)


def predicted(manifest: Manifest, options: DetectOptions = OPTIONS) -> list[Detection]:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    first, second = load_model(manifest).predict([picture] * 2, [options] * 2)
    assert first == second
    return list(first)


def expected(boxes: np.ndarray, scores: np.ndarray) -> list[tuple[str, float, Box]]:
    """One after the other: the best that is left, without those of its label that overlap it."""
    rows = [
        (LABELS[label], float(scores[place, label]), Box(*map(float, boxes[place])))
        for place in range(len(boxes))
        for label in range(len(LABELS))
        if scores[place, label] >= THRESHOLD
    ]
    kept: list[tuple[str, float, Box]] = []
    for row in sorted(rows, key=lambda row: -row[1]):
        if all(row[0] != other[0] or row[2].iou(other[2]) <= IOU for other in kept):
            kept.append(row)
    return kept


def check(found: Sequence[Detection], wanted: Sequence[tuple[str, float, Box]]) -> None:
    assert len(wanted) > 5
    assert [each.label for each in found] == [label for label, _, _ in wanted]
    assert [each.score for each in found] == pytest.approx([score for _, score, _ in wanted], abs=1e-4)
    for each, (_, _, box) in zip(found, wanted, strict=True):
        assert each.box.iou(box) > 0.999


@pytest.fixture
def centred() -> np.ndarray:
    """Centres, widths and heights, in pixels; [places, 4]."""
    random = np.random.default_rng(4)
    return np.concatenate(
        [random.uniform(8, SIDE - 8, (PLACES, 2)), random.uniform(6, 16, (PLACES, 2))], axis=1
    ).astype(np.float32)


@pytest.fixture
def scores() -> np.ndarray:
    """Of each place and label, mostly low; [places, labels]."""
    return (np.random.default_rng(5).uniform(0, 1, (PLACES, len(LABELS))) ** 4).astype(np.float32)


def to_corners(centred: np.ndarray) -> np.ndarray:
    return np.concatenate([centred[:, :2] - centred[:, 2:] / 2, centred[:, :2] + centred[:, 2:] / 2], axis=1)


@pytest.mark.parametrize("is_by_place", [False, True])
@pytest.mark.parametrize("has_objectness", [False, True])
def test_yolo_with_our_suppression(add, centred, scores, is_by_place: bool, has_objectness: bool) -> None:
    objectness = np.random.default_rng(6).uniform(0.6, 1, (PLACES, 1)).astype(np.float32)
    rows = np.concatenate([centred, *([objectness] if has_objectness else []), scores], axis=1)

    manifest = add({"output0": (rows if is_by_place else rows.T)[None]})

    check(predicted(manifest), expected(to_corners(centred), scores * objectness if has_objectness else scores))
    assert manifest.architecture_options == {
        "head": "yolo",
        "is_by_place": is_by_place,
        "has_objectness": has_objectness,
    }
    assert (manifest.input.kind, manifest.input.mean, manifest.input.std) == ("letterbox", (0, 0, 0), (1, 1, 1))


def test_yolo_that_suppresses_inside(add, centred, scores) -> None:
    kept = expected(to_corners(centred), scores)
    rows = np.zeros((50, 6), np.float32)
    for row, (label, score, box) in zip(rows, kept, strict=False):
        row[:] = box.x_min, box.y_min, box.x_max, box.y_max, score, LABELS.index(label)

    check(predicted(add({"output0": rows[None]})), kept[:50])


@pytest.mark.parametrize("is_softmax", [False, True])
def test_detr(add, centred, scores, is_softmax: bool) -> None:
    shares = scores / 3 if is_softmax else np.clip(scores, 1e-6, 1 - 1e-6)
    logits = np.log(shares / (1 - shares)) if not is_softmax else np.log(np.c_[shares, 1 - shares.sum(1)] + 1e-9)
    outputs = {"logits": logits[None].astype(np.float32), "pred_boxes": centred[None] / SIDE}
    global_threshold = DetectOptions(THRESHOLD / 3 if is_softmax else THRESHOLD, IOU, 1000)

    found = predicted(add(outputs), global_threshold)

    kept = expected(to_corners(centred), scores)
    wanted = [(label, score / (3 if is_softmax else 1), box) for label, score, box in kept]
    check(found, wanted)


@pytest.mark.parametrize("first", [0, 1])
def test_torchvisions_lists(add, centred, scores, first: int) -> None:
    kept = expected(to_corners(centred), scores)
    outputs = {
        "boxes": np.array([[box.x_min, box.y_min, box.x_max, box.y_max] for _, _, box in kept], np.float32),
        "labels": np.array([LABELS.index(label) + first for label, _, _ in kept]),
        "scores": np.array([score for _, score, _ in kept], np.float32),
    }

    manifest = add(outputs, wanted={"options": {"first_label": first}})

    check(predicted(manifest), kept)
    assert manifest.labels == ((("__background__", *LABELS)) if first else LABELS)
    assert manifest.serve.max_batch_size == 1


def test_masks_of_ultralytics_are_left_out(add, centred, scores) -> None:
    rows = np.concatenate([centred, scores, np.ones((PLACES, 32), np.float32)], axis=1)

    manifest = add({"output0": rows.T[None], "output1": np.zeros((1, 32, 16, 16), np.float32)})

    check(predicted(manifest), expected(to_corners(centred), scores))


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"a": np.zeros((1, 84, 2100), np.float32)}, "scores 80 labels, LABELS has 3"),
        (
            {"a": np.zeros((1, 7, 8, 9), np.float32)},
            "a detector gives boxes, labels and scores as",
        ),
    ],
)
def test_outputs_of_something_else(add, outputs, words: str) -> None:
    with pytest.raises(CaskError) as refused:
        add(outputs)

    assert words in f"{refused.value.message} {refused.value.hint}"
