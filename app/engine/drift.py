"""Does what comes in still look like what the model was made for? Running summaries of input and answers, a model each.

Four figures are kept as histograms that forget: brightness of the input, size of the original, labels given, score of
the best one. Each is compared with the same histogram over the model's sample pictures by the population stability
index, PSI = sum over bins of (a - e) * ln(a / e), a and e being the shares now and then (Siddiqi, "Credit Risk
Scorecards", 2006). Chance alone gives about (bins - 1) * (1/n + 1/m) for n and m images (Yurdakul, "Statistical
Properties of Population Stability Index", 2018), so the figure is told beside that one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FIGURES = ("brightness", "size", "labels", "score")
# Half of what a histogram knows is of the last 350 images or so.
MEMORY_IMAGES = 500
GROWTH = 1 + 1 / MEMORY_IMAGES
# Weights grow instead of the past shrinking, which costs one addition an image; far below the largest float.
LARGEST_WEIGHT = 1e120
# So many points in each direction are looked at: the mean of 12 × 12 is as good as that of all for this purpose.
POINTS = 12
BRIGHTNESS_STEP = 32
SIZE_LEAST_BITS, SIZE_MOST_BITS = 14, 26
SCORE_BINS = 10
# Usual limits: below 0.1 nothing has changed, above 0.25 much has. Chance must be left well behind, too.
DRIFTED_PSI = 0.25
DRIFTED_CHANCE = 3.0
# Fewer images say nothing.
LEAST_IMAGES = 50


@dataclass
class Histogram:
    """Counts by bin, each with its weight. ``squares``: the sum of squared weights; ``values``: of weighted values."""

    counts: list[float]
    squares: float = 0.0
    values: float = 0.0

    def add(self, place: int, value: float, weight: float) -> None:
        """Count one."""
        self.counts[place] += weight
        self.squares += weight * weight
        self.values += weight * value

    def scale(self, factor: float) -> None:
        """Make all weights smaller; shares stay."""
        self.counts = [count * factor for count in self.counts]
        self.squares *= factor * factor
        self.values *= factor

    @property
    def size(self) -> float:
        """As many equally weighted ones would be as certain (Kish, 1965)."""
        return sum(self.counts) ** 2 / self.squares if self.squares else 0.0

    @property
    def mean(self) -> float:
        """Of all values; 0 of none."""
        total = sum(self.counts)
        return self.values / total if total else 0.0

    def shares(self) -> list[float]:
        """The share of each bin; half a one in each, so that no bin is empty."""
        total, size = sum(self.counts) or 1.0, self.size
        return [(count / total * size + 0.5) / (size + len(self.counts) / 2) for count in self.counts]


def psi(now: Histogram, then: Histogram) -> float:
    """The population stability index of two histograms with the same bins; 0 where they are alike."""
    return sum((a - e) * math.log(a / e) for a, e in zip(now.shares(), then.shares(), strict=True))


def by_chance(now: Histogram, then: Histogram) -> float:
    """What the index would be about if nothing had changed."""
    if not now.size or not then.size:
        return 0.0
    return (len(now.counts) - 1) * (1 / now.size + 1 / then.size)


class Summary:
    """The four histograms of one model. Thread-safe; one image costs some 10 µs and no look at all of its pixels."""

    def __init__(self, labels: Sequence[str], growth: float = GROWTH) -> None:
        """``growth``: of each image's weight against the one before it; 1 forgets nothing."""
        self._places = {label: place for place, label in enumerate(labels)}
        self._growth = growth
        self._weight = 1.0
        self._lock = threading.Lock()
        self.images = 0
        self.histograms = {
            "brightness": Histogram([0.0] * (256 // BRIGHTNESS_STEP)),
            "size": Histogram([0.0] * ((SIZE_MOST_BITS - SIZE_LEAST_BITS) // 2 + 1)),
            # The last one: nothing was found.
            "labels": Histogram([0.0] * (len(labels) + 1)),
            "score": Histogram([0.0] * SCORE_BINS),
        }

    def note(self, image: np.ndarray, size: tuple[int, int] | None, labels: Sequence[str], score: float) -> None:
        """Count one image (uint8, height × width × 3, as the model got it), the original's width and height, if they
        are known, the labels that were answered and the score of the best one (see ``Task.seen``).
        """
        light = brightness(image)
        if not math.isfinite(score):
            # A broken model's answer; its caller has been told.
            return
        with self._lock:
            weight = self._weight
            self.images += 1
            self.histograms["brightness"].add(min(7, int(light) // BRIGHTNESS_STEP), light, weight)
            if size is not None:
                pixels = size[0] * size[1]
                bits = min(max(pixels.bit_length() - 1, SIZE_LEAST_BITS), SIZE_MOST_BITS)
                self.histograms["size"].add((bits - SIZE_LEAST_BITS) // 2, pixels / 1e6, weight)
            for place in [self._places.get(label, -1) for label in labels] or [-1]:
                self.histograms["labels"].add(place, float(len(labels)), weight)
            self.histograms["score"].add(min(int(score * SCORE_BINS), SCORE_BINS - 1), score, weight)
            self._weight *= self._growth
            if self._weight > LARGEST_WEIGHT:
                for histogram in self.histograms.values():
                    histogram.scale(1 / self._weight)
                self._weight = 1.0

    def count(self, answered: int) -> None:
        """Count answers of which nothing else is known."""
        with self._lock:
            self.images += answered

    def to_dict(self, reference: Summary | None) -> dict[str, Any]:
        """For the status frame: the means, and how far each is from the reference's; none that was never noted."""
        with self._lock:
            known = [name for name in FIGURES if self.histograms[name].size or not self.images]
            figures = {name: self._figure(name, reference) for name in known}
        return {"images": self.images, "reference_images": reference.images if reference else 0, "figures": figures}

    def _figure(self, name: str, reference: Summary | None) -> dict[str, Any]:
        now = self.histograms[name]
        row: dict[str, Any] = {"mean": None if name == "labels" else round(now.mean, 4)}
        if reference is None or now.size < LEAST_IMAGES or not reference.histograms[name].size:
            return {**row, "reference_mean": None, "psi": None, "by_chance": None, "is_drifted": False}
        then = reference.histograms[name]
        found, chance = psi(now, then), by_chance(now, then)
        return {
            **row,
            "reference_mean": None if name == "labels" else round(then.mean, 4),
            "psi": round(found, 4),
            "by_chance": round(chance, 4),
            "is_drifted": found > max(DRIFTED_PSI, DRIFTED_CHANCE * chance),
        }

    def to_json(self) -> dict[str, Any]:
        """To keep a reference."""
        rows = {
            name: [histogram.counts, histogram.squares, histogram.values] for name, histogram in self.histograms.items()
        }
        return {"images": self.images, "histograms": rows}


def from_json(labels: Sequence[str], table: dict[str, Any]) -> Summary:
    """What ``to_json`` made. Raises KeyError, TypeError, ValueError where it is something else."""
    found = Summary(labels, growth=1.0)
    found.images = int(table["images"])
    for name, histogram in found.histograms.items():
        counts, squares, values = table["histograms"][name]
        if len(counts) != len(histogram.counts):
            raise ValueError(f"{name} has {len(counts)} bins, expected {len(histogram.counts)}")
        found.histograms[name] = Histogram([float(count) for count in counts], float(squares), float(values))
    return found


def brightness(image: np.ndarray) -> float:
    """The mean of some points of an image, 0 … 255."""
    height, width = image.shape[:2]
    down, across = max(1, height // POINTS), max(1, width // POINTS)
    return float(image[down // 2 :: down, across // 2 :: across].mean())


@dataclass
class Watch:
    """What is known of one version beside its answers. ``golden``: the last self-test, see ``ModelMonitor``."""

    summary: Summary
    reference: Summary | None = None
    golden: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For the status frame."""
        return {"golden": dict(self.golden), "drift": self.summary.to_dict(self.reference)}
