"""The shipped models on the shipped samples: what they find, alone, together and from several threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from app.inference.results import Box, ClassifyOptions, DetectOptions

WIDE = DetectOptions(score_threshold=0.2)


def assert_same(first, second):
    """The same detections; scores and boxes within what the order of additions changes."""
    assert [d.label for d in first] == [d.label for d in second]
    for a, b in zip(first, second, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4)
        assert a.box.iou(b.box) > 0.999


def test_models_load_warm_up_and_pass_their_golden_check(detector, classifier):
    for model in (detector, classifier):
        model.warm_up()
        model.golden_check()


def test_detector_finds_what_is_on_the_sites(detector, samples, read_sample):
    sites = [entry for entry in samples if entry["task"] == "detect"]
    assert len(sites) >= 3

    for entry in sites:
        picture = read_sample(entry["file"], detector.manifest.input)
        found = detector.predict([picture.pixels], [detector.manifest.default_options()])[0]
        boxes = [(d.label, picture.to_original(d.box)) for d in found]
        missed = [
            t for t in entry["objects"] if not any(t["label"] == n and Box(**t["box"]).iou(b) >= 0.5 for n, b in boxes)
        ]
        assert missed == [], entry["file"]
        assert len(boxes) == len(entry["objects"]), entry["file"]


def test_classifier_names_the_portraits(classifier, samples, read_sample):
    portraits = [entry for entry in samples if entry["task"] == "classify"]
    assert portraits

    for entry in portraits:
        picture = read_sample(entry["file"], classifier.manifest.input)
        answer = classifier.predict([picture.pixels], [ClassifyOptions(top_k=5)])[0]
        assert answer[0].label == entry["label"]
        assert sum(p.score for p in answer) == pytest.approx(1, abs=1e-4)
        assert [p.score for p in answer] == sorted((p.score for p in answer), reverse=True)


@pytest.mark.parametrize(("top_k", "expected"), [(0, 0), (1, 1), (3, 3), (99, 5)])
def test_top_k_is_honoured(classifier, top_k, expected):
    grey = np.full((128, 128, 3), 114, np.uint8)

    assert len(classifier.predict([grey], [ClassifyOptions(top_k=top_k)])[0]) == expected


def test_batch_answers_like_single_images(detector, pictures):
    single = [detector.predict([p], [WIDE])[0] for p in pictures]

    batch = detector.predict(pictures, [WIDE] * len(pictures))

    for alone, together in zip(single, batch, strict=True):
        assert_same(alone, together)


def test_each_image_of_a_batch_has_its_own_options(detector, pictures):
    few = replace(WIDE, max_results=2)
    none = DetectOptions(score_threshold=1.0)
    everything = DetectOptions(score_threshold=0.0, iou_threshold=1.0, max_results=10_000)

    answers = detector.predict([pictures[0]] * 4, [WIDE, few, none, everything])

    assert_same(answers[1], answers[0][:2])
    assert answers[2] == []
    assert len(answers[3]) > 1000


def test_shapes_may_differ_in_one_call(detector, pictures):
    half = np.ascontiguousarray(pictures[1][:160, :288])

    answers = detector.predict([pictures[0], half, pictures[1]], [WIDE] * 3)

    assert_same(answers[0], detector.predict([pictures[0]], [WIDE])[0])
    assert_same(answers[1], detector.predict([half], [WIDE])[0])
    assert all(d.box.x_max <= 288 and d.box.y_max <= 160 for d in answers[1])


def test_threads_answer_like_one(detector, pictures):
    expected = [detector.predict([p], [WIDE])[0] for p in pictures]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda p: detector.predict([p], [WIDE])[0], pictures * 4))

    for i, answer in enumerate(answers):
        assert_same(answer, expected[i % len(pictures)])


def test_boxes_lie_inside_the_input(detector, pictures):
    everything = DetectOptions(score_threshold=0.0, max_results=500)

    for detection in detector.predict([pictures[0]], [everything])[0]:
        box = detection.box
        assert 0 <= box.x_min <= box.x_max <= 320
        assert 0 <= box.y_min <= box.y_max <= 320


def test_no_images_is_no_answers(detector):
    assert detector.predict([], []) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((320, 320, 3), np.float32),
        np.zeros((320, 320), np.uint8),
        np.zeros((320, 320, 4), np.uint8),
        np.zeros((0, 320, 3), np.uint8),
    ],
)
def test_predict_refuses_other_arrays(detector, image):
    with pytest.raises(ValueError, match="An image must"):
        detector.predict([image], [WIDE])


def test_predict_refuses_options_of_another_task(detector, classifier, pictures):
    with pytest.raises(TypeError, match="needs DetectOptions, got ClassifyOptions"):
        detector.predict([pictures[0]], [ClassifyOptions()])
    with pytest.raises(ValueError, match="2 images and 1 options"):
        classifier.predict([pictures[0]] * 2, [ClassifyOptions()])


def test_predict_takes_arrays_that_nobody_may_write(detector, pictures):
    locked = pictures[0][::-1, ::-1]
    locked.setflags(write=False)

    detector.predict([locked], [WIDE])


def test_weights_travel_light(detector, classifier):
    total = sum(model.manifest.weights_path.stat().st_size for model in (detector, classifier))

    assert total <= 8_000_000
    for model in (detector, classifier):
        assert model.manifest.golden_path.stat().st_size < 300_000
        assert model.manifest.demonstration
        assert model.manifest.held_out["command"] == "make model-check"


def test_the_door_opens_without_torch():
    code = "import sys, app.runtimes.registry, app.runtimes.checks.golden_answers; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
