"""Pictures of discs, squares and triangles: what the small models are made for."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("disc", "square", "triangle")
SIDE = 96

Shape = tuple[int, float, float, float]  # label, centre, and half of a side, in pixels


def draw(rng: random.Random, most: int) -> tuple[Image.Image, Image.Image, list[Shape]]:
    """A picture with one shape to ``most``, the label of each pixel (0: none), and the shapes."""
    ground = [rng.randint(60, 200) for _ in range(3)]
    picture, mask = Image.new("RGB", (SIDE, SIDE), tuple(ground)), Image.new("L", (SIDE, SIDE))
    shapes: list[Shape] = []
    for _ in range(rng.randint(1, most)):
        label, half = rng.randrange(3), rng.uniform(9, 19)
        x, y = (rng.uniform(half, SIDE - half) for _ in "xy")
        if any(max(abs(x - other[1]), abs(y - other[2])) < half + other[3] for other in shapes):
            continue
        shapes.append((label, x, y, half))
        colour = tuple((each + rng.randint(60, 190)) % 256 for each in ground)
        for page, fill in ((picture, colour), (mask, label + 1)):
            outline(ImageDraw.Draw(page), shapes[-1], fill)
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 8, (SIDE, SIDE, 3))
    noisy = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(noisy), mask, shapes


def outline(page: ImageDraw.ImageDraw, shape: Shape, fill: Any) -> None:
    label, x, y, half = shape
    if label == 2:
        page.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill=fill)
    else:
        (page.ellipse, page.rectangle)[label]((x - half, y - half, x + half, y + half), fill=fill)
