"""Running summaries of what comes in, against a reference: tell a change, and only a change."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from app.engine import drift
from app.engine.drift import Histogram, Summary

LABELS = ("cone", "helmet", "vest")


def photograph(light: int, random: np.random.Generator) -> np.ndarray:
    noise = random.integers(-20, 21, (48, 64, 3))
    return np.clip(light + noise, 0, 255).astype(np.uint8)


def fed(
    count: int,
    *,
    light: int = 120,
    size: tuple[int, int] = (1280, 853),
    mix: Sequence[float] = (0.5, 0.3, 0.2),
    score: float = 0.8,
    seed: int = 1,
    growth: float = drift.GROWTH,
) -> Summary:
    """A summary of so many images."""
    random, summary = np.random.default_rng(seed), Summary(LABELS, growth)
    for _ in range(count):
        label = LABELS[random.choice(3, p=mix)]
        brightness = int(random.normal(light, 25))
        answered = float(np.clip(random.normal(score, 0.1), 0, 0.999))
        summary.note(photograph(brightness, random), size, [label], answered)
    return summary


def drifted(now: Summary, reference: Summary) -> set[str]:
    return {name for name, row in now.to_dict(reference)["figures"].items() if row["is_drifted"]}


def test_the_index_is_that_of_the_formula() -> None:
    now, then = Histogram([30.0, 70.0], squares=100.0), Histogram([50.0, 50.0], squares=100.0)
    a, e = (30.5 / 101, 70.5 / 101), (50.5 / 101, 50.5 / 101)

    expected = sum((x - y) * math.log(x / y) for x, y in zip(a, e, strict=True))

    assert drift.psi(now, then) == pytest.approx(expected)
    assert drift.psi(now, now) == 0
    assert drift.by_chance(now, then) == pytest.approx(0.02)


def test_the_same_kind_of_images_does_not_drift() -> None:
    for seed in range(5):
        assert drifted(fed(600, seed=seed + 10), fed(200, seed=seed, growth=1.0)) == set()


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        ({"light": 60}, "brightness"),
        ({"size": (320, 240)}, "size"),
        ({"mix": (0.05, 0.15, 0.8)}, "labels"),
        ({"score": 0.45}, "score"),
    ],
)
def test_each_change_is_seen_where_it_is(change: dict[str, object], figure: str) -> None:
    assert drifted(fed(600, **change), fed(200, seed=2, growth=1.0)) == {figure}  # type: ignore[arg-type]


def test_what_is_long_past_is_forgotten() -> None:
    summary, random = fed(3000, light=60), np.random.default_rng(3)
    for _ in range(3000):
        summary.note(photograph(int(random.normal(120, 25)), random), (1280, 853), ["cone"], 0.8)

    assert "brightness" not in drifted(summary, fed(200, growth=1.0))


def test_few_images_say_nothing() -> None:
    row = fed(20, light=10).to_dict(fed(200, growth=1.0))["figures"]["brightness"]

    assert (row["psi"], row["is_drifted"]) == (None, False)
    assert row["mean"] < 40


def test_without_a_reference_there_are_means_alone() -> None:
    found = fed(100).to_dict(None)

    assert found["reference_images"] == 0
    assert found["figures"]["size"]["mean"] == pytest.approx(1.0918, abs=1e-3)
    assert all(row["psi"] is None for row in found["figures"].values())


def test_weights_stay_finite_for_ever() -> None:
    summary = Summary(LABELS, growth=1e30)
    for number in range(50):
        summary.note(np.full((8, 8, 3), 200, np.uint8), None, *((["cone"], 0.9) if number % 2 else ([], 0.0)))

    counted = [each.size for name, each in summary.histograms.items() if name != "size"]
    assert all(math.isfinite(each) and each > 0 for each in counted)


def test_a_broken_answer_is_not_counted() -> None:
    summary = Summary(LABELS)

    summary.note(np.zeros((4, 4, 3), np.uint8), None, ["cone"], math.nan)

    assert summary.images == 0


def test_every_object_of_a_picture_counts_for_the_mix_and_nothing_found_does_too() -> None:
    summary, image = Summary(LABELS, growth=1.0), np.zeros((4, 4, 3), np.uint8)
    summary.note(image, None, ["cone", "vest"], 0.9)
    summary.note(image, None, [], 0.0)

    assert summary.histograms["labels"].counts == [1, 0, 1, 1]
    assert summary.histograms["score"].counts[0] == 1


def test_brightness_of_a_sample_is_that_of_the_whole() -> None:
    image = np.random.default_rng(4).integers(0, 256, (320, 480, 3), np.uint8)

    assert drift.brightness(image) == pytest.approx(image.mean(), abs=12)
    assert drift.brightness(np.full((1, 3, 3), 7, np.uint8)) == 7


def test_a_reference_is_kept_as_it_was() -> None:
    made = fed(120, growth=1.0)

    again = drift.from_json(LABELS, made.to_json())

    assert again.to_json() == made.to_json()
    with pytest.raises(ValueError, match="labels has 4 bins, expected 2"):
        drift.from_json(("one",), made.to_json())
