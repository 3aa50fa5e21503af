"""Cut-out pictures of site-safety objects, drawn with a few polygons each. Knows nothing of scenes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from training.textures import fractal_noise

LABELS = ("barrier", "cone", "helmet", "sign", "vest")

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Metres, roughly: what makes a cone beside a person look right in a scene with perspective.
HEIGHT_METRES = {"cone": 0.75, "barrier": 1.05, "sign": 1.9, "helmet": 0.3, "vest": 0.75, "worker": 1.78}


@dataclass(frozen=True)
class Sprite:
    """One cut-out: RGBA pixels and, for each labelled part, the mask (mode L) of the pixels that belong to it."""

    image: Image.Image
    parts: tuple[tuple[str, Image.Image], ...]
    kind: str


class Pen:
    """Draws in units of the picture's height on a transparent sheet of ``width`` × 1."""

    def __init__(self, width: float, height_px: int) -> None:
        self.scale = height_px
        self.image = Image.new("RGBA", (max(4, round(width * height_px)), height_px), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([(x * self.scale, y * self.scale) for x, y in points], fill=(*colour, 255))

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        s = self.scale
        self._draw.ellipse((x0 * s, y0 * s, x1 * s, y1 * s), fill=(*colour, 255))

    def rounded(self, x0: float, y0: float, x1: float, y1: float, radius: float, colour: Colour) -> None:
        s = self.scale
        self._draw.rounded_rectangle((x0 * s, y0 * s, x1 * s, y1 * s), radius * s, fill=(*colour, 255))

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        s = self.scale
        scaled = [(x * s, y * s) for x, y in points]
        self._draw.line(scaled, fill=(*colour, 255), width=max(1, round(width * s)), joint="curve")
        for x, y in points:
            r = width / 2
            self.ellipse(x - r, y - r, x + r, y + r, colour)

    def paste(self, image: Image.Image, x: float, y: float) -> Image.Image:
        """Put another cut-out on this sheet, its top left at (x, y); returns the mask of where it lies."""
        layer = Image.new("RGBA", self.image.size, (0, 0, 0, 0))
        layer.paste(image, (round(x * self.scale), round(y * self.scale)))
        self.image.alpha_composite(layer)
        return layer.getchannel("A")


def jitter(rng: np.random.Generator, colour: Colour, amount: int = 18) -> Colour:
    """The colour, each channel moved by up to ``amount``."""
    r, g, b = (int(np.clip(c + rng.integers(-amount, amount + 1), 0, 255)) for c in colour)
    return r, g, b


def tinted(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor below 1) or lighter."""
    r, g, b = (min(255, int(c * factor)) for c in colour)
    return r, g, b


def pick(rng: np.random.Generator, colours: Sequence[Colour]) -> Colour:
    """One of the colours, slightly moved."""
    return jitter(rng, colours[int(rng.integers(len(colours)))])


def _bow(centre: float, half: float, y: float, sag: float, steps: int = 14) -> list[Point]:
    """The lower half of a flat ellipse, from left to right: the rim of something round seen from above."""
    angles = np.linspace(math.pi, 0, steps)
    return [(centre + half * math.cos(a), y + sag * half * math.sin(a)) for a in angles]


def shade(rng: np.random.Generator, image: Image.Image, roundness: float) -> Image.Image:
    """Light from one side, dirt, and for round things darker flanks. Alpha stays as it is."""
    pixels = np.asarray(image, dtype=np.float32).copy()
    height, width = pixels.shape[:2]
    solid = pixels[..., 3] > 0
    left = np.where(solid.any(1), solid.argmax(1), 0)[:, None]
    right = np.where(solid.any(1), width - solid[:, ::-1].argmax(1), width)[:, None]
    across = (np.arange(width)[None, :] - left) / np.maximum(right - left, 1)
    lit_from = rng.uniform(0.25, 0.75)
    flank = 1.0 - roundness * np.clip(np.abs(across - lit_from) / 0.75, 0, 1) ** 1.6
    slope = (
        1.0 + rng.uniform(-0.1, 0.1) * (across - 0.5) + rng.uniform(-0.12, 0.04) * np.linspace(0, 1, height)[:, None]
    )
    dirt = 1.0 + rng.uniform(0.03, 0.16) * (fractal_noise(rng, width, height, 5) - 0.5)
    pixels[..., :3] *= (flank * slope * dirt)[..., None] * rng.uniform(0.92, 1.06)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGBA")


def _single(kind: str, image: Image.Image) -> Sprite:
    return Sprite(image, ((kind, image.getchannel("A")),), kind)


def cone(rng: np.random.Generator, height_px: int) -> Sprite:
    """A traffic cone with one to three reflecting bands on a square foot."""
    orange = pick(rng, [(244, 92, 20), (236, 70, 24), (250, 120, 20), (226, 60, 40)])
    foot = pick(rng, [(52, 50, 50), (70, 66, 62), orange, (190, 60, 20)])
    width = rng.uniform(0.66, 0.86)
    pen, mid = Pen(width, height_px), width / 2
    top, base, half = rng.uniform(0.035, 0.06), 0.9, rng.uniform(0.22, 0.3)
    lean = rng.uniform(0.03, 0.07)
    pen.polygon([(0.01 + lean, 0.86), (width - lean, 0.86), (width, 0.955), (0.01, 0.955)], foot)
    dark = tinted(foot, 0.62)
    pen.polygon([(0.01, 0.95), (width, 0.95), (width - 0.005, 0.995), (0.015, 0.995)], dark)

    def half_at(y: float) -> float:
        return top + (half - top) * (y - 0.02) / (base - 0.02)

    sag = rng.uniform(0.12, 0.24)
    pen.polygon([(mid - top, 0.03), (mid + top, 0.03), *reversed(_bow(mid, half, base - 0.02, sag))], orange)
    bands = int(rng.choice([1, 2, 2, 2, 3]))
    white = pick(rng, [(240, 240, 236), (226, 228, 230), (250, 246, 220)])
    starts = {1: [0.36], 2: [0.28, 0.56], 3: [0.2, 0.42, 0.64]}[bands]
    thick = rng.uniform(0.1, 0.16)
    for start in starts:
        upper, lower = start, start + thick
        pen.polygon(
            [*_bow(mid, half_at(upper), upper, sag), *reversed(_bow(mid, half_at(lower), lower, sag))],
            white,
        )
    pen.ellipse(mid - top, 0.012, mid + top, 0.05, tinted(orange, 0.75))
    return _single("cone", shade(rng, pen.image, rng.uniform(0.35, 0.55)))


def _striped_board(
    rng: np.random.Generator, width_px: int, height_px: int, first: Colour, second: Colour
) -> Image.Image:
    board = Image.new("RGBA", (width_px, height_px), (*first, 255))
    draw = ImageDraw.Draw(board)
    step = height_px * rng.uniform(0.9, 1.5)
    slant = height_px * rng.uniform(0.7, 1.2) * (1 if rng.random() < 0.5 else -1)
    x = -2 * step - abs(slant)
    while x < width_px + abs(slant):
        draw.polygon([(x, 0), (x + step, 0), (x + step + slant, height_px), (x + slant, height_px)], (*second, 255))
        x += 2 * step
    corners = Image.new("L", board.size, 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, width_px - 1, height_px - 1), height_px * 0.12, fill=255)
    board.putalpha(corners)
    return board


def barrier(rng: np.random.Generator, height_px: int) -> Sprite:
    """A road barrier: striped boards on two posts, at times with amber lamps."""
    width = rng.uniform(1.25, 1.9)
    pen = Pen(width, height_px)
    post = pick(rng, [(70, 72, 78), (235, 120, 30), (200, 200, 196), (40, 42, 46)])
    lamps = rng.random() < 0.4
    top = 0.16 if lamps else 0.0
    inset = rng.uniform(0.1, 0.22) * width
    for x in (inset, width - inset):
        pen.polygon([(x - 0.035, top), (x + 0.035, top), (x + 0.04, 0.97), (x - 0.04, 0.97)], post)
        pen.polygon([(x - 0.13, 1.0), (x + 0.13, 1.0), (x + 0.05, 0.93), (x - 0.05, 0.93)], (48, 46, 46))
    if lamps:
        for x in (inset, width - inset):
            pen.ellipse(x - 0.075, 0.005, x + 0.075, 0.155, (90, 60, 20))
            pen.ellipse(x - 0.06, 0.02, x + 0.06, 0.14, pick(rng, [(255, 178, 40), (250, 150, 20)]))
            pen.ellipse(x - 0.03, 0.04, x + 0.015, 0.085, (255, 232, 170))
    first, second = [
        ((240, 240, 236), (208, 30, 34)),
        ((240, 240, 236), (240, 100, 24)),
        ((244, 200, 30), (34, 32, 30)),
    ][int(rng.choice([0, 0, 1, 1, 2]))]
    boards = int(rng.choice([1, 2, 2, 3]))
    thick = {1: rng.uniform(0.26, 0.36), 2: rng.uniform(0.2, 0.27), 3: rng.uniform(0.14, 0.19)}[boards]
    y = top + 0.02
    for _ in range(boards):
        board = _striped_board(
            rng, pen.image.width, round(thick * height_px), jitter(rng, first, 12), jitter(rng, second)
        )
        pen.paste(board, 0.0, y)
        y += (0.84 - top) / boards
    return _single("barrier", shade(rng, pen.image, rng.uniform(0.0, 0.12)))


def _exclamation(pen: Pen, x: float, y: float, size: float, colour: Colour) -> None:
    pen.polygon(
        [
            (x - 0.09 * size, y - 0.42 * size),
            (x + 0.09 * size, y - 0.42 * size),
            (x + 0.05 * size, y + 0.14 * size),
            (x - 0.05 * size, y + 0.14 * size),
        ],
        colour,
    )
    pen.ellipse(x - 0.085 * size, y + 0.22 * size, x + 0.085 * size, y + 0.39 * size, colour)


def _digger(pen: Pen, x: float, y: float, size: float, colour: Colour) -> None:
    """The bent figure with a shovel of a road-works sign."""

    def at(dx: float, dy: float) -> Point:
        return x + dx * size, y + dy * size

    pen.ellipse(*at(-0.05, -0.42), *at(0.11, -0.26), colour)
    pen.line([at(-0.02, -0.2), at(-0.17, 0.08)], 0.12 * size, colour)
    pen.line([at(-0.17, 0.1), at(-0.06, 0.24), at(-0.12, 0.42)], 0.075 * size, colour)
    pen.line([at(-0.17, 0.1), at(-0.28, 0.42)], 0.075 * size, colour)
    pen.line([at(0.0, -0.18), at(0.1, 0.02), at(0.18, 0.06)], 0.06 * size, colour)
    pen.line([at(-0.02, 0.0), at(0.3, 0.28)], 0.035 * size, colour)
    pen.polygon([at(0.16, 0.42), at(0.46, 0.42), at(0.32, 0.24)], colour)


def _arrow(pen: Pen, x: float, y: float, size: float, colour: Colour) -> None:
    pen.line([(x - 0.3 * size, y), (x + 0.12 * size, y)], 0.14 * size, colour)
    pen.polygon([(x + 0.08 * size, y - 0.24 * size), (x + 0.36 * size, y), (x + 0.08 * size, y + 0.24 * size)], colour)


def _regular(x: float, y: float, radius: float, corners: int, turn: float) -> list[Point]:
    angles = turn + np.arange(corners) * 2 * math.pi / corners
    return [(x + radius * math.sin(a), y - radius * math.cos(a)) for a in angles]


def _plate(rng: np.random.Generator, pen: Pen, x: float, y: float, r: float) -> None:
    black: Colour = jitter(rng, (22, 22, 22), 8)
    white: Colour = jitter(rng, (242, 242, 238), 8)
    yellow = pick(rng, [(250, 200, 20), (252, 214, 40), (246, 180, 10), (250, 140, 20)])
    red = pick(rng, [(200, 24, 30), (214, 30, 36)])
    style = rng.choice(["triangle", "triangle", "red triangle", "diamond", "diamond", "stop", "ban", "duty"])
    figure: Callable[[Pen, float, float, float, Colour], None] = rng.choice(
        np.array([_exclamation, _digger, _digger, _arrow], dtype=object)
    )
    if style in ("triangle", "red triangle"):
        rim, face = (black, yellow) if style == "triangle" else (red, pick(rng, [white, (252, 214, 40)]))
        drop = r * 0.25
        for radius, colour in ((1.24, face), (1.16, rim), (0.88 if rim == black else 0.78, face)):
            pen.polygon(_regular(x, y + drop, r * radius, 3, 0.0), colour)
        figure(pen, x, y + drop * 1.15, r * 0.86, black)
    elif style == "diamond":
        for radius, colour in ((1.0, yellow), (0.92, black), (0.84, yellow)):
            pen.polygon(_regular(x, y, r * radius, 4, 0.0), colour)
        figure(pen, x, y, r * 1.05, black)
    elif style == "stop":
        for radius, colour in ((1.0, white), (0.93, red)):
            pen.polygon(_regular(x, y, r * radius, 8, math.pi / 8), colour)
        pen.rounded(x - 0.62 * r, y - 0.14 * r, x + 0.62 * r, y + 0.14 * r, 0.02 * r, white)
    elif style == "ban":
        pen.ellipse(x - r, y - r, x + r, y + r, red)
        pen.ellipse(x - 0.76 * r, y - 0.76 * r, x + 0.76 * r, y + 0.76 * r, white)
        _digger(pen, x, y, r * 1.1, black)
        pen.line([(x - 0.6 * r, y - 0.6 * r), (x + 0.6 * r, y + 0.6 * r)], 0.17 * r, red)
    else:
        pen.ellipse(x - r, y - r, x + r, y + r, white)
        pen.ellipse(x - 0.94 * r, y - 0.94 * r, x + 0.94 * r, y + 0.94 * r, pick(rng, [(10, 80, 170), (0, 94, 184)]))
        figure(pen, x, y, r * 1.2, white)


def sign(rng: np.random.Generator, height_px: int, pole: bool | None = None) -> Sprite:
    """A warning, prohibition or duty sign; only its plate is the labelled part, a pole is not."""
    pole = bool(rng.random() < 0.45) if pole is None else pole
    plate = rng.uniform(0.36, 0.5) if pole else 1.0
    r, width = plate / 2.08, plate
    pen = Pen(width, height_px)
    if pole:
        grey = pick(rng, [(140, 144, 148), (110, 112, 116), (170, 172, 172)])
        pen.polygon(
            [(width / 2 - 0.016, 0.1), (width / 2 + 0.016, 0.1), (width / 2 + 0.016, 1), (width / 2 - 0.016, 1)], grey
        )
    face = Pen(width, height_px)
    _plate(rng, face, width / 2, plate / 2, r)
    mask = pen.paste(shade(rng, face.image, rng.uniform(0.0, 0.1)), 0, 0)
    return Sprite(pen.image, (("sign", mask),), "sign")


def helmet(rng: np.random.Generator, height_px: int, front: bool | None = None) -> Sprite:
    """A hard hat from the side or the front."""
    colour = pick(
        rng,
        [
            (250, 204, 20),
            (250, 204, 20),
            (244, 244, 240),
            (244, 244, 240),
            (246, 120, 24),
            (30, 90, 190),
            (206, 34, 36),
            (40, 150, 80),
        ],
    )
    front = bool(rng.random() < 0.5) if front is None else front
    width = rng.uniform(1.3, 1.5) if front else rng.uniform(1.5, 1.75)
    pen, brim = Pen(width, height_px), 0.8
    left, right = (0.12, width - 0.12) if front else (0.1, width - 0.3)
    dark = tinted(colour, 0.72)
    darker = tinted(colour, 0.5)
    light = tinted(colour, 1.15)
    angles = np.linspace(math.pi, 0, 40)
    mid, half = (left + right) / 2, (right - left) / 2
    flat = rng.uniform(0.7, 0.95)
    dome = [
        (mid + half * np.sign(math.cos(a)) * abs(math.cos(a)) ** flat, brim + 0.04 - (brim + 0.02) * math.sin(a) ** 0.9)
        for a in angles
    ]
    pen.polygon([(float(x), y) for x, y in dome], colour)
    for offset in (-0.16, 0.0, 0.16) if front else (0.0,):
        spread = offset * half * 2
        ridge = [
            (mid + spread * math.sin(t), brim - (brim - 0.015) * math.sin(t)) for t in np.linspace(0.5, math.pi / 2, 12)
        ]
        if front:
            pen.line(ridge, 0.022, dark)
            pen.line([(x + 0.02, y + 0.005) for x, y in ridge], 0.014, light)
    if not front:
        crest = [
            (mid + half * 0.92 * math.cos(t), brim - (brim - 0.05) * math.sin(t) * 0.99)
            for t in np.linspace(0.5, 2.5, 24)
        ]
        pen.line(crest, 0.03, dark)
        pen.line([(x, y + 0.03) for x, y in crest], 0.02, light)
    pen.line([(left + 0.01, brim - 0.02), (right - 0.01, brim - 0.02)], 0.035, dark)
    if front:
        pen.polygon([*_bow(mid, width / 2 - 0.01, brim, 0.24), (right, brim - 0.05), (left, brim - 0.05)], colour)
        pen.polygon(
            [
                *_bow(mid, width / 2 - 0.01, brim + 0.02, 0.23),
                *reversed(_bow(mid, width / 2 - 0.06, brim + 0.02, 0.16)),
            ],
            darker,
        )
    else:
        pen.polygon(
            [
                (left - 0.06, brim - 0.05),
                (right, brim - 0.06),
                (width - 0.01, brim + 0.06),
                (width - 0.05, brim + 0.11),
                (left - 0.02, brim + 0.09),
            ],
            colour,
        )
        pen.polygon(
            [(left - 0.04, brim + 0.06), (width - 0.03, brim + 0.06), (width - 0.06, brim + 0.12), (left, brim + 0.11)],
            darker,
        )
    if rng.random() < 0.35:
        pen.ellipse(
            mid - 0.09, brim - 0.36, mid + 0.09, brim - 0.18, pick(rng, [(240, 240, 240), (30, 60, 120), (30, 30, 30)])
        )
    image = _gloss(pen.image, mid - half * rng.uniform(0.2, 0.5), brim * rng.uniform(0.3, 0.45), half * 0.4)
    return _single("helmet", shade(rng, image, rng.uniform(0.25, 0.4)))


def _gloss(image: Image.Image, x: float, y: float, radius: float) -> Image.Image:
    """A soft reflection of the sky at (x, y), in units of the height."""
    s = image.height
    spot = Image.new("L", image.size, 0)
    ImageDraw.Draw(spot).ellipse(
        ((x - radius) * s, (y - radius * 0.6) * s, (x + radius) * s, (y + radius * 0.6) * s), fill=150
    )
    spot = spot.filter(ImageFilter.GaussianBlur(radius * s * 0.45))
    alpha = image.getchannel("A")
    lit = Image.composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image, spot)
    lit.putalpha(alpha)
    return lit


def vest(rng: np.random.Generator, height_px: int) -> Sprite:
    """A high-visibility vest with silver bands."""
    lime, orange = (208, 240, 30), (255, 104, 22)
    colour = pick(rng, [lime, lime, (230, 246, 60), orange, orange])
    width = rng.uniform(0.72, 0.86)
    pen, mid = Pen(width, height_px), width / 2
    shoulder, hem = rng.uniform(0.25, 0.31), mid - rng.uniform(0.005, 0.03)
    neck = rng.uniform(0.1, 0.14)
    half_body = [
        (neck, 0.01),
        (shoulder, 0.05),
        (shoulder - 0.025, 0.16),
        (shoulder - 0.005, 0.28),
        (hem - 0.01, 0.36),
        (hem, 0.66),
        (hem, 0.99),
    ]
    outline = [(mid + x, y) for x, y in half_body] + [(mid - x, y) for x, y in reversed(half_body)]
    opening = rng.uniform(0.24, 0.36)
    outline += [(mid - 0.012, opening), (mid + 0.012, opening)]
    pen.polygon(outline, colour)
    mask = pen.image.getchannel("A")
    silver = pick(rng, [(206, 210, 212), (190, 194, 198), (224, 226, 226)])
    border = orange if colour[0] < 240 and rng.random() < 0.4 else tinted(colour, 0.86)
    bands = Pen(width, height_px)
    for y in [0.52, 0.76] if rng.random() < 0.65 else [0.62]:
        sag = rng.uniform(0.0, 0.05)
        for thick, tint in ((0.052, border), (0.034, silver)):
            bands.polygon([*_bow(mid, mid, y - thick, sag), *reversed(_bow(mid, mid, y + thick, sag))], tint)
    if rng.random() < 0.8:
        x = (neck + shoulder) / 2 * 0.98
        for side in (-1, 1):
            bands.line([(mid + side * x, 0.0), (mid + side * (x + 0.01), 0.6)], 0.05, silver)
    bands.image.putalpha(ImageChops.multiply(bands.image.getchannel("A"), mask))
    pen.image.alpha_composite(bands.image)
    seam = tinted(colour, 0.6)
    pen.line([(mid, opening), (mid, 0.985)], 0.012, seam)
    for side in (-1, 1):
        pen.line([(mid + side * neck, 0.015), (mid + side * 0.01, opening)], 0.016, seam)
    return _single("vest", shade(rng, pen.image, rng.uniform(0.2, 0.38)))


SKIN: list[Colour] = [(238, 196, 164), (214, 160, 124), (170, 116, 82), (118, 78, 54), (86, 56, 42)]
CLOTH: list[Colour] = [
    (36, 48, 84),
    (60, 62, 68),
    (96, 100, 108),
    (110, 84, 60),
    (30, 34, 40),
    (70, 90, 120),
    (120, 40, 44),
]


def worker(rng: np.random.Generator, height_px: int, with_vest: bool = True, with_helmet: bool = True) -> Sprite:
    """A standing person; the helmet and the vest, if worn, are the labelled parts. The person is not labelled."""
    width = 0.5
    pen, mid = Pen(width, height_px), width / 2
    skin, shirt, trousers = pick(rng, SKIN), pick(rng, CLOTH), pick(rng, CLOTH)
    boot = pick(rng, [(44, 34, 28), (30, 30, 32), (120, 84, 44)])
    stance = rng.uniform(0.045, 0.075)
    for side in (-1, 1):
        hip, foot = mid + side * 0.042, mid + side * stance
        pen.polygon([(hip - 0.05, 0.5), (hip + 0.05, 0.5), (foot + 0.036, 0.95), (foot - 0.036, 0.95)], trousers)
        pen.rounded(foot - 0.044 + side * 0.006, 0.945, foot + 0.044 + side * 0.012, 0.995, 0.018, boot)
    pen.polygon([(mid - 0.115, 0.19), (mid + 0.115, 0.19), (mid + 0.095, 0.53), (mid - 0.095, 0.53)], shirt)
    pen.rounded(mid - 0.035, 0.13, mid + 0.035, 0.21, 0.02, tinted(skin, 0.82))
    hair = pick(rng, [(40, 28, 20), (20, 18, 18), (120, 84, 44), (160, 150, 140)])
    pen.ellipse(mid - 0.066, 0.015, mid + 0.066, 0.135, hair)
    pen.ellipse(mid - 0.06, 0.032, mid + 0.06, 0.172, skin)
    for side in (-1, 1):
        pen.ellipse(mid + side * 0.024 - 0.007, 0.095, mid + side * 0.024 + 0.007, 0.109, (34, 28, 26))
    pen.line([(mid - 0.016, 0.14), (mid + 0.016, 0.14)], 0.006, tinted(skin, 0.62))
    parts: list[tuple[str, Image.Image]] = []
    if with_vest:
        cut = vest(rng, round(0.37 * height_px)).image
        cut = cut.resize((round(0.262 * height_px), cut.height), Image.Resampling.BILINEAR)
        parts.append(("vest", pen.paste(cut, mid - 0.131, 0.172)))
    for side in (-1, 1):
        swing, bend = rng.uniform(0.0, 0.06), rng.uniform(-0.05, 0.04)
        elbow = (mid + side * (0.145 + swing * 0.5), 0.345)
        hand = (mid + side * (0.15 + swing + bend), 0.475 - abs(bend) * 0.8)
        pen.line([(mid + side * 0.112, 0.215), elbow, hand], 0.05, tinted(shirt, 0.9))
        pen.ellipse(hand[0] - 0.026, hand[1] - 0.022, hand[0] + 0.026, hand[1] + 0.034, skin)
    pen.image = shade(rng, pen.image, 0.08)
    if with_helmet:
        cut = helmet(rng, round(0.135 * height_px), front=True).image
        cut = cut.resize((round(0.178 * height_px), cut.height), Image.Resampling.BILINEAR)
        pen_on = Pen(width, height_px)
        pen_on.image = pen.image
        parts.append(("helmet", pen_on.paste(cut, mid - 0.089, -0.002)))
    return Sprite(pen.image, tuple(parts), "worker")


DRAW: dict[str, Callable[[np.random.Generator, int], Sprite]] = {
    "barrier": barrier,
    "cone": cone,
    "helmet": helmet,
    "sign": sign,
    "vest": vest,
}
