"""A network for segmentation with fixed random weights: our masks are plain torchvision's, computed apart."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from app import tasks
from app.engine import tensors
from app.errors import GoldenCheckError
from app.inference import images
from app.models.manifests import InputSpec
from app.runtimes import architectures
from app.runtimes.build import build
from app.runtimes.build.build import BuildOptions
from app.runtimes.importing import weight_files
from app.runtimes.operators import torchvision
from app.runtimes.registry import Plan, load_model
from app.tasks import segment
from app.tasks.segment import NO_CLASS, SegmentOptions
from app.tasks.segment_model import Segmenter, mean_iou
from tests import segmenters
from tests.segmenters import LABELS, NAME

LIMITS = images.Limits(1 << 30, 1 << 30, ("JPEG",))
TASK = tasks.BY_NAME["segment"]
PICTURE = np.random.default_rng(5).integers(0, 256, (6, 8, 3), np.uint8).repeat(20, 0).repeat(20, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(segmenters.add(tmp_path_factory.mktemp("store")))


def decoded(row) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(row.mask))))


def test_classes_are_those_of_plain_torchvision(model):
    picture = images.from_pixels(PICTURE, model.manifest.input, LIMITS)
    network = torchvision.models.get_model(NAME, weights=None, weights_backbone=None, num_classes=len(LABELS))
    network.load_state_dict(weight_files.read(model.manifest.weights_path))
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (model.manifest.input.mean, model.manifest.input.std))
    with torch.inference_mode():
        pixels = (torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1) / 255 - mean) / std
        expected = network.eval()(pixels[None])["out"][0].argmax(0).numpy()

    ((found,),) = model.predict([picture.pixels], [SegmentOptions()])

    assert len(np.unique(expected)) == len(LABELS)
    assert mean_iou(found.numbers, expected.astype(np.uint8)) > 0.99
    (row,) = TASK.placed([found], picture)
    mask = decoded(row)
    assert mask.shape == PICTURE.shape[:2]
    # The input's pixel in which the middle of each pixel lies.
    rows, columns = (
        (2 * np.arange(size) + 1) * side // (2 * size) for size, side in zip(mask.shape, expected.shape, strict=True)
    )
    assert np.array_equal(mask, found.numbers[np.ix_(rows, columns)])
    for each in row.segments:
        assert each["area"] == pytest.approx((mask == LABELS.index(each["label"])).mean(), abs=1e-4)
    assert [each["area"] for each in row.segments] == sorted((each["area"] for each in row.segments), reverse=True)


def test_other_classes_are_left_out_on_wish(model):
    pixels = images.from_pixels(PICTURE, model.manifest.input, LIMITS).pixels

    ((every,),) = model.predict([pixels], [SegmentOptions()])
    ((largest,),) = model.predict([pixels], [SegmentOptions(max_classes=1)])

    number = next(iter(every.labels))
    assert set(largest.labels) == {number}
    assert np.array_equal(largest.numbers == number, every.numbers == number)
    assert set(np.unique(largest.numbers)) <= {number, NO_CLASS}


def test_stored_answers_are_compared(model):
    model.golden_check()
    stored = model.stored_answers([PICTURE])
    other = {name: (mask + 1) % len(LABELS) for name, mask in stored.items()}

    assert model.stored_fault(stored, stored, 0.01, 0.9) == ""
    assert "mean IoU" in model.stored_fault(stored, other, 0.01, 0.9)


def test_another_form_is_compared_by_mean_iou(model):
    said = model.outcome([PICTURE])

    assert Segmenter.compared(said, said, model.manifest, None).agreement == 1.0
    assert mean_iou(np.uint8([[0, 0], [1, 1]]), np.uint8([[0, 1], [1, 1]])) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_answer_passes_the_wire_and_keeps_its_bytes(model):
    (answer,) = model.predict([PICTURE], [SegmentOptions()])
    rows, arrays = tasks.to_wire("segment", answer)
    named, payload = tensors.pack(arrays)

    (found,) = tasks.from_wire(
        "segment", json.loads(json.dumps(rows)), tensors.unpack(json.loads(json.dumps(named)), payload)
    )

    assert memoryview(payload).nbytes == answer[0].numbers.size
    assert np.array_equal(found.numbers, answer[0].numbers)
    assert found.labels == answer[0].labels


def test_what_the_input_does_not_show_has_no_class():
    picture = images.from_pixels(PICTURE, InputSpec("crop", size=32, resize_size=32), LIMITS)
    found = segment.ClassMap(np.ones((32, 32), np.uint8), {1: "road"})

    (row,) = TASK.placed([found], picture)

    assert (decoded(row)[:, :20] == NO_CLASS).all()
    assert (decoded(row)[:, 20:140] == 1).all()
    assert row.segments[0]["area"] == pytest.approx(120 / 160)


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "fcn_resnet101", NAME])
def test_every_builder_of_torchvision_is_known(name):
    assert architectures.find(name).task == "segment"


def test_wrong_answers_are_refused_when_it_is_loaded(model, monkeypatch):
    monkeypatch.setattr(model, "_run", lambda images: [np.zeros(images.shape[:3], np.uint8)])

    with pytest.raises(GoldenCheckError, match="mean IoU"):
        model.golden_check()


def test_openvino_gives_the_same_masks_and_is_chosen_by_mean_iou(tmp_path):
    manifest = segmenters.add(tmp_path, InputSpec("letterbox", size=segmenters.SIDE_PX))

    report = build.build_model(
        manifest, tmp_path / "state", BuildOptions(only=("openvino fp32",), rounds=1), progress=lambda words: None
    )

    torch_fp32, openvino = report.candidates
    assert (torch_fp32.name, openvino.name) == ("torch fp32", "openvino fp32")
    assert openvino.agreement > 0.99, openvino.verdict
    built = load_model(manifest, plan=Plan(tmp_path / "state"))
    assert "openvino" in built.computed_by
    picture = images.from_pixels(PICTURE, manifest.input, LIMITS)
    plain, same = (each.classes(picture.pixels[None])[0] for each in (load_model(manifest), built))
    assert mean_iou(plain, same) > 0.99


def test_a_shadow_is_compared_by_areas_and_gets_no_mask(model):
    picture = images.from_pixels(PICTURE, model.manifest.input, LIMITS)
    (answered,) = model.predict([picture.pixels], [SegmentOptions()])
    (largest,) = model.predict([picture.pixels], [SegmentOptions(max_classes=1)])
    placed, other = (TASK.placed(each, picture) for each in (answered, largest))

    lean = TASK.lean(placed)

    assert lean[0].mask == ""
    assert placed[0].mask
    assert TASK.difference(lean, placed) == segment.Difference(True, 0.0)
    lost = placed[0].segments[1]["area"]
    assert TASK.difference(lean, other) == segment.Difference(True, lost)
