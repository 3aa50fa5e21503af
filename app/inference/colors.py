"""Every kind of pixel that Pillow reads, as RGB, or RGBA or LA where something shines through."""

from __future__ import annotations

import numpy as np
from PIL import Image

from app.errors import ImageUndecodableError
from app.texts import Text

# So many rows are looked at together: numbers of four bytes then take megabytes at most, however large the image.
ROWS = 256
# Whole numbers of more than 8 bits, and real ones: what counts as white.
WHITES = (1.0, 255.0, 65535.0)
# What rounding may leave below 0, as a share of white.
SLACK = 0.001
WHITE_IS_ZERO = 0
PHOTOMETRIC_TAG = 262
# Pillow cannot convert them by itself.
UNSUPPORTED = ("LAB", "HSV")


def to_plain(image: Image.Image) -> Image.Image:
    """RGB, RGBA or LA; what it was made of is given back at once, where it is another one.

    Raises ImageUndecodableError for numbers that are no picture, and what Pillow's readers raise.
    """
    if image.mode in UNSUPPORTED:
        raise ImageUndecodableError(
            "Its colours are %(mode)s, which are not read", hint="Save it with RGB or grey pixels.", mode=image.mode
        )
    if image.mode.startswith("I") or image.mode == "F":
        plain = _grey(image)
    elif image.mode == "LA":
        # Its few pixels become colours when it is scaled.
        plain = image
    elif image.mode == "RGBa":
        plain = image.convert("RGBA")
    else:
        mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
        # Converting to what it is would copy every pixel.
        plain = image if image.mode == mode else image.convert(mode)
    if plain is not image:
        image.close()
    return plain


def _grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, of 32, or of real numbers, as RGB."""
    image.load()
    values = np.asarray(image)
    white = 65535.0 if image.mode.startswith("I;16") else _white(values)
    grey = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), ROWS):
        scaled = values[row : row + ROWS].astype(np.float32) * np.float32(255 / white)
        grey[row : row + ROWS] = scaled.round().clip(0, 255)
    tags = getattr(image, "tag_v2", {})
    if tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO:
        # Of the kinds of grey in a TIFF, Pillow turns only those of 8 bits and less.
        np.subtract(255, grey, out=grey)
    return Image.fromarray(grey).convert("RGB")


def _white(values: np.ndarray) -> float:
    """Which number means white: the least of WHITES that none is larger than; for whole numbers not 1."""
    parts = [values[row : row + ROWS] for row in range(0, len(values), ROWS)]
    least, most = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
    is_real = values.dtype.kind == "f"
    whites = WHITES[:2] if is_real else WHITES[1:]
    # Not true of anything that is no number either.
    white = next((each for each in whites if most <= each * (1 + SLACK) and least >= -each * SLACK), None)
    if white is None:
        raise ImageUndecodableError(
            "Its pixels are %(kind)s numbers from %(least)g to %(most)g, so which of them is white is not known",
            hint="Real numbers from 0 to 1 or to 255, and whole ones from 0 to 255 or to 65535 are read as black to "
            "white: scale them, or save it with 8 bits.",
            kind=Text("real") if is_real else Text("whole"),
            least=least,
            most=most,
        )
    return white
