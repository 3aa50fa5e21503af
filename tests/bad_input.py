"""Ten kinds of bad input, and what each must be answered with; used against every server and the page."""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class BadInput:
    """One request that must be refused. ``image`` is the file where the page can send the same."""

    name: str
    status: int
    code: str
    body: bytes
    content_type: str = "image/jpeg"
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    image: bytes | None = None


def good_image(width: int = 64, height: int = 48) -> bytes:
    """A small JPEG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 60)).save(out, "JPEG")
    return out.getvalue()


def noisy_photograph(width: int, height: int) -> bytes:
    """A JPEG as large as a camera's: noise does not compress."""
    noise = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=90)
    return out.getvalue()


def bomb(side: int = 13_000) -> bytes:
    """A PNG of 169 megapixels in about 20 kB: one black bit a pixel, packed by deflate."""
    row = b"\x00" * (1 + (side + 7) // 8)
    header = struct.pack("!IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(row * side, 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def cases(max_bytes: int) -> list[BadInput]:
    """All ten; ``max_bytes`` is the largest body the server takes."""
    truncated = good_image(640, 480)[:1500]
    text = b"This is a letter, not a picture."
    deep = b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    return [
        BadInput("empty", 422, "image_empty", b"", image=b""),
        BadInput("truncated", 422, "image_undecodable", truncated, image=truncated),
        BadInput("not_an_image", 415, "image_unsupported", text, image=text),
        BadInput("wrong_type", 415, "media_type_unsupported", good_image(), "text/plain"),
        BadInput("bomb", 413, "image_too_large", bomb(), "image/png", image=bomb()),
        BadInput("wrong_option", 422, "option_invalid", good_image(), query="?score_threshold=1.5"),
        BadInput(
            "body_too_large", 413, "request_too_large", b"\xff" * (max_bytes + 1), image=b"\xff" * (max_bytes + 1)
        ),
        BadInput("unknown_model", 404, "model_not_found", good_image(), query="?model=nobody"),
        BadInput("malformed_json", 400, "bad_request", b'{"images": [', "application/json"),
        BadInput("deep_json", 400, "bad_request", deep, "application/json"),
    ]


def json_body(*images: bytes, **options: object) -> bytes:
    """The JSON form of a request."""
    import base64

    return json.dumps({"images": [base64.b64encode(image).decode() for image in images], **options}).encode()


def multipart(*images: bytes, field_name: str = "image", **options: object) -> tuple[bytes, str]:
    """The multipart form of a request, and its Content-Type."""
    boundary = "cask-test-boundary"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field_name}"; filename="{number}.jpg"\r\n'
        f"Content-Type: image/jpeg\r\n\r\n".encode()
        + image
        + b"\r\n"
        for number, image in enumerate(images)
    ]
    parts += [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in options.items()
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
