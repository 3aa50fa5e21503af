"""Noise and what it makes: the grounds, walls and skies that scenes stand on."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Pixels = np.ndarray  # height × width × 3, float32, 0 … 255


def fractal_noise(
    rng: np.random.Generator, width: int, height: int, octaves: int = 6, aspect: float = 1.0
) -> np.ndarray:
    """Value noise of several octaves in [0, 1], ``height`` × ``width``, float32.

    Each octave is a small field of random values scaled up smoothly (value noise; Ebert and others, Texturing and
    Modeling, chapter 2). ``aspect`` above 1 stretches it sideways, as ground seen at a low angle is.
    """
    total = np.zeros((height, width), dtype=np.float32)
    weight, amplitude = 0.0, 1.0
    for octave in range(octaves):
        rows = min(height, 2 + 2**octave)
        columns = max(2, min(width, round(rows * width / height / aspect)))
        field = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
        total += amplitude * np.asarray(field.resize((width, height), Image.Resampling.BICUBIC))
        weight, amplitude = weight + amplitude, amplitude * 0.62
    return np.clip(total / weight, 0, 1)


def blend(first: np.ndarray, second: np.ndarray, amount: np.ndarray) -> Pixels:
    """Mix two colours (3,) by ``amount`` (height × width, 0 … 1)."""
    return (first + (second - first) * amount[..., None]).astype(np.float32)


def _colour(rng: np.random.Generator, low: int = 30, high: int = 225, greyish: float = 0.6) -> np.ndarray:
    colour = rng.uniform(low, high, 3)
    return colour + (colour.mean() - colour) * greyish * rng.random()


def plain(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Two colours mixed by noise: concrete, plaster, soil, leaves."""
    aspect = float(rng.choice([1, 1, 2, 4]))
    noise = fractal_noise(rng, width, height, int(rng.integers(4, 8)), aspect)
    noise = np.clip((noise - 0.5) * rng.uniform(0.8, 3.0) + 0.5, 0, 1)
    return blend(_colour(rng), _colour(rng), noise)


def bricks(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """A brick or block wall."""
    mortar, brick = _colour(rng, 110, 210), _colour(rng, 60, 200, 0.3)
    rows = max(4, height // int(rng.integers(9, 34)))
    tall = height / rows
    long = tall * rng.uniform(1.6, 3.0)
    columns = int(width / long) + 3
    tints = brick + rng.normal(0, rng.uniform(3, 14), (rows + 1, columns, 1)) + rng.normal(0, 4, (rows + 1, columns, 3))
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    row = (y / tall).astype(int)
    shifted = x + (row % 2) * long / 2
    column = (shifted / long).astype(int)
    wall = tints[row, column]
    gap = max(1.0, tall * 0.1)
    joints = ((y % tall) < gap) | ((shifted % long) < gap)
    wall = np.where(joints[..., None], mortar, wall)
    return (wall * (0.86 + 0.28 * fractal_noise(rng, width, height, 6)[..., None])).astype(np.float32)


def clutter(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Rectangles, lines and wedges in any colour: nothing in particular, but full of edges."""
    image = Image.fromarray(np.clip(plain(rng, width, height), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 26))):
        colour = tuple(int(c) for c in _colour(rng, 10, 245, 0.5))
        x, y = rng.uniform(-0.1, 1.0) * width, rng.uniform(-0.1, 1.0) * height
        w, h = rng.uniform(0.02, 0.45) * width, rng.uniform(0.02, 0.45) * height
        shape = rng.integers(4)
        if shape == 0:
            draw.rectangle((x, y, x + w, y + h), fill=colour)
        elif shape == 1:
            draw.line((x, y, x + w, y + h * rng.choice([-1, 1])), fill=colour, width=int(rng.integers(1, 9)))
        elif shape == 2:
            draw.polygon([(x, y), (x + w, y + h * rng.uniform(0, 1)), (x + w * rng.uniform(0, 1), y + h)], fill=colour)
        else:
            draw.ellipse((x, y, x + w, y + h), outline=colour, width=int(rng.integers(1, 7)))
    if rng.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3.0) * width / 320))
    return np.asarray(image, dtype=np.float32)


def site(rng: np.random.Generator, width: int, height: int, horizon: float, muted: bool = False) -> Pixels:
    """A building site in the open: sky, a skyline, a fence at times, and ground that runs to the viewer.

    ``horizon`` is the height of the horizon as a share of the picture's, from the top. ``muted``: buildings in the
    colours that buildings have.
    """
    line = int(horizon * height)
    image = np.empty((height, width, 3), dtype=np.float32)
    image[:line] = _sky(rng, width, line)
    image[line:] = _ground(rng, width, height - line)
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    _skyline(rng, picture, line, muted)
    if rng.random() < 0.5:
        _fence(rng, picture, line)
    return np.asarray(picture, dtype=np.float32)


def _sky(rng: np.random.Generator, width: int, height: int) -> Pixels:
    top, low = [
        ((92, 146, 206), (206, 224, 236)),
        ((150, 166, 184), (214, 216, 216)),
        ((70, 118, 190), (238, 214, 180)),
        ((176, 182, 188), (222, 222, 218)),
    ][int(rng.integers(4))]
    down = np.linspace(0, 1, max(height, 1), dtype=np.float32)[:, None].repeat(width, 1)
    sky = blend(np.array(top), np.array(low), down)
    clouds = np.clip((fractal_noise(rng, width, max(height, 2), 6, 2.0)[:height] - rng.uniform(0.45, 0.62)) * 4, 0, 1)
    return sky + (246 - sky) * (clouds * rng.uniform(0.3, 0.9))[..., None]


def _ground(rng: np.random.Generator, width: int, height: int) -> Pixels:
    first = np.array(
        [(128, 126, 124), (150, 128, 100), (104, 106, 110), (164, 150, 126), (120, 124, 84)][int(rng.integers(5))]
    )
    first = first + rng.normal(0, 8, 3)
    coarse = fractal_noise(rng, width, height, 6, 4.0)
    fine = rng.normal(0, 1, (height, width)).astype(np.float32)
    near = np.linspace(0.25, 1, height, dtype=np.float32)[:, None]
    ground = first * (0.72 + 0.5 * coarse[..., None]) + (fine * near * rng.uniform(2, 8))[..., None]
    if rng.random() < 0.5:
        _lane(rng, ground)
    return ground.astype(np.float32)


def _lane(rng: np.random.Generator, ground: Pixels) -> None:
    """Paint a lane marking that runs towards the viewer."""
    height, width = ground.shape[:2]
    far, near = rng.uniform(0.3, 0.7) * width, rng.uniform(-0.3, 1.3) * width
    t = np.linspace(0, 1, height)[:, None]
    centre = far + (near - far) * t
    half = (0.002 + 0.016 * t) * width
    dash = (np.sqrt(t + 0.02) * rng.uniform(5, 9)) % 1 < (0.6 if rng.random() < 0.6 else 1.0)
    paint = (np.abs(np.arange(width)[None, :] - centre) < half) & dash
    ground[paint] = ground[paint] * 0.25 + np.array([226, 224, 210]) * 0.72


def _skyline(rng: np.random.Generator, picture: Image.Image, line: int, muted: bool) -> None:
    draw, (width, _) = ImageDraw.Draw(picture), picture.size
    x = -rng.uniform(0, 0.1) * width
    while x < width:
        w, h = rng.uniform(0.07, 0.28) * width, rng.uniform(0.12, 0.85) * line
        if rng.random() < 0.8:
            _building(rng, draw, (x, line - h, x + w, line), muted)
        x += w * rng.uniform(0.75, 1.5)
    if rng.random() < 0.45:
        _crane(rng, draw, width, line)


def _building(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], muted: bool
) -> None:
    x0, y0, x1, y1 = box
    wall = _colour(rng, 100, 200, 0.8)
    if muted:
        wall = wall.mean() + (wall - wall.mean()) * 0.3 + np.array([6, 1, -5])
    draw.rectangle(box, fill=tuple(int(c) for c in wall))
    pane = tuple(int(c) for c in wall * rng.uniform(0.45, 0.85))
    rows, columns = int(rng.integers(2, 7)), int(rng.integers(2, 6))
    cell_w, cell_h = (x1 - x0) / columns, (y1 - y0) / rows
    for row in range(rows):
        for column in range(columns):
            left, top = x0 + (column + 0.25) * cell_w, y0 + (row + 0.25) * cell_h
            draw.rectangle((left, top, left + cell_w * 0.5, top + cell_h * 0.5), fill=pane)


def _crane(rng: np.random.Generator, draw: ImageDraw.ImageDraw, width: int, line: int) -> None:
    colour = (206, 160, 40) if rng.random() < 0.5 else (120, 120, 124)
    x, top, thick = rng.uniform(0.15, 0.85) * width, 0.12 * line, max(1, width // 200)
    reach = rng.choice([-1, 1]) * rng.uniform(0.18, 0.35) * width
    draw.line((x, line, x, top * 0.4), fill=colour, width=thick * 2)
    draw.line((x - reach * 0.35, top, x + reach, top), fill=colour, width=thick * 2)
    draw.line((x, top * 0.4, x + reach * 0.8, top), fill=colour, width=thick)
    draw.line((x, top * 0.4, x - reach * 0.33, top), fill=colour, width=thick)
    draw.line((x + reach * 0.6, top, x + reach * 0.6, top + line * 0.35), fill=(70, 70, 72), width=max(1, thick // 2))


def _fence(rng: np.random.Generator, picture: Image.Image, line: int) -> None:
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    top, foot = line - 0.07 * height, line + 0.05 * height
    colour = tuple(int(c) for c in _colour(rng, 90, 190, 0.9))
    for y in (top, foot - 0.02 * height):
        draw.line((0, y, width, y), fill=colour, width=max(1, height // 240))
    step = max(3, int(width * rng.uniform(0.012, 0.04)))
    for x in range(int(rng.integers(step)), width, step):
        draw.line((x, top, x, foot), fill=colour, width=max(1, width // 480))
