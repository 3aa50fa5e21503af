"""From bytes to pixels: look at the head first, then decode and scale once. No Flask, no torch. A leaf."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from app.errors import ImageTooLargeError, ImageUndecodableError
from app.image_headers import inspection, orientation, png
from app.image_headers.header import Head
from app.image_headers.inspection import Look
from app.inference import resampling
from app.inference.colors import to_plain
from app.inference.results import Box, Options
from app.models.manifests import LETTERBOX_GREY, InputSpec
from app.texts import Text

# We look at the header ourselves and refuse before anything is decoded; Pillow's own limit would only warn.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of every oddity in a caller's file, and then reads on. Here and not around each call: catch_warnings
# changes the filters of all threads, and two that overlap leave the wrong ones behind.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# All of these come from its readers on bytes that are cut off or altered.
READER_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError),
    *(RuntimeError, SystemError, struct.error, zlib.error),
)

# What makes an image upright, by its tag Orientation (Exif 2.32); 1 is upright already.
TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTER_TURNS = (5, 6, 7, 8)
# How much of a file the decoder is given at once.
PART_BYTES = 1024**2


# One image as it came: encoded, or uint8 pixels of height × width × 3.
ImageData = bytes | np.ndarray


@dataclass(frozen=True)
class Limits:
    """What is accepted. ``formats`` are Pillow's names in upper case."""

    max_bytes: int
    max_pixels: int
    formats: tuple[str, ...]
    max_side: int = 30_000


@dataclass(frozen=True)
class Picture:
    """One image, ready for a model.

    ``pixels``: uint8, height × width × 3, RGB, scaled as the model's InputSpec says. ``width`` and ``height``: pixels
    of the upright original. ``scale_x`` and ``scale_y``: pixels of the input for one pixel of the original. ``left``
    and ``top``: where the input begins in the original, in its pixels; a crop begins inside of it.
    """

    pixels: np.ndarray
    width: int
    height: int
    scale_x: float
    scale_y: float
    left: float = 0.0
    top: float = 0.0

    def to_original(self, box: Box) -> Box:
        """A box in pixels of the input, as pixels of the upright original; cut at its edges."""
        return Box(
            x_min=min(max(box.x_min / self.scale_x + self.left, 0.0), self.width),
            y_min=min(max(box.y_min / self.scale_y + self.top, 0.0), self.height),
            x_max=min(max(box.x_max / self.scale_x + self.left, 0.0), self.width),
            y_max=min(max(box.y_max / self.scale_y + self.top, 0.0), self.height),
        )

    def box_in_input(self, box: Box) -> Box:
        """A box in pixels of the upright original, as pixels of the input; cut at the input's edges."""
        height, width = self.pixels.shape[:2]
        return Box(
            x_min=min(max((box.x_min - self.left) * self.scale_x, 0.0), width),
            y_min=min(max((box.y_min - self.top) * self.scale_y, 0.0), height),
            x_max=min(max((box.x_max - self.left) * self.scale_x, 0.0), width),
            y_max=min(max((box.y_max - self.top) * self.scale_y, 0.0), height),
        )

    def to_input(self, image_options: Options) -> Options:
        """What is requested in pixels of the original, in pixels of the input."""
        return image_options.in_input(self.width, self.height, self.scale_x, self.scale_y)


def seen(spec: InputSpec, width: int, height: int) -> Box:
    """What a model's input shows of an upright image, in its pixels; a letterbox reaches beyond the image."""
    if spec.kind == "letterbox":
        side = float(max(width, height))
        return Box(0.0, 0.0, side, side)
    return Box(*_target(spec, width, height)[1])


def read(data: bytes, spec: InputSpec, limits: Limits) -> Picture:
    """Check, decode, turn upright and scale one image, in this process and however long it takes.

    Raises ImageEmptyError, ImageUnsupportedError, ImageTooLargeError, ImageTooComplexError, ImageUndecodableError.
    """
    return decode(look(data, limits), spec)


def from_pixels(pixels: np.ndarray, spec: InputSpec, limits: Limits) -> Picture:
    """Scale one image of uint8 pixels, height × width × 3, RGB. Raises ImageTooLargeError."""
    height, width = pixels.shape[:2]
    _check_size(width, height, limits)
    return _decode(Image.fromarray(pixels), spec, orientation.UPRIGHT)


def look(data: bytes, limits: Limits) -> Look:
    """What can be known before decoding; raises what ``read`` raises, but for what only decoding shows."""
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            "The image has %(size)s bytes; at most %(most)s are accepted.",
            hint="Save it smaller; the operator of this service sets the limit.",
            size=len(data),
            most=limits.max_bytes,
        )
    found = inspection.look(data, limits.formats)
    _check_size(found.head.width, found.head.height, limits)
    if found.head.lacks:
        raise inspection.undecodable(found.kind, found.size, found.head.lacks)
    return found


def peak_bytes(found: Look, spec: InputSpec) -> int:
    """About the most memory that ``decode`` takes, in bytes, besides the image's own."""
    head = found.head
    target, box = _target(spec, head.width, head.height)
    shrunk = _shrunk(head, _wanted((head.width, head.height), target, box)) if head.shrinks else 1
    pixels = head.width * head.height
    # Scaled in one direction, before it is in the other.
    half_bytes = 4 * target[0] * head.height
    return int(pixels * (head.pixel_bytes / shrunk**2 + head.stored_pixel_bytes)) + half_bytes


def decode(found: Look, spec: InputSpec) -> Picture:
    """Decode, turn upright and scale. Raises ImageUndecodableError."""
    try:
        return _decode(_open(found), spec, found.head.orientation, found.head.data)
    except UnidentifiedImageError:
        # Pillow names the object that it was given.
        raise inspection.undecodable(
            found.kind, found.size, Text("its head is damaged, or names pixels not read here")
        ) from None
    except READER_ERRORS as error:
        raise inspection.undecodable(found.kind, found.size, str(error).rstrip(".")) from None
    except ImageUndecodableError as error:
        raise inspection.undecodable(found.kind, found.size, error.message, error.hint) from None


def _check_size(width: int, height: int, limits: Limits) -> None:
    if max(width, height) > limits.max_side:
        raise ImageTooLargeError(
            "The image is %(width)s×%(height)s pixels; at most %(most)s a side are accepted.",
            hint="Scale it down or cut it; the operator of this service sets the limit.",
            width=width,
            height=height,
            most=limits.max_side,
        )
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            "The image is %(width)s×%(height)s pixels; at most %(most)s pixels are accepted.",
            hint="Scale it down; the operator of this service sets the limit.",
            width=width,
            height=height,
            most=limits.max_pixels,
        )


def _open(found: Look) -> Image.Image:
    """For Pillow, which reads the head again. It must see the size that we have judged by."""
    image = Image.open(io.BytesIO(found.head.data), formats=(found.kind,))
    sides = (found.head.width, found.head.height)
    if sorted(image.size) != sorted(sides):
        raise ValueError(f"it is {image.width}×{image.height} pixels and says {sides[0]}×{sides[1]}")
    # An ordinary file at once: for each part, of 64 KiB, Python's lock would be given away and waited for.
    image.decodermaxblock = PART_BYTES
    return image


def _decode(image: Image.Image, spec: InputSpec, orientation: int, data: bytes = b"") -> Picture:
    """Takes the image over: what is not needed any more of it is given back on the way. ``data``: its file."""
    width, height = (image.height, image.width) if orientation in QUARTER_TURNS else image.size
    target, box = _target(spec, width, height)
    if image.format == "JPEG":
        image.draft("RGB", _wanted(image.size, target, box))
    if image.format == "PNG" and _ends_in_nothing(image) and png.ends_early(data):
        raise ValueError("its pixels end early")
    image = to_plain(image)
    if orientation in TO_UPRIGHT:
        image = image.transpose(TO_UPRIGHT[orientation])
    # A draft made the picture smaller; the box was given in pixels of the original.
    shrink_x, shrink_y = image.width / width, image.height / height
    source = (box[0] * shrink_x, box[1] * shrink_y, box[2] * shrink_x, box[3] * shrink_y)
    scaled = _on_white(resampling.bilinear(image, target, source))
    pixels = _letterbox(spec, scaled) if spec.kind == "letterbox" else np.asarray(scaled)
    scale_x, scale_y = target[0] / (box[2] - box[0]), target[1] / (box[3] - box[1])
    return Picture(pixels, width, height, scale_x, scale_y, box[0], box[1])


def _ends_in_nothing(image: Image.Image) -> bool:
    """Whether one of the last two rows is all zeros, as Pillow leaves the rows that a PNG does not have."""
    image.load()
    rows = np.asarray(image.crop((0, max(0, image.height - 2), *image.size)))
    return not rows.reshape(len(rows), -1).any(axis=1).all()


def _target(spec: InputSpec, width: int, height: int) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """Width and height of the scaled picture, and which part of the upright original it shows."""
    if spec.kind == "whole":
        return (spec.width or width, spec.height or height), (0.0, 0.0, width, height)
    if spec.kind == "crop":
        # Cut before scaling: a strip of 1 × 50 000 pixels must not grow into gigabytes on its way.
        side = min(width, height) * spec.size / spec.resize_size
        left, top = (width - side) / 2, (height - side) / 2
        return (spec.size, spec.size), (left, top, left + side, top + side)
    if spec.kind == "letterbox":
        scale = spec.size / max(width, height)
    else:
        scale = min(spec.min_size / min(width, height), spec.max_size / max(width, height))
    return (max(1, round(width * scale)), max(1, round(height * scale))), (0.0, 0.0, width, height)


def _wanted(size: tuple[int, int], target: tuple[int, int], box: tuple[float, ...]) -> tuple[int, int]:
    """At what size the JPEG decoder may deliver: it skips detail we would throw away, and never goes below."""
    scale = max(target[0] / (box[2] - box[0]), target[1] / (box[3] - box[1]))
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def _shrunk(head: Head, wanted: tuple[int, int]) -> int:
    """By how much a JPEG is decoded smaller, of which so much is ``wanted`` at least."""
    # Turning it changes nothing: the scale is the same in both directions.
    least = min(head.width // wanted[0], head.height // wanted[1])
    return next((scale for scale in (8, 4, 2) if least >= scale), 1) if least > 1 else 1


def _on_white(image: Image.Image) -> Image.Image:
    """What shines through becomes white. Done after scaling: at full size it would need three times the memory."""
    if image.mode == "RGB":
        return image
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    return flat.convert("RGB")


def _letterbox(spec: InputSpec, scaled: Image.Image) -> np.ndarray:
    canvas = np.full((spec.size, spec.size, 3), LETTERBOX_GREY, np.uint8)
    canvas[: scaled.height, : scaled.width] = np.asarray(scaled)
    return canvas
