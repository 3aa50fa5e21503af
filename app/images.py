"""From bytes to pixels: look at the header first, then decode and scale once. No Flask, no torch. A leaf."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from app import resampling
from app.errors import ImageEmptyError, ImageTooLargeError, ImageUndecodableError, ImageUnsupportedError
from app.manifests import InputSpec
from app.results import Box, DetectOptions, Options

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

# The grey of a letterbox's empty part, as most detectors are trained with it.
LETTERBOX_GREY = 114
ORIENTATION_TAG = 0x0112
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


# One image as it came: encoded, or uint8 pixels of height × width × 3.
ImageData = bytes | np.ndarray


@dataclass(frozen=True)
class Limits:
    """What is accepted. ``formats`` are Pillow's names in upper case."""

    max_bytes: int
    max_pixels: int
    formats: tuple[str, ...]


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

    def to_input(self, wish: Options) -> Options:
        """Least sizes are wished in pixels of the original; the engine sees pixels of its input."""
        if not isinstance(wish, DetectOptions):
            return wish
        return replace(wish, min_width=wish.min_width * self.scale_x, min_height=wish.min_height * self.scale_y)


def seen(spec: InputSpec, width: int, height: int) -> Box:
    """What a model's input shows of an upright image, in its pixels; a letterbox reaches beyond the image."""
    if spec.kind == "letterbox":
        side = float(max(width, height))
        return Box(0.0, 0.0, side, side)
    return Box(*_target(spec, width, height)[1])


def read(data: bytes, spec: InputSpec, limits: Limits) -> Picture:
    """Check, decode, turn upright and scale one image.

    Raises ImageEmptyError, ImageUnsupportedError, ImageTooLargeError, ImageUndecodableError.
    """
    image = _open(data, limits)
    try:
        return _decode(image, spec)
    except READER_ERRORS as error:
        raise ImageUndecodableError(
            f"The {image.format} image of {len(data)} bytes cannot be decoded: {error}.",
            hint="It is cut off or damaged; open it in another program and save it again.",
        ) from None


def read_any(data: ImageData, spec: InputSpec, limits: Limits) -> Picture:
    """``read`` or ``from_pixels``, as the image came; raises what they raise."""
    return read(data, spec, limits) if isinstance(data, bytes) else from_pixels(data, spec, limits)


def from_pixels(pixels: np.ndarray, spec: InputSpec, limits: Limits) -> Picture:
    """Scale one image of uint8 pixels, height × width × 3, RGB. Raises ImageTooLargeError."""
    height, width = pixels.shape[:2]
    _check_pixels(width, height, limits)
    return _decode(Image.fromarray(pixels), spec)


def _open(data: bytes, limits: Limits) -> Image.Image:
    """Read the header only."""
    if not data:
        raise ImageEmptyError("The image has 0 bytes.", hint="Send the bytes of the file, not its name.")
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"The image has {len(data)} bytes; at most {limits.max_bytes} are accepted.",
            hint="Save it smaller, or raise IMAGES_MAX_BYTES.",
        )
    image = _identify(data, limits)
    _check_pixels(image.width, image.height, limits)
    return image


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"The image is {width}×{height} pixels; at most {limits.max_pixels} pixels are accepted.",
            hint="Scale it down, or raise IMAGES_MAX_PIXELS.",
        )


def _identify(data: bytes, limits: Limits) -> Image.Image:
    accepted = ", ".join(limits.formats)
    try:
        return Image.open(io.BytesIO(data), formats=limits.formats)
    except UnidentifiedImageError:
        raise ImageUnsupportedError(
            f"The {len(data)} bytes are not an image of an accepted format.", hint=f"Accepted: {accepted}."
        ) from None
    except READER_ERRORS as error:
        raise ImageUndecodableError(
            f"The image's header cannot be read: {error}.", hint=f"It is damaged. Accepted formats: {accepted}."
        ) from None


def _decode(image: Image.Image, spec: InputSpec) -> Picture:
    orientation = _orientation(image)
    width, height = (image.height, image.width) if orientation in QUARTER_TURNS else image.size
    target, box = _target(spec, width, height)
    _draft(image, target, box)
    plain = _to_plain(image)
    upright = plain.transpose(TO_UPRIGHT[orientation]) if orientation in TO_UPRIGHT else plain
    # A draft made the picture smaller; the box was given in pixels of the original.
    shrink_x, shrink_y = upright.width / width, upright.height / height
    source = (box[0] * shrink_x, box[1] * shrink_y, box[2] * shrink_x, box[3] * shrink_y)
    scaled = _on_white(resampling.bilinear(upright, target, source))
    pixels = _letterbox(spec, scaled) if spec.kind == "letterbox" else np.asarray(scaled)
    scale_x, scale_y = target[0] / (box[2] - box[0]), target[1] / (box[3] - box[1])
    return Picture(pixels, width, height, scale_x, scale_y, box[0], box[1])


def _orientation(image: Image.Image) -> int:
    """The tag of the file as it came; conversions lose it. 1 where there is none, or one that cannot be read."""
    if image.format == "TIFF":
        # Pillow turns it while it decodes, and gives the upright size from the beginning.
        return 1
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except READER_ERRORS:
        return 1


def _target(spec: InputSpec, width: int, height: int) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """Width and height of the scaled picture, and which part of the upright original it shows."""
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


def _draft(image: Image.Image, target: tuple[int, int], box: tuple[float, ...]) -> None:
    """Let the JPEG decoder skip detail we would throw away; it never goes below what the target needs."""
    if image.format != "JPEG":
        return
    scale = max(target[0] / (box[2] - box[0]), target[1] / (box[3] - box[1]))
    wanted = (math.ceil(image.width * scale), math.ceil(image.height * scale))
    image.draft("RGB", wanted)


def _to_plain(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something shines through. 16-bit grey is scaled, not cut off."""
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = (np.asarray(image).astype(np.float32) / 257).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
    # Converting to what it is would copy every pixel.
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """What shines through becomes white. Done after scaling: at full size it would need three times the memory."""
    if image.mode == "RGB":
        return image
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image)
    return flat.convert("RGB")


def _letterbox(spec: InputSpec, scaled: Image.Image) -> np.ndarray:
    canvas = np.full((spec.size, spec.size, 3), LETTERBOX_GREY, np.uint8)
    canvas[: scaled.height, : scaled.width] = np.asarray(scaled)
    return canvas
