"""The renderer and the ruler: same seed, same scene; average precision against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from app.inference.results import Box, Detection
from app.models.manifests import LETTERBOX_GREY
from app.runtimes.build.agreement import mean_average_precision
from training import scenes
from training.scenes import LABELS

SQUARE = Box(0, 0, 10, 10)


@pytest.fixture(scope="module")
def library():
    return scenes.SpriteLibrary(1, per_kind=3, height_px=96)


def detection(score: float, box: Box = SQUARE, label: str = "cone") -> Detection:
    return Detection(label, score, box)


def test_the_same_seed_renders_the_same_scene(library):
    first, second = (scenes.render(np.random.default_rng(4), library, 200, 150, 5) for _ in range(2))

    assert np.array_equal(first.pixels, second.pixels)
    assert first.objects == second.objects


def test_true_boxes_lie_inside_and_are_large_enough(library):
    rng = np.random.default_rng(8)

    for _ in range(25):
        pixels, boxes, labels = scenes.detection_sample(rng, library)
        assert pixels.shape == (320, 320, 3)
        assert len(boxes) == len(labels)
        assert (boxes >= 0).all()
        assert (boxes <= 320.5).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) >= scenes.SMALLEST_SIDE_PX - 1).all()


def test_empty_scenes_are_empty(library):
    assert scenes.render(np.random.default_rng(2), library, 200, 150, 0).objects == ()


def test_every_label_can_be_the_one_on_a_crop(library):
    rng = np.random.default_rng(2)

    for label in LABELS:
        assert scenes.render_single(rng, library, label, 180, 200).objects[0].label == label


def test_letterbox_puts_the_image_at_the_top_left():
    square, scale = scenes.letterbox(np.full((60, 120, 3), 7, np.uint8), 320)

    assert scale == pytest.approx(320 / 120)
    assert (square[:160] == 7).all()
    assert (square[160:] == LETTERBOX_GREY).all()


def truth(count: int = 1, box: Box = SQUARE) -> list[list[Detection]]:
    return [[detection(1.0, box)] * count]


def test_average_precision_of_perfect_answers_is_one():
    assert mean_average_precision(truth(), [[detection(0.9)]]) == 1


def test_average_precision_agrees_with_a_worked_example():
    # Right, wrong, right, of three that exist: precision 1 up to recall 1/3, then 2/3 up to recall 2/3.
    places = [Box(left, 0, left + 10, 10) for left in (0, 100, 200, 300)]
    found = [[detection(score, place) for score, place in zip((0.9, 0.8, 0.7), places, strict=False)]]
    real = [[detection(1.0, places[each]) for each in (0, 2, 3)]]

    assert mean_average_precision(real, found) == pytest.approx(1 / 3 + 2 / 3 * 1 / 3)


def test_a_true_box_is_found_once():
    twice = [[detection(0.9), detection(0.8)]]

    assert mean_average_precision(truth(), twice) == 1
    assert mean_average_precision(truth(2), twice) == 1
    assert mean_average_precision(truth(box=Box(50, 50, 60, 60)), twice[::-1]) == 0


def test_overlap_of_half_is_needed():
    for height, expected in ((5, 1), (4.9, 0)):
        assert mean_average_precision(truth(), [[detection(0.9, Box(0, 0, 10, height))]]) == expected


def test_labels_that_do_not_occur_do_not_count():
    assert mean_average_precision(truth(), [[detection(0.9), detection(0.9, label="lorry")]]) == 1
    assert mean_average_precision(truth(), [[]]) == 0
