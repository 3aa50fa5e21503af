"""Are boxes where the objects are? Checked on pictures whose right answer is known before the model is asked.

Stored answers show that a model answers as before, not that it answers right. Two checks need no labelled data. A
coloured mark is scaled as the model's input, found by its colour, and mapped back: it must come back to its place. And
a picture that is enlarged or moved by a known amount must have its boxes enlarged and moved by that amount.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from app.errors import GoldenCheckError
from app.inference import images
from app.inference.images import Picture
from app.inference.results import Box, Detection, DetectOptions
from app.models.manifests import LETTERBOX_GREY, InputSpec
from app.runtimes.model import Model

LIMITS = images.Limits(2**31, 2**31, ("JPEG",), 2**31)
# Wide, tall, square, larger and smaller than usual inputs.
SIZES = ((640, 480), (480, 640), (400, 400), (2000, 900), (120, 90))
# Values of Exif's Orientation: upright, and taken with the camera turned by a quarter.
ORIENTATIONS = (1, 6)
MARK_COLOUR, GROUND_COLOUR = (255, 0, 0), (0, 90, 0)
# Blur and rounding at the edges of a mark, in pixels of the input.
EDGE_SLACK_PX = 2.0

# Larger pictures are made smaller first: two more copies of each are held.
MOST_SIDE_PX = 1280
# Convolutions answer alike where a picture moves by whole steps of their coarsest map.
STRIDE_PX = 32
MOST_OBJECTS = 10
SAME_PLACE_IOU = 0.5
# One more copy is not begun after so long: slow detectors take seconds for a picture.
LIMIT_SECONDS = 20.0

Pixels = np.ndarray


@dataclass(frozen=True)
class Copy:
    """A picture after a known transform: enlarged by ``scale``, then moved by ``left`` and ``top`` pixels.

    ``name``: of the transform, for people.
    """

    name: str
    pixels: Pixels
    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def expected(self, box: Box) -> Box:
        """Where a box of the original must be in the copy."""
        return Box(
            box.x_min * self.scale + self.left,
            box.y_min * self.scale + self.top,
            box.x_max * self.scale + self.left,
            box.y_max * self.scale + self.top,
        )


@dataclass
class Tally:
    """How many boxes were found at their places in copies of one transform, and the first that was not, in words."""

    expected: int = 0
    found: int = 0
    first_lost: str = ""

    def note(self, is_found: bool, lost: str) -> None:
        self.expected += 1
        self.found += is_found
        self.first_lost = self.first_lost or ("" if is_found else lost)


def check_marks(spec: InputSpec, model_key: str) -> None:
    """Scale marks as the model's input and map them back. Raises GoldenCheckError where one comes back elsewhere."""
    for size in SIZES:
        for orientation in ORIENTATIONS:
            box = _mark(spec, *size)
            picture = images.read(_drawn(size, box, orientation), spec, LIMITS)
            found = picture.to_original(_seen_mark(picture.pixels))
            if not _is_near(found, box, picture):
                raise GoldenCheckError(
                    f"{model_key}: boxes in pictures {size[0]}×{size[1]} pixels (Orientation {orientation}) would be "
                    f"answered at {_words(found)} where the object is at {_words(box)}.",
                    hint=f"Scaling with input.kind {spec.kind!r} and mapping boxes back do not fit each other; this is "
                    "a fault of the service, not of the model.",
                )


def check_moves(model: Model, pictures: Sequence[Pixels]) -> dict[str, Tally]:
    """Compare the boxes of pictures with those of their transformed copies.

    ``pictures``: upright originals, uint8 [H, W, 3]. Returns what was compared, by transform; nothing where the model
    finds nothing. Raises GoldenCheckError where more than half of the boxes of one transform are not at the place to
    which their object went.
    """
    tallies: dict[str, Tally] = {}
    began = time.monotonic()
    for picture in pictures:
        original = _base(picture)
        served = model.manifest.serve.score_threshold
        strong = [each for each in find(model, original, served) if each.score >= served][:MOST_OBJECTS]
        for copy in copies(model.manifest.input, original) if strong else ():
            if copy.name in tallies and time.monotonic() - began > LIMIT_SECONDS:
                break
            tally = tallies.setdefault(copy.name, Tally())
            _compare(tally, strong, copy, find(model, copy.pixels, served / 2))
    for name, tally in tallies.items():
        if tally.found * 2 < tally.expected:
            raise GoldenCheckError(
                f"{model.manifest.key}: only {tally.found} of {tally.expected} boxes are at the right place in "
                f"pictures that were {name}. {tally.first_lost}",
                hint="Boxes do not follow the objects: look at the input's kind and sizes, and at what computes the "
                "boxes.",
            )
    return tallies


def find(model: Model, pixels: Pixels, score_threshold: float) -> list[Detection]:
    """What a model finds in an upright picture, as callers get it: boxes in its pixels, best first."""
    picture = images.from_pixels(pixels, model.manifest.input, LIMITS)
    image_options = DetectOptions(score_threshold=score_threshold, iou_threshold=model.manifest.serve.iou_threshold)
    found = model.predict([picture.pixels], [image_options])[0]
    return [
        Detection(each.label, each.score, picture.to_original(each.box))
        for each in found
        if isinstance(each, Detection)
    ]


def copies(spec: InputSpec, original: Pixels) -> Iterator[Copy]:
    """Copies of a wide picture that its model should see alike: twice as large, and moved."""
    height, width = original.shape[:2]
    larger = Image.fromarray(original).resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    yield Copy("enlarged", np.asarray(larger), scale=2.0)
    left, right, top = _margins(spec, width, height)
    padding = ((top, 0), (left, right), (0, 0))
    moved = np.pad(original, padding, constant_values=LETTERBOX_GREY)
    yield Copy("moved", moved, left=left, top=top)


def _margins(spec: InputSpec, width: int, height: int) -> tuple[int, int, int]:
    """Grey margins (left, right, top) for a wide picture with which the object keeps its size in the input."""
    if spec.kind == "crop":
        # The middle stays the middle, so the input is the same, and only the mapping back differs.
        return width // 4, width // 4, 0
    if spec.kind == "letterbox":
        return 0, 0, _whole_steps(width - height, spec.size / width)
    scale = min(spec.min_size / height, spec.max_size / width)
    if (room := int(spec.max_size / scale) - width) >= STRIDE_PX / scale:
        return _whole_steps(min(room, width // 2), scale), 0, 0
    return 0, 0, _whole_steps(max(1, int(spec.min_size / scale) - height), scale)


def _whole_steps(room: int, scale: float) -> int:
    """The most pixels within ``room`` that are whole strides of the input; all of it where there is less than one."""
    steps = int(room * scale / STRIDE_PX)
    return round(steps * STRIDE_PX / scale) if steps else room


def _base(picture: Pixels) -> Pixels:
    """The picture, not too large, and wide: so that it can be moved without being scaled by another factor."""
    image = Image.fromarray(picture)
    image.thumbnail((MOST_SIDE_PX, MOST_SIDE_PX))
    pixels = np.asarray(image)
    return pixels[: max(1, min(pixels.shape[0], pixels.shape[1] * 3 // 4))]


def _compare(tally: Tally, strong: Sequence[Detection], copy: Copy, found: Sequence[Detection]) -> None:
    for one in strong:
        place = copy.expected(one.box)
        same = [each.box for each in found if each.label == one.label]
        best = max(same, key=place.iou, default=None)
        where = f"the nearest is at {_words(best)}" if best else "none is found"
        tally.note(
            best is not None and place.iou(best) >= SAME_PLACE_IOU,
            f"A {one.label} at {_words(one.box)} should be at {_words(place)} once it is {copy.name}; {where}.",
        )


def _mark(spec: InputSpec, width: int, height: int) -> Box:
    """A rectangle off the middle, within what any kind of input shows of a picture."""
    seen = images.seen(spec, width, height)
    half = min(seen.x_max - seen.x_min, seen.y_max - seen.y_min, width, height) / 2
    x, y = width / 2, height / 2
    return Box(*(round(each) for each in (x - 0.7 * half, y - 0.4 * half, x + 0.2 * half, y + 0.8 * half)))


def _drawn(size: tuple[int, int], box: Box, orientation: int) -> bytes:
    """A JPEG that shows the mark there once it is turned upright."""
    image = Image.new("RGB", size, GROUND_COLOUR)
    image.paste(MARK_COLOUR, (int(box.x_min), int(box.y_min), int(box.x_max), int(box.y_max)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if orientation != 1:
        # As the camera held it: turned by the opposite of what makes it upright.
        image = image.transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    return buffer.getvalue()


def _seen_mark(pixels: Pixels) -> Box:
    """The mark in the input, by its colour."""
    rows, columns = np.nonzero((pixels[..., 0] > 128) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60))
    if not len(rows):
        return Box(0.0, 0.0, 0.0, 0.0)
    return Box(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))


def _is_near(found: Box, expected: Box, picture: Picture) -> bool:
    slack_x, slack_y = EDGE_SLACK_PX / picture.scale_x, EDGE_SLACK_PX / picture.scale_y
    return (
        max(abs(found.x_min - expected.x_min), abs(found.x_max - expected.x_max)) <= slack_x
        and max(abs(found.y_min - expected.y_min), abs(found.y_max - expected.y_max)) <= slack_y
    )


def _words(box: Box) -> str:
    return f"({box.x_min:.0f}, {box.y_min:.0f})–({box.x_max:.0f}, {box.y_max:.0f})"
