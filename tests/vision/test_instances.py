"""Objects with masks: Mask R-CNN by torch against plain torchvision, and networks from files with YOLO's head."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app import tasks
from app.engine import tensors
from app.errors import GoldenCheckError, ModelLoadError
from app.inference import images, rle
from app.inference.results import DetectOptions
from app.models.builds import LEAST_IMAGES
from app.models.manifests import InputSpec
from app.runtimes import architectures
from app.runtimes.build.build import BuildOptions, build_model
from app.runtimes.importing import weight_files
from app.runtimes.operators import torchvision
from app.runtimes.registry import Plan, load_model
from app.tasks.instances import Instance
from tests import instance_networks
from tests.instance_networks import LABELS, NAME, SIDE_PX
from tests.vision.test_add_network import Add, add  # noqa: F401 - the fixture

TASK = tasks.BY_NAME["instances"]
LIMITS = images.Limits(1 << 30, 1 << 30, ("JPEG", "PNG"))
PICTURE = np.random.default_rng(5).integers(0, 256, (6, 8, 3), np.uint8).repeat(20, 0).repeat(20, 1)


def whole(mask: rle.Rle) -> np.ndarray:
    height, width = mask["size"]
    found = np.zeros(height * width, bool)
    found[rle.pixels(mask)] = True
    return found.reshape(width, height).T


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    return load_model(instance_networks.add(tmp_path_factory.mktemp("store")))


def test_boxes_and_masks_are_those_of_plain_torchvision(model) -> None:
    spec = model.manifest.input
    picture = images.from_pixels(PICTURE, spec, LIMITS)
    network = torchvision.models.get_model(
        NAME,
        weights=None,
        weights_backbone=None,
        num_classes=1 + len(LABELS),
        box_detections_per_img=5,
        **instance_networks.FEW,
    )
    network.load_state_dict(weight_files.read(model.manifest.weights_path))
    network.transform.min_size, network.transform.max_size = (spec.min_size,), spec.max_size
    # Masks as the head gives them, before they are drawn.
    network.transform.postprocess = lambda result, *sizes: result
    with torch.inference_mode():
        (expected,) = network.eval()([torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1) / 255])

    (found,) = model.predict([picture.pixels], [DetectOptions(score_threshold=0.05, max_results=5)])

    assert len(found) == len(expected["scores"]) == 5
    assert [row.score for row in found] == pytest.approx(expected["scores"].tolist(), abs=1e-4)
    corners = [[row.box.x_min, row.box.y_min, row.box.x_max, row.box.y_max] for row in found]
    assert np.allclose(corners, expected["boxes"], atol=0.01)
    shares = np.stack([row.patch.shares for row in found])
    assert np.abs(shares - 255 * expected["masks"][:, 0].numpy()).max() < 2
    assert shares.std() > 20


def test_an_answer_passes_the_wire_and_lies_on_the_upright_picture(model) -> None:
    picture = images.from_pixels(PICTURE, model.manifest.input, LIMITS)
    (answer,) = model.predict([picture.pixels], [DetectOptions(score_threshold=0.05, max_results=3)])
    rows, arrays = tasks.to_wire("instances", answer)
    named, payload = tensors.pack(arrays)

    passed = tasks.from_wire(
        "instances", json.loads(json.dumps(rows)), tensors.unpack(json.loads(json.dumps(named)), payload)
    )
    result = json.loads(json.dumps(TASK.result(TASK.placed(passed, picture))))

    assert [row.patch.area for row in passed] == [row.patch.area for row in answer]
    assert len(result["instances"]) == 3
    for row in result["instances"]:
        mask, box = whole(row["mask"]), row["box"]
        assert mask.shape == PICTURE.shape[:2]
        ys, xs = np.nonzero(mask)
        assert box["x_min"] - 1 <= xs.min() <= xs.max() <= box["x_max"]
        assert box["y_min"] - 1 <= ys.min() <= ys.max() <= box["y_max"]
    content = base64.b64decode(result["mask"].partition(",")[2])
    numbers = np.asarray(Image.open(io.BytesIO(content)))
    best = [whole(row["mask"]) for row in result["instances"]]
    assert np.array_equal(numbers == 0, best[0])
    assert np.array_equal(numbers == 255, ~np.any(best, axis=0))
    again = TASK.answer_of(result)
    assert all(isinstance(row, Instance) for row in again)
    assert TASK.difference(again, again).is_same


def test_another_mask_at_the_same_box_is_another_object(model) -> None:
    picture = images.from_pixels(PICTURE, model.manifest.input, LIMITS)
    (answer,) = model.predict([picture.pixels], [DetectOptions(score_threshold=0.05, max_results=1)])
    (row,) = TASK.placed(answer, picture)
    height, width = row.mask["size"]
    other = Instance(row.label, row.score, row.box, rle.from_runs(np.array([0]), np.array([3]), height, width))

    found = TASK.difference([row], [other])

    assert (found.is_same, found.matched, found.only_answered, found.only_shadow) == (False, 0, 1, 1)
    assert TASK.result([])["mask"] is None


def test_stored_masks_are_compared_when_it_is_loaded(model, monkeypatch) -> None:
    model.golden_check()
    cells = model._find

    def emptied(pictures, lowest):
        return [
            type(each)(each.candidates, lambda kept, of=each: [_other(patch) for patch in of.patches(kept)])
            for each in cells(pictures, lowest)
        ]

    def _other(patch):
        return type(patch)(255 - patch.shares, patch.area, patch.box)

    monkeypatch.setattr(model, "_find", emptied)
    with pytest.raises(GoldenCheckError, match="a mask has an IoU of"):
        model.golden_check()


def test_mask_rcnn_may_also_be_asked_for_boxes() -> None:
    assert architectures.find(NAME).tasks == ("instances", "detect")


# ── from files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(size: tuple[int, int] = (SIDE_PX, SIDE_PX)) -> np.ndarray:
    picture = np.zeros((*size, 3), np.uint8)
    picture[20:32, 16:32, 1] = 255
    return picture


@pytest.mark.parametrize("is_suppressed", [False, True], ids=["yolo", "yolo with suppression inside"])
def test_yolos_coefficients_add_up_to_masks(add: Add, tmp_path: Path, is_suppressed: bool) -> None:  # noqa: F811
    instance_networks.save(tmp_path / "a.pt2", is_suppressed=is_suppressed)

    manifest = add(tmp_path / "a.pt2", "instances", labels=LABELS)

    picture = images.from_pixels(np.kron(drawn(), np.ones((4, 4, 1), np.uint8)), manifest.input, LIMITS)
    (answer,) = load_model(manifest).predict([picture.pixels], [DetectOptions(score_threshold=0.6)])
    (row,) = TASK.placed(answer, picture)
    expected = np.zeros((4 * SIDE_PX, 4 * SIDE_PX), bool)
    expected[80:128, 64:128] = True
    assert row.label == LABELS[1]
    assert overlap(whole(row.mask), expected) > 0.9
    assert manifest.input == InputSpec("letterbox", size=SIDE_PX, mean=(0, 0, 0), std=(1, 1, 1))


def test_a_file_without_masks_gets_its_sentence(add: Add, tmp_path: Path) -> None:  # noqa: F811
    instance_networks.save(tmp_path / "a.pt2", has_maps=False)

    with pytest.raises(ModelLoadError, match="a network for instances gives boxes, labels, scores and masks"):
        add(tmp_path / "a.pt2", "instances", labels=LABELS)


def test_another_precision_is_compared_by_masks(add: Add, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "samples").mkdir()
    random = np.random.default_rng(2)
    for number in range(LEAST_IMAGES):
        picture = drawn() // 2 + random.integers(0, 100, (SIDE_PX, SIDE_PX, 1), np.uint8)
        Image.fromarray(np.roll(picture, (number % 4 * 16, number % 3 * 16), (0, 1))).save(
            tmp_path / "samples" / f"{number:03}.png"
        )
    instance_networks.save(tmp_path / "a.pt2")
    manifest = add(tmp_path / "a.pt2", "instances", labels=LABELS, sample_pictures=tmp_path / "samples")

    report = build_model(
        manifest, tmp_path, BuildOptions(only=("openvino bf16",), rounds=1), progress=lambda line: None
    )

    reference, bf16 = report.candidates
    assert (reference.name, bf16.name) == ("openvino fp32", "openvino bf16")
    assert bf16.is_measured, bf16
    assert bf16.agreement > 0.9
    load_model(manifest, Plan(tmp_path, precision="bf16")).golden_check()
