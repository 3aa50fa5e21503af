"""From candidates to answers: thresholds and suppression, against plain references."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.inference.results import Box, DetectOptions
from app.runtimes import selection
from app.runtimes.operators import nms, roi_align, torchvision
from app.runtimes.selection import Candidates

LABELS = ("cone", "sign")


def brute_force(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    """Suppression word for word: take the best, drop what overlaps it too much, again."""
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept: list[int] = []
    for i in order:
        if all(Box(*boxes[i]).iou(Box(*boxes[j])) <= threshold for j in kept):
            kept.append(i)
    return kept


@st.composite
def box_sets(draw):
    # Whole numbers, so that both references round alike; repeated corners and scores are likely, and wanted.
    count = draw(st.integers(0, 14))
    corner, side = st.integers(0, 24), st.integers(0, 16)
    rows = [(draw(corner), draw(corner), draw(side), draw(side)) for _ in range(count)]
    boxes = [[float(x), float(y), float(x + w), float(y + h)] for x, y, w, h in rows]
    return boxes, [draw(st.integers(0, 9)) / 10 for _ in range(count)]


def as_arrays(boxes, scores):
    return np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(scores, dtype=np.float32)


@given(box_sets(), st.sampled_from([0.0, 0.31, 0.57, 0.83, 1.0]))
def test_suppress_agrees_with_brute_force(drawn, threshold):
    boxes, scores = drawn

    kept = selection.suppress(*as_arrays(boxes, scores), threshold)

    assert kept.tolist() == brute_force(boxes, scores, threshold)


@given(box_sets(), st.floats(0, 1))
def test_suppress_keeps_best_and_none_that_overlap(drawn, threshold):
    boxes, scores = drawn

    kept = selection.suppress(*as_arrays(boxes, scores), threshold).tolist()

    assert len(set(kept)) == len(kept)
    assert [scores[i] for i in kept] == sorted((scores[i] for i in kept), reverse=True)
    if boxes:
        assert scores[kept[0]] == max(scores)
    for a in range(len(kept)):
        for b in range(a):
            assert Box(*boxes[kept[a]]).iou(Box(*boxes[kept[b]])) <= threshold + 1e-6


@given(box_sets(), st.floats(0, 0.99))
def test_suppress_again_changes_nothing(drawn, threshold):
    boxes, scores = as_arrays(*drawn)
    kept = selection.suppress(boxes, scores, threshold)

    again = selection.suppress(boxes[kept], scores[kept], threshold)

    assert again.tolist() == list(range(len(kept)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_torchvision_reaches_our_nms_through_its_own_door(dtype):
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]], dtype=dtype)
    scores = torch.tensor([0.5, 0.9, 0.7], dtype=dtype)

    for call in (nms, torchvision.ops.nms, torchvision.ops.boxes.nms, torch.ops.torchvision.nms):
        assert call(boxes, scores, 0.5).tolist() == [1, 2]
    assert torchvision.ops.batched_nms(boxes, scores, torch.tensor([0, 1, 0]), 0.5).tolist() == [1, 2, 0]


def test_nms_refuses_shapes_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"got \[2, 4\] and \[3\]"):
        nms(torch.zeros(2, 4), torch.zeros(3), 0.5)


def candidates() -> Candidates:
    """Two cones that overlap with an IoU of 0.6, a sign on top of them, a small cone apart."""
    boxes = [[0, 0, 10, 8], [0, 2, 10, 10], [0, 0, 10, 10], [50, 50, 54, 53]]
    return Candidates(
        np.array(boxes, dtype=np.float32), np.array([0.9, 0.8, 0.7, 0.04], dtype=np.float32), np.array([0, 0, 1, 0])
    )


def scores_of(options: DetectOptions) -> list[float]:
    return [round(d.score, 2) for d in selection.select(candidates(), LABELS, options)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (DetectOptions(score_threshold=0.5), [0.9, 0.7]),
        (DetectOptions(score_threshold=0.0), [0.9, 0.7, 0.04]),
        (DetectOptions(score_threshold=0.0, iou_threshold=0.61), [0.9, 0.8, 0.7, 0.04]),
        (DetectOptions(score_threshold=0.5, iou_threshold=1.0), [0.9, 0.8, 0.7]),
        (DetectOptions(score_threshold=0.5, iou_threshold=0.0), [0.9, 0.7]),
        (DetectOptions(score_threshold=0.0, max_results=1), [0.9]),
        (DetectOptions(score_threshold=0.0, max_results=0), []),
        (DetectOptions(score_threshold=0.0, min_width=4), [0.9, 0.7, 0.04]),
        (DetectOptions(score_threshold=0.0, min_width=4.5), [0.9, 0.7]),
        (DetectOptions(score_threshold=0.0, min_height=9), [0.7]),
        (DetectOptions(score_threshold=1.0), []),
    ],
)
def test_each_option_is_honoured(options, expected):
    assert scores_of(options) == expected


def test_score_equal_to_the_threshold_is_kept():
    found = Candidates(np.zeros((1, 4), np.float32), np.array([0.5], np.float32), np.array([0]))

    assert len(selection.select(found, LABELS, DetectOptions(score_threshold=0.5))) == 1


def test_background_is_never_an_answer():
    found = Candidates(np.zeros((2, 4), np.float32), np.array([0.9, 0.8], np.float32), np.array([0, 1]))

    answer = selection.select(found, (selection.BACKGROUND_LABEL, "cone"), DetectOptions(score_threshold=0))

    assert [d.label for d in answer] == ["cone"]


def test_nothing_found_is_an_empty_answer():
    nothing = Candidates(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    assert selection.select(nothing, LABELS, DetectOptions(score_threshold=0)) == []


@pytest.mark.parametrize("aligned", [False, True])
def test_roi_align_agrees_with_torchvisions_own(aligned):
    maps = torch.rand(2, 3, 17, 23, generator=torch.Generator().manual_seed(1))
    boxes = [
        torch.tensor([[0.0, 0, 90, 60], [10, 20, 11, 21], [40.5, 3.25, 88, 67]]),
        torch.tensor([[5.0, 6, 70, 50]]),
    ]
    regions = torch.cat([torch.nn.functional.pad(b, (1, 0), value=float(i)) for i, b in enumerate(boxes)])
    reference = inspect.unwrap(torchvision.ops.roi_align.__globals__["_roi_align"])
    expected = reference(maps, regions, 0.25, 7, 7, 2, aligned)

    pooled = roi_align(maps, boxes, (7, 7), 0.25, 2, aligned)

    assert torch.allclose(pooled, expected, atol=1e-5)


def test_roi_align_far_outside_is_nothing():
    assert roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[20.0, 20, 30, 30]])], 2).abs().max() == 0


def test_label_is_filtered_before_the_number_is_cut_off() -> None:
    everything = DetectOptions(score_threshold=0.0, iou_threshold=1.0)
    found = selection.select(candidates(), LABELS, everything)
    signs = [row for row in found if row.label == "sign"]

    one = selection.select(candidates(), LABELS, DetectOptions(0.0, 1.0, 1, label="sign"))

    assert found[0].label == "cone" and one == signs[:1]
    assert selection.select(candidates(), LABELS, DetectOptions(0.0, label="lorry")) == []
