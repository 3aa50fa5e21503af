"""Small copies of uploaded pictures, as data URIs: the page holds them, so nothing has to be stored for it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from app.decoding.decoder import Decoder
from app.inference import images
from app.models.manifests import InputSpec

# Twice the size on phones, about one to one on a desktop; a photograph then weighs some 60 to 150 kB.
MAX_PREVIEW_PIXELS = 960
JPEG_QUALITY = 80
# The largest area a picture takes on the page, in CSS pixels; the script's stage uses the same figures.
STAGE_WIDTH = 800
STAGE_HEIGHT = 560


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture for an ``<img>``: its address and the size at which it is shown."""

    href: str
    width: int
    height: int


def preview(decoder: Decoder, data: bytes, width: int, height: int, deadline: float) -> Preview:
    """Shrink an image that the predictor has accepted and measured, upright as it was answered.

    ``deadline``: a moment of ``time.monotonic``. Raises what the decoder raises.
    """
    side = min(max(width, height), MAX_PREVIEW_PIXELS)
    spec = InputSpec("fit", min_size=side, max_size=side)
    buffer = io.BytesIO()
    pixels = decoder.read(data, spec, deadline).pixels
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Preview(f"data:image/jpeg;base64,{encoded}", *fit(width, height))


def measured(decoder: Decoder, data: bytes, deadline: float) -> tuple[Preview, tuple[int, int]]:
    """The same for a picture whose width and height are not known yet, with them."""
    head = images.look(data, decoder.limits).head
    sides = (head.height, head.width) if head.orientation in images.QUARTER_TURNS else (head.width, head.height)
    return preview(decoder, data, *sides, deadline), sides


def fit(width: int, height: int) -> tuple[int, int]:
    """The largest size of the same shape that fits the stage; small pictures grow."""
    scale = min(STAGE_WIDTH / width, STAGE_HEIGHT / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
