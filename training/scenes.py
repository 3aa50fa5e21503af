"""Render site-safety scenes with their true boxes: seeded, Pillow and NumPy only, so anybody can make the same ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from app.inference.results import Box
from app.models.manifests import LETTERBOX_GREY
from training import distractors, drawings, textures
from training.drawings import HEIGHT_METRES, LABELS, Sprite

DETECTOR_SIZE_PX = 320
CLASSIFIER_SIZE_PX = 128
ASPECTS = (1.0, 4 / 3, 4 / 3, 3 / 2, 3 / 2, 16 / 9, 3 / 4, 2 / 3, 9 / 16)
# Smaller things are a smear once the scene is 320 pixels wide; nobody could be asked to find them.
SMALLEST_SIDE_PX = 11

KINDS = ("barrier", "cone", "helmet", "sign", "vest", "worker", "worker")


@dataclass(frozen=True)
class Truth:
    """One object that is really there; the box is in pixels of the scene."""

    label: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """Pixels (uint8 RGB, height × width × 3) and what they show."""

    pixels: np.ndarray
    objects: tuple[Truth, ...]


class SpriteLibrary:
    """Cut-outs drawn once and used often; drawing is what takes time."""

    def __init__(self, seed: int, per_kind: int = 40, height_px: int = 288) -> None:
        rng = np.random.default_rng(seed)
        self._sprites = {kind: [drawings.DRAW[kind](rng, height_px) for _ in range(per_kind)] for kind in LABELS}
        self._sprites["worker"] = [_dressed_worker(rng, height_px) for _ in range(per_kind * 2)]
        self._sprites["distractor"] = [distractors.distractor(rng, height_px) for _ in range(per_kind * 2)]

    def take(self, rng: np.random.Generator, kind: str) -> Sprite:
        """One cut-out of this kind, by chance."""
        sprites = self._sprites[kind]
        return sprites[int(rng.integers(len(sprites)))]


def _dressed_worker(rng: np.random.Generator, height_px: int) -> Sprite:
    with_vest, with_helmet = [(True, True), (True, True), (True, False), (False, True)][int(rng.integers(4))]
    return drawings.worker(rng, height_px, with_vest, with_helmet)


def render(rng: np.random.Generator, library: SpriteLibrary, width: int, height: int, objects: int) -> Scene:
    """Render one scene of about ``objects`` labelled things (none when 0; fewer where there is no room)."""
    outdoors = rng.random() < 0.5
    horizon = float(rng.uniform(0.2, 0.5))
    if outdoors:
        background = textures.site(rng, width, height, horizon)
    else:
        background = [textures.plain, textures.bricks, textures.clutter, textures.clutter][int(rng.integers(4))](
            rng, width, height
        )
    stage = Stage(background)
    for _ in range(int(rng.integers(0, 5 if objects else 9))):
        _try_place(rng, stage, library.take(rng, "distractor"), horizon, outdoors)
    wanted = [str(rng.choice(KINDS)) for _ in range(objects)]
    for kind in wanted:
        for _attempt in range(6):
            if _try_place(rng, stage, library.take(rng, kind), horizon, outdoors):
                break
    if rng.random() < 0.25:
        _occlude(rng, stage)
    return Scene(photograph(rng, stage.pixels()), tuple(stage.objects))


def render_single(rng: np.random.Generator, library: SpriteLibrary, label: str, width: int, height: int) -> Scene:
    """Render one object large and near the middle, for the classifier; the first of ``objects`` is it."""
    background = [textures.plain, textures.bricks, textures.clutter][int(rng.integers(3))](rng, width, height)
    if rng.random() < 0.4:
        background = textures.site(rng, width, height, float(rng.uniform(0.2, 0.5)))
    stage = Stage(background)
    for _ in range(int(rng.integers(0, 3))):
        sprite = library.take(rng, "distractor")
        side = rng.uniform(0.2, 0.5) * min(width, height)
        stage.place(_posed(rng, sprite, side, 20), rng.uniform(-0.1, 0.9) * width, rng.uniform(-0.1, 0.9) * height)
    on_worker = label in ("helmet", "vest") and rng.random() < 0.4
    for _attempt in range(20):
        sprite = _worker_with(rng, library, label) if on_worker else library.take(rng, label)
        side = rng.uniform(0.45, 1.0) * min(width, height)
        posed = _posed(rng, sprite, side / _share_of(sprite, label), 25)
        x0, y0, x1, y1 = _extent(dict(posed.parts)[label])
        x = width / 2 - (x0 + x1) / 2 + rng.uniform(-0.12, 0.12) * width
        y = height / 2 - (y0 + y1) / 2 + rng.uniform(-0.12, 0.12) * height
        if stage.place(posed, x, y, visible_at_least=0.5):
            break
    objects = sorted(stage.objects, key=lambda truth: truth.label != label)
    return Scene(photograph(rng, stage.pixels()), tuple(objects))


def _worker_with(rng: np.random.Generator, library: SpriteLibrary, label: str) -> Sprite:
    """A worker who wears this and nothing else that has a label, so that the picture has one answer."""
    for _attempt in range(40):
        sprite = library.take(rng, "worker")
        if [name for name, _ in sprite.parts] == [label]:
            return sprite
    return library.take(rng, label)


def _share_of(sprite: Sprite, label: str) -> float:
    """How much of the cut-out's longer side the labelled part takes."""
    x0, y0, x1, y1 = _extent(dict(sprite.parts)[label])
    return max(x1 - x0, y1 - y0) / max(sprite.image.size)


class Stage:
    """A background on which cut-outs are put one over the other; remembers the labelled ones."""

    def __init__(self, background: np.ndarray) -> None:
        self._image = Image.fromarray(np.clip(background, 0, 255).astype(np.uint8))
        self.objects: list[Truth] = []
        self.width, self.height = self._image.size

    def place(self, sprite: Sprite, x: float, y: float, *, visible_at_least: float = 0.0, shadow: bool = False) -> bool:
        """Put a cut-out with its top left at (x, y); False, and nothing done, where it would not fit."""
        left, top = round(x), round(y)
        truths = []
        for label, mask in sprite.parts:
            truth = self._truth(label, mask, left, top, visible_at_least)
            if truth is None:
                return False
            truths.append(truth)
        if shadow:
            self._shadow(sprite, left, top)
        self._image.paste(sprite.image, (left, top), sprite.image)
        self.objects.extend(truths)
        return True

    def _truth(self, label: str, mask: Image.Image, left: int, top: int, visible_at_least: float) -> Truth | None:
        x0, y0, x1, y1 = _extent(mask)
        if x1 <= x0:
            return None
        box = Box(max(0.0, left + x0), max(0.0, top + y0), min(self.width, left + x1), min(self.height, top + y1))
        shown = max(0.0, box.x_max - box.x_min) * max(0.0, box.y_max - box.y_min)
        smallest = SMALLEST_SIDE_PX * max(self.width, self.height) / DETECTOR_SIZE_PX
        if shown < max(visible_at_least, 0.01) * (x1 - x0) * (y1 - y0):
            return None
        if min(box.x_max - box.x_min, box.y_max - box.y_min) < smallest:
            return None
        return Truth(label, box)

    def covers(self, box: tuple[float, float, float, float]) -> float:
        """The largest share of any labelled object that this box would hide, 0 … 1."""
        return max((_hidden(truth.box, box) for truth in self.objects), default=0.0)

    def _shadow(self, sprite: Sprite, left: int, top: int) -> None:
        """A soft dark patch on the ground, under what touches it and away from the light."""
        alpha = np.asarray(sprite.image.getchannel("A"))
        height = len(alpha)
        columns = np.flatnonzero((alpha[-max(2, height // 14) :] > 60).any(axis=0))
        if not columns.size:
            return
        start, width = left + int(columns[0]), max(4, int(np.ptp(columns)) + 1)
        flat = max(4, min(width, height) // 5)
        sheet = Image.new("L", (width * 2 + flat * 4, flat * 5), 0)
        ImageDraw.Draw(sheet).ellipse((flat * 2 - width * 0.06, flat * 2, flat * 2 + width * 1.3, flat * 3), fill=150)
        sheet = sheet.filter(ImageFilter.GaussianBlur(max(1.0, flat * 0.35)))
        place = (start - flat * 2, top + height - flat * 11 // 4)
        self._image.paste(Image.new("RGB", sheet.size, (12, 12, 16)), place, sheet)

    def pixels(self) -> np.ndarray:
        return np.asarray(self._image)


def _hidden(below: Box, above: tuple[float, float, float, float]) -> float:
    w = min(below.x_max, above[2]) - max(below.x_min, above[0])
    h = min(below.y_max, above[3]) - max(below.y_min, above[1])
    area = (below.x_max - below.x_min) * (below.y_max - below.y_min)
    return max(0.0, w) * max(0.0, h) / area


def _extent(mask: Image.Image) -> tuple[int, int, int, int]:
    """The rectangle of the mask's solid pixels: x_min, y_min, x_max, y_max, the last two exclusive."""
    return mask.point(_SOLID).getbbox() or (0, 0, 0, 0)


_SOLID = [0] * 110 + [255] * 146


def _posed(rng: np.random.Generator, sprite: Sprite, longer_side_px: float, tilt_degrees: float) -> Sprite:
    """The cut-out scaled, narrowed, mirrored, turned and lit."""
    squeeze = rng.uniform(0.8, 1.1)
    w, h = sprite.image.width * squeeze, sprite.image.height
    scale = longer_side_px / max(w, h)
    size = (max(2, round(w * scale)), max(2, round(h * scale)))
    mirrored = rng.random() < 0.5
    angle = float(np.clip(rng.normal(0, tilt_degrees / 2), -tilt_degrees, tilt_degrees))

    def pose(image: Image.Image) -> Image.Image:
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image.rotate(angle, Image.Resampling.BILINEAR, expand=True) if abs(angle) > 1 else image

    image = pose(sprite.image)
    gain = rng.uniform(0.72, 1.12) * rng.uniform(0.94, 1.06, 3)
    bands = [
        band.point([min(255, int(i * g)) for i in range(256)]) for band, g in zip(image.split()[:3], gain, strict=True)
    ]
    lit = Image.merge("RGBA", (*bands, image.getchannel("A")))
    return Sprite(lit, tuple((label, pose(mask)) for label, mask in sprite.parts), sprite.kind)


def _try_place(rng: np.random.Generator, stage: Stage, sprite: Sprite, horizon: float, outdoors: bool) -> bool:
    longest = max(stage.width, stage.height)
    if outdoors and rng.random() < 0.75:
        foot = stage.height * (horizon + (1.08 - horizon) * rng.beta(1.6, 1.4))
        metres = HEIGHT_METRES.get(sprite.kind, rng.uniform(0.4, 1.8))
        tall = metres * (foot - horizon * stage.height) * rng.uniform(0.5, 0.8) + 0.04 * longest
        longer = tall * max(1.0, sprite.image.width / sprite.image.height)
        posed = _posed(rng, sprite, min(longer, 0.9 * longest), 5)
        x, y = rng.uniform(-0.1, 1.0) * stage.width - posed.image.width * 0.3, foot - posed.image.height
    else:
        reach = (0.14, 0.85) if sprite.kind == "worker" else (0.06, 0.6)
        posed = _posed(rng, sprite, longest * np.exp(rng.uniform(*np.log(reach))), 28)
        x = rng.uniform(-0.15, 1.15) * stage.width - posed.image.width / 2
        y = rng.uniform(-0.15, 1.15) * stage.height - posed.image.height / 2
    outline = (x, y, x + posed.image.width, y + posed.image.height)
    if stage.covers(outline) > rng.choice([0.05, 0.35]):
        return False
    return stage.place(posed, x, y, visible_at_least=0.5, shadow=outdoors)


def _occlude(rng: np.random.Generator, stage: Stage) -> None:
    """A post or a plank in front of everything."""
    for _attempt in range(4):
        sprite = distractors.distractor(rng, 128)
        if sprite.kind not in ("bar", "box"):
            continue
        posed = _posed(rng, sprite, rng.uniform(0.1, 0.5) * stage.height, 40)
        x, y = rng.uniform(0, 0.9) * stage.width, rng.uniform(0, 0.9) * stage.height
        if stage.covers((x, y, x + posed.image.width, y + posed.image.height)) < 0.35:
            stage.place(posed, x, y)
            return


def photograph(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """What a camera adds: exposure, colour cast, uneven light, blur, noise, compression."""
    height, width = pixels.shape[:2]
    image = pixels.astype(np.float32) / 255
    exposure = rng.uniform(0.3, 0.6) if rng.random() < 0.12 else rng.uniform(0.72, 1.2)
    cast = rng.normal(1, 0.05, 3)
    across, down = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    light = 1 + rng.uniform(-0.22, 0.22) * across + rng.uniform(-0.18, 0.18) * down
    image = np.clip(image * (light[..., None] * cast * exposure), 0, 1) ** rng.uniform(0.8, 1.25)
    if rng.random() < 0.06:
        image[:] = image.mean(2, keepdims=True)
    if rng.random() < 0.35:
        image += rng.normal(0, rng.uniform(0.01, 0.09), image.shape).astype(np.float32)
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.35:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.7) * max(width, height) / 320))
    if rng.random() < 0.4:
        return jpeg(np.asarray(picture), int(rng.integers(15, 90)))
    return np.asarray(picture)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The same picture after being stored as JPEG of this quality (1 … 95)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def letterbox(pixels: np.ndarray, size: int = DETECTOR_SIZE_PX) -> tuple[np.ndarray, float]:
    """Scale the longer side to ``size``, image at the top left, the rest grey; returns the square and the scale."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    new = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = np.full((size, size, 3), LETTERBOX_GREY, dtype=np.uint8)
    resized = Image.fromarray(pixels).resize(new, Image.Resampling.BILINEAR) if scale != 1 else pixels
    square[: new[1], : new[0]] = np.asarray(resized)
    return square, scale


def centre_crop(pixels: np.ndarray, size: int = CLASSIFIER_SIZE_PX) -> np.ndarray:
    """Scale the shorter side to ``size`` and cut the middle square out."""
    height, width = pixels.shape[:2]
    scale = size / min(height, width)
    new = (max(size, round(width * scale)), max(size, round(height * scale)))
    resized = np.asarray(Image.fromarray(pixels).resize(new, Image.Resampling.BILINEAR))
    top, left = (new[1] - size) // 2, (new[0] - size) // 2
    return resized[top : top + size, left : left + size]


def random_size(rng: np.random.Generator, longest: int) -> tuple[int, int]:
    """Width and height of a picture as cameras make them, its longer side ``longest`` pixels."""
    aspect = float(rng.choice(ASPECTS))
    return (longest, round(longest / aspect)) if aspect >= 1 else (round(longest * aspect), longest)


def detection_sample(
    rng: np.random.Generator, library: SpriteLibrary, empty_share: float = 0.14
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One training or test picture as the detector gets it.

    Returns the letterboxed square (uint8), boxes [N, 4] in its pixels (float32) and label numbers [N] (int64).
    """
    width, height = random_size(rng, int(rng.choice([320, 320, 448, 640], p=[0.4, 0.2, 0.25, 0.15])))
    count = 0 if rng.random() < empty_share else int(rng.integers(1, 7))
    scene = render(rng, library, width, height, count)
    square, scale = letterbox(scene.pixels)
    boxes = np.array([box_row(t.box) for t in scene.objects], dtype=np.float32).reshape(-1, 4) * scale
    return square, boxes, np.array([LABELS.index(t.label) for t in scene.objects], dtype=np.int64)


def classification_sample(rng: np.random.Generator, library: SpriteLibrary) -> tuple[np.ndarray, int]:
    """One picture as the classifier gets it (uint8, 128 × 128) and its label number."""
    number = int(rng.integers(len(LABELS)))
    width, height = random_size(rng, int(rng.integers(150, 330)))
    return centre_crop(render_single(rng, library, LABELS[number], width, height).pixels), number


def box_row(box: Box) -> Sequence[float]:
    """x_min, y_min, x_max, y_max."""
    return box.x_min, box.y_min, box.x_max, box.y_max


# Kind and how near: 0 at the horizon, 1 at the lower edge.
_CAST = (
    ("worker", 0.52, 0.6),
    ("worker", 0.6, 0.72),
    ("worker", 0.72, 0.88),
    ("sign", 0.3, 0.42),
    ("sign", 0.4, 0.55),
    ("barrier", 0.35, 0.55),
    ("barrier", 0.55, 0.75),
    ("cone", 0.4, 0.6),
    ("cone", 0.5, 0.7),
    ("cone", 0.7, 0.9),
    ("cone", 0.8, 0.95),
)


def render_site(seed: int, width: int = 1280, height: int = 853) -> Scene:
    """Render a larger, tidier scene for people to look at: a building site in daylight, cut-outs drawn for it anew."""
    rng = np.random.default_rng(seed)
    horizon = float(rng.uniform(0.3, 0.4))
    stage = Stage(textures.site(rng, width, height, horizon, muted=True))
    placed = sorted((float(rng.uniform(far, near)), kind) for kind, far, near in _CAST)
    for depth, kind in placed:
        _stand(rng, stage, kind, (horizon + (1 - horizon) * depth) * height, horizon * height)
    if rng.random() < 0.7:
        _stand(rng, stage, "helmet", 0.965 * height, horizon * height)
    return Scene(_daylight(rng, stage.pixels()), tuple(stage.objects))


def render_portrait(seed: int, label: str, width: int = 480, height: int = 400) -> Scene:
    """Render one object in the middle of a tidy building site, for people to look at."""
    rng = np.random.default_rng(seed)
    stage = Stage(textures.site(rng, width, height, float(rng.uniform(0.35, 0.5)), muted=True))
    while not stage.objects:
        sprite = drawings.DRAW[label](rng, 2 * height)
        posed = _posed(rng, sprite, rng.uniform(0.72, 0.85) * min(width, height), 4)
        x, y = (width - posed.image.width) / 2, (height - posed.image.height) * 0.6
        stage.place(posed, x, y, visible_at_least=0.95, shadow=label != "vest")
    return Scene(_daylight(rng, stage.pixels()), tuple(stage.objects))


def _stand(rng: np.random.Generator, stage: Stage, kind: str, foot: float, horizon: float) -> None:
    """Put one thing on the ground where it hides nothing; left out where there is no such place."""
    # A camera at 1.6 m: at any distance the horizon crosses things at that height (one-point perspective).
    pixels_per_metre = (foot - horizon) / 1.6 * 0.85
    tall = max(HEIGHT_METRES[kind] * pixels_per_metre, 0.05 * stage.height)
    sprite = _fresh(rng, kind, round(tall * 2))
    posed = _posed(rng, sprite, tall * max(1.0, sprite.image.width / sprite.image.height), 2)
    for _attempt in range(60):
        x, y = rng.uniform(0.01, 0.99) * stage.width - posed.image.width / 2, foot - posed.image.height
        if stage.covers((x, y, x + posed.image.width, foot)) < 0.08 and stage.place(
            posed, x, y, visible_at_least=0.95, shadow=True
        ):
            return


def _fresh(rng: np.random.Generator, kind: str, height_px: int) -> Sprite:
    if kind == "worker":
        return drawings.worker(
            rng, height_px, with_vest=bool(rng.random() < 0.85), with_helmet=bool(rng.random() < 0.85)
        )
    if kind == "sign":
        return drawings.sign(rng, height_px, pole=True)
    return drawings.DRAW[kind](rng, height_px)


def _daylight(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """A good camera: hardly any noise, a trace of blur, light that falls off to the corners."""
    height, width = pixels.shape[:2]
    across, down = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    light = 1.04 - 0.09 * (across**2 + down**2)
    image = pixels * light[..., None] * rng.normal(1, 0.015, 3) + rng.normal(0, 1.6, pixels.shape)
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(0.6)))
