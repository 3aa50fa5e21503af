"""Masks as COCO's run-length encoding: compared with a plain port of COCO's own code."""

from __future__ import annotations

import numpy as np
import pytest

from app.inference import rle
from app.inference.mask_patches import Patch
from app.inference.results import Box


def by_coco(mask: np.ndarray) -> str:
    """``rleEncode`` and ``rleToString`` of maskApi.c, line by line."""
    counts, value, run = [], 0, 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    counts.append(run)
    text = ""
    for place, count in enumerate(counts):
        rest = count - (counts[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits = rest & 0x1F
            rest >>= 5
            more = rest != -1 if bits & 0x10 else rest != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


def encoded(mask: np.ndarray) -> rle.Rle:
    steps = np.diff(np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]]))
    return rle.from_runs(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), *mask.shape)


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98, 1])
@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 9), (37, 53), (300, 200)])
def test_it_is_cocos_and_can_be_read_again(shape: tuple[int, int], share: float) -> None:
    random = np.random.default_rng(3)
    first, second = (random.random(shape) < share for _ in range(2))

    one, other = encoded(first), encoded(second)

    assert one == {"size": list(shape), "counts": by_coco(first)}
    assert np.array_equal(np.sort(rle.pixels(one)), np.flatnonzero(first.T.ravel()))
    assert rle.area(one) == first.sum()
    union = (first | second).sum()
    assert rle.iou(one, other) == pytest.approx((first & second).sum() / union if union else 0)


@pytest.mark.parametrize("counts", ["", "é", "0", "o", "oooooooooooo0", "~~~", "Q1"])
def test_what_is_no_mask_is_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="of a mask"):
        rle.edges({"size": [8, 8], "counts": counts})


def test_a_patch_is_interpolated_between_cells_and_cut_at_its_box() -> None:
    shares = np.zeros((4, 4), np.uint8)
    shares[:, :2] = 255
    patch = Patch(shares, Box(10, 20, 50, 60), Box(10, 22.4, 50, 60))

    found = np.zeros(100 * 80, bool)
    found[rle.pixels(patch.to_rle(80, 100))] = True

    rows, columns = np.nonzero(found.reshape(80, 100).T)
    # A share falls from cell to cell, and passes the half between the second and the third, 20 pixels in.
    assert (columns.min(), columns.max()) == (10, 29)
    assert (rows.min(), rows.max()) == (22, 59)


def test_what_lies_outside_of_the_image_is_left_out() -> None:
    full = np.full((2, 2), 255, np.uint8)
    for box in (Box(-20, -20, -5, -5), Box(90, 90, 120, 120), Box(5, 5, 5, 5)):
        assert rle.area(Patch(full, box, box).to_rle(40, 40)) == 0
    whole = Box(-40, -40, 80, 80)
    assert rle.area(Patch(full, whole, whole).to_rle(40, 40)) == 1600
