"""Cut-outs of things that carry no label, so that the models learn what to leave alone."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from training.drawings import Colour, Pen, Sprite, jitter, pick, shade, tinted, worker


def _box(rng: np.random.Generator, height_px: int) -> Image.Image:
    width = rng.uniform(0.6, 2.2)
    pen, colour = Pen(width, height_px), _plain_colour(rng)
    pen.rounded(0, 0, width, 1, rng.uniform(0, 0.2), colour)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0, width * 0.8), rng.uniform(0, 0.8)
        pen.rounded(x, y, x + rng.uniform(0.05, 0.4), y + rng.uniform(0.05, 0.3), 0.02, _plain_colour(rng))
    return pen.image


def _drum(rng: np.random.Generator, height_px: int) -> Image.Image:
    pen, colour = Pen(0.66, height_px), _plain_colour(rng)
    pen.rounded(0, 0.03, 0.66, 0.97, 0.06, colour)
    for y in (0.3, 0.62):
        pen.line([(0.02, y), (0.64, y)], 0.025, tinted(colour, 0.7))
    pen.ellipse(0.0, 0.0, 0.66, 0.16, tinted(colour, 1.15))
    return shade(rng, pen.image, 0.45)


def _blob(rng: np.random.Generator, height_px: int) -> Image.Image:
    width = rng.uniform(0.7, 1.6)
    pen, corners = Pen(width, height_px), int(rng.integers(3, 10))
    angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
    radii = rng.uniform(0.2, 0.5, corners)
    points = [(width / 2 + width * r * math.cos(a), 0.5 + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]
    pen.polygon(points, _plain_colour(rng))
    return pen.image


def _ball(rng: np.random.Generator, height_px: int) -> Image.Image:
    pen = Pen(1.0, height_px)
    pen.ellipse(0.01, 0.01, 0.99, 0.99, _plain_colour(rng))
    return shade(rng, pen.image, 0.5)


def _bar(rng: np.random.Generator, height_px: int) -> Image.Image:
    width = rng.uniform(0.04, 0.16)
    pen = Pen(width, height_px)
    pen.rounded(0, 0, width, 1, 0.01, _plain_colour(rng))
    return shade(rng, pen.image, 0.3)


def _crate(rng: np.random.Generator, height_px: int) -> Image.Image:
    width = rng.uniform(0.9, 1.6)
    pen, wood = Pen(width, height_px), pick(rng, [(176, 134, 86), (150, 108, 66), (196, 160, 112)])
    pen.rounded(0, 0, width, 1, 0.01, tinted(wood, 0.6))
    planks = int(rng.integers(3, 6))
    for i in range(planks):
        pen.rounded(0.02, (i + 0.08) / planks, width - 0.02, (i + 0.92) / planks, 0.01, jitter(rng, wood, 10))
    for x in (0.06, width - 0.16):
        pen.rounded(x, 0.01, x + 0.1, 0.99, 0.01, jitter(rng, wood, 14))
    return pen.image


def _plain_colour(rng: np.random.Generator) -> Colour:
    """Any colour; often the very oranges, yellows, reds and whites of the labelled things."""
    if rng.random() < 0.45:
        return pick(rng, [(244, 92, 20), (250, 204, 20), (208, 240, 30), (208, 30, 34), (240, 240, 236), (10, 80, 170)])
    r, g, b = (int(c) for c in rng.integers(15, 240, 3))
    return r, g, b


def distractor(rng: np.random.Generator, height_px: int) -> Sprite:
    """Something that carries no label: boxes, drums, balls, bars, crates, blobs, people in plain clothes."""
    kind = rng.choice(["box", "drum", "blob", "ball", "bar", "crate", "worker", "worker"])
    if kind == "worker":
        return worker(rng, height_px, with_vest=False, with_helmet=False)
    draw = {"box": _box, "drum": _drum, "blob": _blob, "ball": _ball, "bar": _bar, "crate": _crate}[str(kind)]
    return Sprite(draw(rng, height_px), (), str(kind))
