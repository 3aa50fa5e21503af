"""The three ways to send images: multipart parts, the raw bytes of one image, or base64 in JSON."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Request

from app import options
from app.errors import ImageUndecodableError, OptionError, RequestError
from app.guards import memory, sizes

IMAGE_PART = "image"
IMAGES_KEY = "images"
# Callers nest by mistake or by malice; a body of ours is three levels deep at most.
HINT = 'JSON must be {"images": [base64, …]} and options beside it.'


class MediaTypeError(RequestError):
    """The Content-Type is none of those that carry images."""

    code = "media_type_unsupported"
    status = 415
    title = "The Content-Type is not accepted"


def read(request: Request) -> tuple[list[bytes], dict[str, Any]]:
    """The images in the order sent, and the options beside them; options in the address count too.

    Raises RequestError where the body is malformed, MediaTypeError for another Content-Type.
    """
    kind = request.mimetype
    if kind == "application/json":
        data, wishes = _read_json(read_whole(request))
    elif kind == "multipart/form-data":
        data, wishes = _read_multipart(request)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        data, wishes = [read_whole(request)], {}
    else:
        raise MediaTypeError(
            f"Content-Type is {kind or 'missing'!r}.",
            hint="Use multipart/form-data with image parts, image/* with the bytes of one image, or application/json.",
        )
    return data, {**in_address(request), **wishes}


def in_address(request: Request) -> dict[str, str]:
    """The options in the address. Raises OptionError where one stands there twice."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise OptionError(f"{name[:80]!a} stands {len(values)} times in the address.", hint="Say it once.")
    return request.args.to_dict()


def decode(number: int, text: Any) -> bytes:
    """The bytes of the image with this number. Raises RequestError, ImageUndecodableError."""
    if not isinstance(text, str):
        raise RequestError(f"Image {number} is {type(text).__name__}, expected base64 text.", hint=HINT)
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageUndecodableError(f"Image {number} is not base64: {error}.", hint=HINT) from None


def read_whole(request: Request) -> bytes:
    """The body as it came. Raises RequestTooLargeError."""
    body = request.get_data(cache=False)
    limit = request.max_content_length
    if request.content_length is None and limit is not None and len(body) >= limit:
        # Werkzeug cuts such a body off at the limit without a word.
        raise sizes.too_large(None, limit)
    return body


def _read_multipart(request: Request) -> tuple[list[bytes], dict[str, Any]]:
    unknown = sorted(set(request.files) - {IMAGE_PART})
    if unknown:
        raise RequestError(
            f"The part {unknown[0]!r} holds a file.", hint=f'Files are sent in parts named "{IMAGE_PART}".'
        )
    return [part.read() for part in request.files.getlist(IMAGE_PART)], request.form.to_dict()


def read_json(request: Request) -> Any:
    """The body as JSON. Raises RequestError where it is none, MediaTypeError for another Content-Type."""
    if request.mimetype != "application/json":
        raise MediaTypeError(f"Content-Type is {request.mimetype or 'missing'!r}.", hint="Use application/json.")
    return load(read_whole(request))


def load(body: bytes, hint: str = "") -> Any:
    """JSON as RFC 8259 has it. Raises RequestError, MemoryShortError."""
    memory.hold_json(body)
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise RequestError("The JSON is nested too deeply.", hint=hint) from None
    except ValueError as error:
        raise RequestError(f"The body is not JSON: {error}.", hint=hint) from None


def _read_json(body: bytes) -> tuple[list[bytes], dict[str, Any]]:
    document = load(body, HINT)
    if not isinstance(document, dict) or not isinstance(document.get(IMAGES_KEY), list):
        raise RequestError(f'The JSON has no list "{IMAGES_KEY}".', hint=HINT)
    images = pictures(document.pop(IMAGES_KEY))
    return images, flat(document)


def whole(value: Any) -> Any:
    """JSON has one kind of number: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def pictures(texts: Any) -> list[bytes]:
    """The images of a list of base64 texts. Raises RequestError, ImageUndecodableError."""
    if not isinstance(texts, list):
        raise RequestError(f'The JSON has no list "{IMAGES_KEY}".', hint=HINT)
    return [decode(number, text) for number, text in enumerate(texts, start=1)]


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """The options beside the images. Raises RequestError, OptionError."""
    for name, value in document.items():
        if isinstance(value, dict | list):
            raise RequestError(f"{name!r} is {type(value).__name__}, expected a number or a text.", hint=HINT)
        if value == "":
            raise OptionError(f"{name!a} is empty.", hint="Leave it out, or say null.")
        if isinstance(value, str) and name in options.NUMBERS:
            raise OptionError(f"{name} is the text {value[:80]!r}.", hint="JSON has numbers: write it without quotes.")
    return dict(document)


def _refuse_constant(name: str) -> NoReturn:
    # Python reads NaN and Infinity, which are no JSON (RFC 8259, section 6).
    raise ValueError(f"{name} is not a JSON number")
