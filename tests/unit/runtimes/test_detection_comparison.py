"""Two answers of a detector: what rounding alone may change is no difference, what callers would see is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.runtimes.build import agreement
from app.runtimes.importing.detection_comparison import apart

ENOUGH = 0.01
PIXELS = 640
SUPPRESSED = {"head": "yolo-nms"}
TORCHVISION = {"head": "torchvision", "first_label": 1}
DETR = {"head": "detr", "is_softmax": False}


@pytest.fixture
def rows() -> np.ndarray:
    """Corners, score and label of 20 objects; float32 [1, 20, 6], best first."""
    random = np.random.default_rng(3)
    corners = random.uniform(0, PIXELS, (20, 4))
    scores = np.sort(random.uniform(0.2, 0.9, 20))[::-1]
    return np.column_stack([corners, scores, random.integers(0, 3, 20)]).astype(np.float32)[None]


def listed(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[0, :, :4], rows[0, :, 5].astype(np.int64) + 1, rows[0, :, 4]]


def queries(rows: np.ndarray) -> list[np.ndarray]:
    logits = np.full((1, rows.shape[1], 200), -9.0)
    for place, row in enumerate(rows[0]):
        logits[0, place, int(row[5])] = np.log(row[4] / (1 - row[4]))
    return [logits, rows[..., :4] / PIXELS]


FORMS: list[tuple[dict[str, Any], Any]] = [
    (SUPPRESSED, lambda rows: [rows]),
    (TORCHVISION, listed),
    (DETR, queries),
]


@pytest.mark.parametrize(("options", "form"), FORMS)
def test_another_order_is_no_difference(rows: np.ndarray, options: dict[str, Any], form: Any) -> None:
    turned = rows[:, ::-1].copy()

    assert apart(options, form(rows), form(turned)) < 1e-6


@pytest.mark.parametrize(("options", "form"), FORMS)
@pytest.mark.parametrize(("column", "by"), [(0, 40), (4, 0.15), (5, 1), (5, 150)])
def test_a_moved_box_another_score_and_another_label_are(
    rows: np.ndarray, options: dict[str, Any], form: Any, column: int, by: float
) -> None:
    rows[0, 7, 5] = 0
    changed = rows.copy()
    changed[0, 7, column] += by

    assert apart(options, form(rows), form(changed)) > ENOUGH
    assert apart(options, form(changed), form(rows)) > ENOUGH


def test_which_of_the_lowest_is_left_out_does_not_count(rows: np.ndarray) -> None:
    changed = rows.copy()
    changed[0, -1, :4] = 5, 6, 7, 8

    assert apart(SUPPRESSED, [rows], [changed]) < 1e-6


def test_an_object_that_is_lost_counts_by_its_score(rows: np.ndarray) -> None:
    changed = rows.copy()
    changed[0, 0] = 0

    assert apart(SUPPRESSED, [rows], [changed]) > 0.2
    assert apart(TORCHVISION, listed(rows), listed(rows[:, 1:])) > 0.2
    assert apart(TORCHVISION, listed(rows[:, :0]), listed(rows[:, :1])) > 0.5
    assert apart(TORCHVISION, listed(rows[:, :0]), listed(rows[:, :0])) == 0


@pytest.mark.parametrize("is_by_place", [False, True])
def test_scores_beside_boxes_of_many_pixels_are_not_hidden(is_by_place: bool) -> None:
    places = np.random.default_rng(1).uniform(0, 1, (1, 50, 7)).astype(np.float32)
    places[..., :4] *= PIXELS
    changed = places.copy()
    changed[0, 3, 5] += 0.2
    options = {"head": "yolo", "is_by_place": is_by_place}
    first, second = (each if is_by_place else each.transpose(0, 2, 1) for each in (places, changed))

    assert apart(options, [first], [second]) == pytest.approx(0.2, abs=0.01)
    assert apart(options, [first], [first]) == 0


def test_masks_count_by_their_maps_and_in_lists_by_their_object(rows: np.ndarray) -> None:
    maps = np.zeros((1, 32, 8, 8), np.float32)
    masks = np.zeros((20, 1, 4, 4), np.float32)
    changed = masks.copy()
    changed[3] = 1
    turned = listed(rows[:, ::-1])

    assert apart(SUPPRESSED, [rows, maps], [rows, maps + 0.5]) == 0.5
    assert apart(TORCHVISION, [*listed(rows), changed], [*turned, changed[::-1]]) < 1e-6
    assert apart(TORCHVISION, [*listed(rows), changed], [*listed(rows), masks]) > ENOUGH


def test_nan_in_what_would_serve_is_a_difference(rows: np.ndarray) -> None:
    changed = rows.copy()
    changed[0, 2, 1] = np.nan

    assert apart(SUPPRESSED, [rows], [changed]) == np.inf


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1.0, np.nan], [1.0, np.nan], 0),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, np.inf], [1.5, np.inf], 0.5),
        ([np.inf], [-np.inf], np.inf),
        ([10.0], [11.0], 0.1),
        ([1.0], [1.0, 2.0], np.inf),
        ([], [], 0),
    ],
)
def test_arrays_are_compared_by_their_largest_value(first: list[float], second: list[float], expected: float) -> None:
    assert agreement.of_values(np.array(first), np.array(second)) == pytest.approx(expected)
