"""One of every kind of architecture: builds with random weights, answers, and honours the options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.inference.results import ClassifyOptions, DetectOptions
from app.models.builds import Candidate
from app.models.manifests import InputSpec
from app.runtimes import architectures, torch_runtime, weights
from app.runtimes.build import conversion
from app.runtimes.build.samples import Samples
from app.runtimes.detector import Detector
from app.runtimes.importing import checkpoints, weight_files
from app.runtimes.importing.add import NewModel, add_model
from app.runtimes.registry import load_model

FIT = InputSpec("fit", min_size=96, max_size=160)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (height, width, 3), np.uint8)


def test_classifier_of_torchvision_answers(tmp_path):
    spec = InputSpec("crop", size=64, resize_size=72)
    manifest = add_model(
        NewModel("mobilenet_v3_small", "random", ("a", "b", "c"), "m", "1", input_spec=spec, half=True), tmp_path
    )

    model = load_model(manifest)

    model.warm_up()
    answer = model.predict([noise(64, 64)], [ClassifyOptions(top_k=2)])[0]
    assert len(answer) == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", {"rpn_post_nms_top_n_test": 60}),
        ("ssdlite320_mobilenet_v3_large", {}),
        ("narrow_fcos", {}),
    ],
)
def test_detector_of_each_kind_answers_in_fit_mode(tmp_path, name, options):
    manifest = add_model(
        NewModel(name, "random", ("cone", "sign"), "d", "1", input_spec=FIT, architecture_options=options), tmp_path
    )
    model = load_model(manifest)
    model.warm_up()
    model.golden_check()
    everything = DetectOptions(score_threshold=0.0, iou_threshold=1.0, max_results=100_000)

    shapes = [(96, 128), (160, 90), (96, 128)]
    answers = model.predict([noise(h, w) for h, w in shapes], [everything, everything, DetectOptions(max_results=0)])

    assert answers[2] == []
    for (height, width), answer in zip(shapes[:2], answers[:2], strict=True):
        assert answer
        assert {d.label for d in answer} <= {"cone", "sign"}
        assert min(d.score for d in answer) < 0.4
        assert all(0 <= d.box.x_min <= d.box.x_max <= width for d in answer)
        assert all(0 <= d.box.y_min <= d.box.y_max <= height for d in answer)
        strict = DetectOptions(score_threshold=0.0, iou_threshold=0.0, max_results=100_000)
        # An untrained FCOS gives boxes without area, which overlap nothing.
        assert name == "narrow_fcos" or len(model.predict([noise(height, width)], [strict])[0]) < len(answer)


def test_our_dense_path_finds_what_torchvision_finds(detector, pictures):
    import torch

    from app.runtimes import torch_runtime

    network = torch_runtime.network(detector.manifest)
    network.score_thresh, network.nms_thresh, network.detections_per_img = 0.2, 0.5, 100
    with torch.inference_mode():
        expected = network([torch.from_numpy(pictures[0]).permute(2, 0, 1) / 255])[0]

    answer = detector.predict([pictures[0]], [DetectOptions(score_threshold=0.2, iou_threshold=0.5)])[0]

    assert [d.score for d in answer] == pytest.approx(expected["scores"].tolist(), abs=1e-4)
    assert [d.box.x_max for d in answer] == pytest.approx(expected["boxes"][:, 2].tolist(), abs=1e-2)
    assert [d.label for d in answer] == [detector.manifest.labels[i] for i in expected["labels"]]


def test_ssd_scores_every_place_as_torchvision_lists_them_and_as_openvino_does(tmp_path):
    """Its best candidates are those of torchvision's own list, so its other forms can be compared and served."""
    manifest = add_model(
        NewModel("ssdlite320_mobilenet_v3_large", "random", ("cone", "sign"), "d", "1"), tmp_path / "models"
    )
    picture = noise(320, 320)[None]

    (listed,) = torch_runtime.load_listing(manifest, "cpu")(picture, 0.0)
    (dense,) = load_model(manifest).candidates(picture, 0.0)
    path = conversion.make(Candidate("openvino", "fp32"), manifest, Samples([], []), tmp_path)
    (built,) = Detector.load_file(manifest, Candidate("openvino", "fp32"), path, 1).candidates(picture, 0.0)

    best = np.argsort(-listed.scores)[:50]
    assert listed.classes[best].min() > 0
    for other in (dense, built):
        for i in best:
            is_there = (np.abs(other.boxes - listed.boxes[i]).max(1) < 0.05) & (other.classes == listed.classes[i])
            assert np.abs(other.scores[is_there] - listed.scores[i]).min() < 1e-4


def test_all_of_torchvision_is_known():
    known = architectures.known()

    for name in ("resnet50", "vit_b_16", "fasterrcnn_resnet50_fpn", "fcos_resnet50_fpn", "retinanet_resnet50_fpn_v2"):
        assert name in known
    assert known["ssd300_vgg16"].has_background
    assert not known["retinanet_resnet50_fpn"].has_background


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"])
def test_masks_and_keypoints_are_neither_loaded_nor_computed(name, tmp_path):
    said = []
    spec = InputSpec("fit", min_size=96, max_size=128)

    new = NewModel(name, "random", ("cone",), "m", "1", input_spec=spec, task="detect")

    manifest = add_model(new, tmp_path, progress=said.append)
    stored = weight_files.read(manifest.weights_path)
    whole = architectures.find(name).builder(weights=None, weights_backbone=None, num_classes=2).state_dict()

    assert any(line.startswith("boxes only: ") for line in said)
    assert not [key for key in stored if "mask" in key or "keypoint" in key]
    # A file with these heads fits, in a checkpoint as in a version that was added before.
    found = checkpoints.fitting(
        architectures.build(manifest), dict(whole), "w.pth", manifest.labels, Detector.other_heads
    )
    assert set(found.tensors) == set(stored)
    weights.fit(architectures.build(manifest), whole, "w", 2, Detector.other_heads)
    network = architectures.build(manifest)
    assert set(network(list(torch.rand(1, 3, 96, 96)))[0]) == {"boxes", "scores", "labels"}
