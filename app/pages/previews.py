"""Small copies of uploaded pictures, as data URIs: the page holds them, so nothing has to be stored for it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from app import images
from app.manifests import InputSpec

# Twice the size on phones, about one to one on a desktop; a photograph then weighs some 60 to 150 kB.
MAX_PREVIEW_PIXELS = 960
JPEG_QUALITY = 80
# The predictor has read the picture before us, with the formats that the settings allow.
ACCEPTED = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# The largest area a picture takes on the page, in CSS pixels; the script's stage uses the same figures.
STAGE_WIDTH = 800
STAGE_HEIGHT = 560


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture for an ``<img>``: its address and the size at which it is shown."""

    href: str
    width: int
    height: int


def preview(data: bytes, width: int, height: int) -> Preview:
    """Shrink an image that the predictor has accepted and measured, upright as it was answered."""
    side = min(max(width, height), MAX_PREVIEW_PIXELS)
    spec = InputSpec("fit", min_size=side, max_size=side)
    limits = images.Limits(len(data), width * height, ACCEPTED)
    buffer = io.BytesIO()
    Image.fromarray(images.read(data, spec, limits).pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Preview(f"data:image/jpeg;base64,{encoded}", *fit(width, height))


def fit(width: int, height: int) -> tuple[int, int]:
    """The largest size of the same shape that fits the stage; small pictures grow."""
    scale = min(STAGE_WIDTH / width, STAGE_HEIGHT / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
