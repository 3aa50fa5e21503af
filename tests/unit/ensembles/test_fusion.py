"""Several answers made into one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ensembles import fusion
from app.inference.results import Box, Detection, Prediction


def found(label: str, score: float, *sides: float) -> Detection:
    return Detection(label, score, Box(*sides))


def test_boxes_that_two_members_saw_become_their_mean_by_score() -> None:
    one, other = [found("cone", 0.9, 0, 0, 10, 10)], [found("cone", 0.3, 2, 0, 12, 10)]

    (fused,) = fusion.fuse_boxes([one, other], 0.5)

    assert (fused.label, fused.score) == ("cone", pytest.approx(0.6))
    assert fused.box == Box(pytest.approx(0.5), 0, pytest.approx(10.5), 10)


def test_what_only_one_of_two_saw_counts_half() -> None:
    (fused,) = fusion.fuse_boxes([[found("cone", 0.8, 0, 0, 10, 10)], []], 0.5)

    assert fused == found("cone", 0.4, 0, 0, 10, 10)


def test_other_labels_and_other_places_stay_apart() -> None:
    answers = [
        [found("cone", 0.9, 0, 0, 10, 10), found("cone", 0.8, 50, 50, 60, 60)],
        [found("vest", 0.7, 0, 0, 10, 10)],
    ]

    assert [(each.label, each.box.x_min) for each in fusion.fuse_boxes(answers, 0.5)] == [
        ("cone", 0),
        ("cone", 50),
        ("vest", 0),
    ]


def test_third_box_is_compared_with_the_fused_one_as_in_the_paper() -> None:
    # The first two become 1 … 11; the third overlaps that by more than half, and the first by less.
    rows = [found("cone", 0.5, 0, 0, 10, 1), found("cone", 0.5, 2, 0, 12, 1), found("cone", 0.4, 3.9, 0, 13.9, 1)]

    fused = fusion.fuse_boxes([[each] for each in rows], 0.5)

    assert rows[0].box.iou(rows[2].box) < 0.5
    assert len(fused) == 1


def test_boxes_of_score_nothing_do_no_harm() -> None:
    (fused,) = fusion.fuse_boxes([[found("cone", 0.0, 0, 0, 10, 10)], [found("cone", 0.0, 2, 0, 12, 10)]], 0.5)

    assert fused == found("cone", 0.0, 1, 0, 11, 10)


def test_suppression_keeps_the_best_as_it_is() -> None:
    answers = [[found("cone", 0.6, 0, 0, 10, 10)], [found("cone", 0.9, 1, 0, 11, 10), found("vest", 0.2, 1, 0, 11, 10)]]

    assert fusion.suppress_boxes(answers, 0.5) == [found("cone", 0.9, 1, 0, 11, 10), found("vest", 0.2, 1, 0, 11, 10)]


def test_labels_have_the_mean_of_all_members_and_what_one_does_not_name_is_0() -> None:
    answers = [
        [Prediction("cone", 0.8), Prediction("vest", 0.2)],
        [Prediction("vest", 0.6), Prediction("sign", 0.4)],
    ]

    assert [(each.label, pytest.approx(each.score)) for each in fusion.average_labels(answers)] == [
        ("cone", 0.4),
        ("vest", 0.4),
        ("sign", 0.2),
    ]


def plainly_fused(answers: list[list[Detection]], iou: float) -> list[Detection]:
    """As the paper says it, one box after the other; slowly."""
    clusters: list[tuple[Box, list[Detection]]] = []
    for row in sorted((row for answer in answers for row in answer), key=lambda each: each.score, reverse=True):
        ious = [box.iou(row.box) if rows[0].label == row.label else -1.0 for box, rows in clusters]
        best = max(range(len(ious)), key=ious.__getitem__, default=-1)
        if best < 0 or ious[best] <= iou:
            clusters.append((row.box, [row]))
            continue
        rows = [*clusters[best][1], row]
        total = sum(each.score for each in rows)
        sides = [
            sum(getattr(each.box, side) * each.score for each in rows) / total
            for side in ("x_min", "y_min", "x_max", "y_max")
        ]
        clusters[best] = (Box(*sides), rows)
    fused = [
        Detection(
            rows[0].label, sum(r.score for r in rows) / len(rows) * min(len(rows), len(answers)) / len(answers), box
        )
        for box, rows in clusters
    ]
    return sorted(fused, key=lambda each: each.score, reverse=True)


def crowd(seed: int, count: int, spread: float) -> list[Detection]:
    chance = random.Random(seed)  # noqa: S311 - the same each time
    return [
        found(chance.choice(["cone", "vest"]), chance.uniform(0.01, 1), x, y, x + chance.random() * 40, y + 30)
        for x, y in ((chance.random() * spread, chance.random() * spread) for _ in range(count))
    ]


@pytest.mark.parametrize("spread", [1000, 100, 1])
def test_many_boxes_are_merged_as_one_after_the_other_would_be(spread: float) -> None:
    answers = [crowd(seed, 60, spread) for seed in range(3)]
    fused, plain = fusion.fuse_boxes(answers, 0.4), plainly_fused(answers, 0.4)

    assert [(each.label, each.score) for each in fused] == [(each.label, pytest.approx(each.score)) for each in plain]
    assert [each.box.x_min for each in fused] == [pytest.approx(each.box.x_min) for each in plain]


@pytest.mark.parametrize("merge", [fusion.fuse_boxes, fusion.suppress_boxes])
def test_time_does_not_grow_with_the_square_of_the_boxes(merge: Callable[..., list[Detection]]) -> None:
    """Three members of a thousand boxes, of which none fits another, took 4 s; the bound is for a busy machine."""
    answers = [crowd(seed, 1000, 1e6) for seed in range(3)]
    began = time.thread_time()

    assert len(merge(answers, 0.5)) == 3000
    assert time.thread_time() - began < 1.0


def test_no_more_boxes_are_looked_at_than_the_best() -> None:
    answers = [crowd(seed, 1000, 1e6) for seed in range(9)]
    kept = fusion.suppress_boxes(answers, 0.5)

    assert len(kept) == fusion.MAX_BOXES
    assert kept[-1].score == sorted((row.score for answer in answers for row in answer), reverse=True)[len(kept) - 1]


SIDES = st.floats(0, 100)
ROWS = st.lists(
    st.builds(
        lambda label, score, x, y, width, height: found(label, score, x, y, x + width, y + height),
        st.sampled_from(["cone", "vest"]),
        st.floats(0, 1),
        *(SIDES,) * 4,
    ),
    max_size=6,
)


@given(st.lists(ROWS, min_size=1, max_size=4), st.floats(0, 1))
def test_merged_boxes_lie_within_what_was_seen_and_are_sorted(answers: list[list[Detection]], iou: float) -> None:
    boxes = [row.box for answer in answers for row in answer]
    for merge in (fusion.fuse_boxes, fusion.suppress_boxes):
        merged = merge(answers, iou)

        assert len(merged) <= len(boxes)
        assert [each.score for each in merged] == sorted((each.score for each in merged), reverse=True)
        for each in merged:
            assert 0 <= each.score <= 1.000001
            assert each.box.x_min >= min(box.x_min for box in boxes) - 1e-6
            assert each.box.x_max <= max(box.x_max for box in boxes) + 1e-6
