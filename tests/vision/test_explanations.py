"""Where a classifier looked: two methods that must agree, and a map that must tell what counts."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from app.config import ROOT
from app.errors import ExplanationUnsupportedError
from app.inference.results import ExplainOptions, Explanation
from app.models import manifests
from app.models.builds import Candidate
from app.models.manifests import Manifest
from app.runtimes import cam, grad_cam
from app.runtimes.build import conversion, samples
from app.runtimes.model import Model

COUNT = 24


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return manifests.read(ROOT / "models" / "site-safety-classifier" / "1")


@pytest.fixture(scope="module")
def photographs(manifest: Manifest) -> list[np.ndarray]:
    return [np.ascontiguousarray(each) for each in samples.read(manifest).comparison[:COUNT]]


@pytest.fixture(scope="module")
def built(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """OpenVINO's files of the demonstration, by precision."""
    folder, found = tmp_path_factory.mktemp("built"), samples.read(manifest)
    return {
        precision: conversion.make(Candidate("openvino", precision), manifest, found, folder)
        for precision in ("fp32", "int8")
    }


def shares(found: np.ndarray) -> np.ndarray:
    positive: np.ndarray = np.maximum(found, 0)
    return positive / positive.max()


def test_activation_maps_are_those_of_gradients(
    manifest: Manifest, built: dict[str, Path], photographs: list[np.ndarray]
) -> None:
    """Selvaraju and others, 2017, section 3.1: the same but for a factor, where the network ends so."""
    by_gradients, by_activations = grad_cam.explainer(manifest), cam.explainer(built["fp32"])

    for picture in photographs:
        label, score, expected = by_gradients(picture, None)
        same_label, same_score, found = by_activations(picture, None)

        assert same_label == label
        assert same_score == pytest.approx(score, abs=1e-4)
        assert np.abs(shares(found) - shares(expected)).max() < 1e-3


def test_int8_explains_itself_much_as_fp32_does(built: dict[str, Path], photographs: list[np.ndarray]) -> None:
    exact, rounded = cam.explainer(built["fp32"]), cam.explainer(built["int8"])

    alike = []
    for picture in photographs:
        label, _, expected = exact(picture, None)
        alike.append(np.corrcoef(shares(expected).ravel(), shares(rounded(picture, label)[2]).ravel())[0, 1])
    assert min(alike) > 0.95


def test_what_it_looked_at_counts_more_than_what_it_did_not(
    built: dict[str, Path], photographs: list[np.ndarray]
) -> None:
    """Deleting the warmest place costs more of the score than deleting the coldest one."""
    explain = cam.explainer(built["int8"])
    lost: dict[str, list[float]] = {"warmest": [], "coldest": []}

    for picture in photographs:
        label, score, found = explain(picture, None)
        for name, place in (("warmest", found.argmax()), ("coldest", found.argmin())):
            row, column = np.unravel_index(place, found.shape)
            side = len(picture) // len(found)
            without = picture.copy()
            without[row * side : (row + 1) * side, column * side : (column + 1) * side] = 114
            lost[name].append(score - explain(without, label)[1])

    assert np.mean(lost["warmest"]) > 3 * abs(np.mean(lost["coldest"]))


def test_a_chosen_label_has_a_map_of_its_own(classifier: Model, photographs: list[np.ndarray]) -> None:
    ((best,), (other,)) = classifier.predict(
        [photographs[0]] * 2, [ExplainOptions(), ExplainOptions(classifier.manifest.labels[-1])]
    )

    assert isinstance(best, Explanation)
    assert isinstance(other, Explanation)
    assert best.method == "grad_cam"
    assert max(max(row) for row in best.map) == 1.0
    assert min(min(row) for row in best.map) >= 0.0
    assert other.label == classifier.manifest.labels[-1]
    assert other.map != best.map or other.label == best.label


def test_two_threads_do_not_mix_their_maps(built: dict[str, Path], photographs: list[np.ndarray]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    explain = cam.explainer(built["int8"])
    alone = [explain(each, 0)[2] for each in photographs]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: explain(each, 0)[2], photographs))

    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_detector_is_refused(detector: Model) -> None:
    with pytest.raises(ExplanationUnsupportedError, match="finds objects"):
        detector.predict([np.zeros((320, 320, 3), np.uint8)], [ExplainOptions()])


def test_attention_is_refused(small: Callable[..., Manifest]) -> None:
    manifest = small()
    object.__setattr__(manifest, "architecture", "vit_b_16")

    with pytest.raises(ExplanationUnsupportedError, match="attention"):
        grad_cam.explainer(manifest)


def saved(network: nn.Module, folder: Path) -> Path:
    import openvino

    path = folder / "network.xml"
    example = torch.zeros(1, 3, 32, 32)
    with warnings.catch_warnings():
        # It traces, which torch has given up.
        warnings.simplefilter("ignore")
        openvino.save_model(openvino.convert_model(network.eval(), example_input=example), path, compress_to_fp16=False)
    return path


def test_a_network_of_another_end_is_refused_by_openvino(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.Hardswish())

    with pytest.raises(ExplanationUnsupportedError, match="The network ends in"):
        cam.explainer(saved(nn.Sequential(network, nn.Linear(4, 3), nn.Softmax(1)), tmp_path))


def test_maps_that_are_labels_themselves_need_no_weights(tmp_path: Path) -> None:
    """As SqueezeNet ends."""
    maps = nn.Conv2d(3, 5, 3)
    network = nn.Sequential(maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1))
    pixels = np.random.default_rng(1).random((3, 32, 32), np.float32)

    _, _, found = cam.explainer(saved(network, tmp_path))(pixels, 3)

    with torch.no_grad():
        expected = maps(torch.from_numpy(pixels)[None])[0, 3].numpy()
    assert np.abs(found - expected).max() < 1e-4


def test_torch_is_not_imported_to_explain_what_openvino_computes(built: dict[str, Path]) -> None:
    code = (
        "import sys, numpy; from pathlib import Path; from app.runtimes import cam;"
        "explain = cam.explainer(Path(sys.argv[1]));"
        "print(explain(numpy.zeros((128, 128, 3), numpy.uint8), None)[2].shape, 'torch' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(built["int8"])], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "(4, 4) False"
