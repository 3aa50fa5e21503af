"""What makes two requests equal, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from app.cache import keys
from app.inference.results import ClassifyOptions, DetectOptions

MODEL, FORM = "sha256:" + "a" * 64, "f" * 16
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def test_equal_requests_have_one_key() -> None:
    assert keys.key(b"picture", ClassifyOptions(3), MODEL, FORM) == keys.key(
        b"picture", ClassifyOptions(3), MODEL, FORM
    )


@pytest.mark.parametrize(
    "other",
    [
        (b"pictura", ClassifyOptions(3), MODEL, FORM),
        (b"picture", ClassifyOptions(4), MODEL, FORM),
        (b"picture", DetectOptions(), MODEL, FORM),
        (b"picture", ClassifyOptions(3), MODEL[:-1] + "b", FORM),
        (b"picture", ClassifyOptions(3), MODEL, FORM[:-1] + "e"),
        (b"picture", ClassifyOptions(3), MODEL + "f", FORM[:-1]),
        (b"", ClassifyOptions(3), MODEL, FORM),
    ],
)
def test_whatever_shapes_the_answer_is_in_the_key(other: tuple[bytes, ClassifyOptions, str, str]) -> None:
    assert keys.key(*other) != keys.key(b"picture", ClassifyOptions(3), MODEL, FORM)


@pytest.mark.parametrize("version", ["0.0.0-other"])
def test_another_release_of_the_program_does_not_find_the_answers(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    before = keys.key(b"picture", ClassifyOptions(), MODEL, FORM)
    monkeypatch.setattr(keys, "__version__", version)
    keys._start.cache_clear()
    after = keys.key(b"picture", ClassifyOptions(), MODEL, FORM)
    keys._start.cache_clear()

    assert before != after


def test_pixels_are_told_apart_by_shape_and_from_bytes() -> None:
    turned = PIXELS.reshape(2, 8, 3)
    found = {keys.key(each, ClassifyOptions(), MODEL, FORM) for each in (PIXELS, turned, PIXELS.tobytes())}

    assert len(found) == 3


def test_pixels_that_lie_apart_in_memory_are_the_same_pixels() -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, ::2] = PIXELS

    assert keys.key(wide[:, ::2], ClassifyOptions(), MODEL, FORM) == keys.key(PIXELS, ClassifyOptions(), MODEL, FORM)
