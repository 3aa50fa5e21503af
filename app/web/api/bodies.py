"""The three ways to send images: multipart parts, the raw bytes of one image, or base64 in JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Request
from werkzeug.datastructures import FileStorage

from app.errors import ImageUndecodableError, OptionError, RequestError
from app.inference import options
from app.texts import Text, gettext_noop
from app.web.api import base64_images, json_bodies
from app.web.middleware import body_limits, body_memory, form_bodies

IMAGE_PART = "image"
IMAGES_KEY = "images"
# Old clients still write the first four; they change no byte.
PLAIN_CODINGS = ("", "binary", "8bit", "7bit")
FORM_OF_FIELDS = "application/x-www-form-urlencoded"
HINT = gettext_noop('JSON must be {"images": [base64, …]} and options beside it.')


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
        data, params = _read_json(read_whole(request))
    elif kind == "multipart/form-data":
        data, params = _read_multipart(request)
    elif holds_bytes(kind):
        data, params = [read_whole(request)], {}
    else:
        raise media_type_error(
            kind, Text("multipart/form-data with image parts, image/* with the bytes of one image, or application/json")
        )
    return data, {**in_address(request), **params}


def holds_bytes(kind: str) -> bool:
    """Whether a body of this type is one image as it is. Amazon S3 and its tools say binary/octet-stream."""
    return kind.startswith("image/") or kind in ("application/octet-stream", "binary/octet-stream")


def media_type_error(kind: str, accepted: str) -> MediaTypeError:
    """Why this Content-Type is refused. ``accepted``: those that are not, in words."""
    if kind == FORM_OF_FIELDS:
        return MediaTypeError(
            "Content-Type is %(kind)s, a form that can hold no files; curl sends it where no other is given.",
            hint="Use %(accepted)s: with curl -F image=@FILE, or -H 'Content-Type: image/jpeg' --data-binary @FILE.",
            kind=repr(kind),
            accepted=accepted,
        )
    return MediaTypeError(
        "Content-Type is %(value)s.", hint="Use %(accepted)s.", value=repr(kind or "missing"), accepted=accepted
    )


def in_address(request: Request) -> dict[str, str]:
    """The options in the address. Raises RequestError where one stands there twice."""
    return form_bodies.once(request.args, Text("the address"))


def decode(number: int, text: Any) -> bytes:
    """The bytes of the image with this number. Raises RequestError, ImageUndecodableError."""
    if not isinstance(text, str):
        raise RequestError(
            "Image %(number)s is %(found)s, expected base64 text.",
            hint=HINT,
            number=number,
            found=json_bodies.kind_of(text),
        )
    try:
        return base64_images.decode(text)
    except ValueError as error:
        raise ImageUndecodableError(
            "Image %(number)s is not base64: %(error)s.", hint=HINT, number=number, error=error
        ) from None


def read_whole(request: Request) -> bytes:
    """The body as it came. Raises RequestTooLargeError."""
    body = request.get_data(cache=False)
    limit = request.max_content_length
    if request.content_length is None and limit is not None and len(body) >= limit:
        # Werkzeug cuts such a body off at the limit without a word.
        raise body_limits.too_large(None, limit)
    return body


def _read_multipart(request: Request) -> tuple[list[bytes], dict[str, Any]]:
    fields = fields_beside(request, (IMAGE_PART,))
    return [part.read() for part in request.files.getlist(IMAGE_PART)], fields


def _refuse_transfer_coding(files: Iterable[FileStorage]) -> None:
    for coding in (file.headers.get("Content-Transfer-Encoding", "").strip().lower() for file in files):
        if coding not in PLAIN_CODINGS:
            raise RequestError(
                "A file of the form has the Content-Transfer-Encoding %(coding)s.",
                hint="Send its bytes as they are; parts of a form are not encoded (RFC 7578, section 4.7).",
                coding=ascii(coding[:80]),
            )


def fields_beside(request: Request, files: tuple[str, ...]) -> dict[str, str]:
    """The fields of a form whose files are in parts of these names.

    Raises RequestError for a file in another part, a part of these names that is none, and a field that stands twice.
    """
    named = " or ".join(f'"{file}"' for file in files)
    for name in sorted(map(str, set(request.files) - set(files))):
        raise RequestError(
            "The part %(name)s holds a file.",
            hint="Files are sent in parts named %(named)s.",
            name=ascii(name[:80]),
            named=named,
        )
    _refuse_transfer_coding(file for _, file in request.files.items(multi=True))
    for name in files:
        if name in request.form:
            raise RequestError(
                "The part %(name)s has no filename, so it is a field and no file.",
                hint='Content-Disposition: form-data; name="%(plain)s"; filename="a.jpg". '
                "With curl: -F %(plain)s=@FILE.",
                name=repr(name),
                plain=name,
            )
    return form_bodies.once(request.form)


def read_json(request: Request) -> Any:
    """The body as JSON. Raises RequestError where it is none, MediaTypeError for another Content-Type."""
    if request.mimetype != "application/json":
        raise media_type_error(request.mimetype, "application/json")
    return load(read_whole(request))


def load(body: bytes, hint: str = "") -> Any:
    """The document, within what memory this request may hold. Raises RequestError, MemoryShortError."""
    body_memory.hold_json(body)
    return json_bodies.load(body, hint)


def _read_json(body: bytes) -> tuple[list[bytes], dict[str, Any]]:
    document = load(body, HINT)
    images = pictures(document.pop(IMAGES_KEY, None) if isinstance(document, dict) else None)
    return images, flat(document)


def whole(value: Any) -> Any:
    """JSON has one kind of number: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def pictures(texts: Any) -> list[bytes]:
    """The images of a list of base64 texts. Raises RequestError, ImageUndecodableError."""
    return [decode(number, text) for number, text in enumerate(listed(texts), start=1)]


def listed(texts: Any) -> list[Any]:
    """The list of images in a JSON document. Raises RequestError where it is none."""
    if not isinstance(texts, list):
        raise RequestError('The JSON has no list "%(list)s".', hint=HINT, list=IMAGES_KEY)
    return texts


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """The options beside the images. Raises RequestError, OptionError."""
    for name, value in document.items():
        if isinstance(value, dict | list):
            raise RequestError(
                "%(name)s is %(found)s, expected a number or a text.",
                hint=HINT,
                name=repr(name),
                found=json_bodies.kind_of(value),
            )
        if value == "":
            raise OptionError("%(name)s is empty.", hint="Leave it out, or say null.", name=ascii(name))
        if isinstance(value, str) and name in options.NUMBERS:
            raise OptionError(
                "%(name)s is the text %(value)s.",
                hint="JSON has numbers: write it without quotes.",
                name=name,
                value=repr(value[:80]),
            )
    return dict(document)
