"""The bytes of requests, made before the clock runs. Each picture goes out with a number inside, so none is repeated.

The number stands in a JPEG comment right behind the start marker: the picture is the same, its bytes are not, and no
cache, ours included, can answer in the model's place.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Buffer = bytes | memoryview
START_OF_IMAGE = b"\xff\xd8"
COMMENT_MARKER = b"\xff\xfe"
# With the six bytes before it a multiple of three, so that base64 of the parts is the base64 of the whole.
NUMBER_DIGITS = 12
# One after the other for all measurements of this process: a server may keep its answers from one to the next.
_NUMBERS = itertools.count()
BOUNDARY = b"----a-boundary-that-no-jpeg-holds"


@dataclass(frozen=True)
class Request:
    """One request: what is sent, in order, and the label that the answer should name (None: any answer of 200)."""

    buffers: tuple[Buffer, ...]
    expected: str | None = None


@dataclass(frozen=True)
class Form:
    """How a contender wants its picture: the bytes around it, and whether it stands in base64."""

    content_type: str
    before: bytes = b""
    after: bytes = b""
    is_base64: bool = False


RAW = Form("image/jpeg")
BASE64_JSON = Form("application/json", b'{"image_data":"', b'"}', is_base64=True)


def multipart(part: str) -> Form:
    """One file in multipart/form-data under this name."""
    head = f'Content-Disposition: form-data; name="{part}"; filename="picture.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    before = b"--" + BOUNDARY + b"\r\n" + head.encode()
    after = b"\r\n--" + BOUNDARY + b"--\r\n"
    return Form(f"multipart/form-data; boundary={BOUNDARY.decode()}", before, after)


def picture_requests(
    path: str, form: Form, images: Sequence[bytes], labels: Sequence[str], *, keep_alive: bool = True
) -> Iterator[Request]:
    """Endless POST requests with one picture each, round and round, no two the same, whoever else makes some."""
    encode: Callable[[bytes], bytes] = base64.b64encode if form.is_base64 else bytes
    rests = [memoryview(encode(image[len(START_OF_IMAGE) :]) + form.after) for image in images]
    number_bytes = len(encode(_numbered(0)))
    heads = [
        _head("POST", path, keep_alive, form.content_type, len(form.before) + number_bytes + len(rest)) + form.before
        for rest in rests
    ]
    for number in _NUMBERS:
        index = number % len(images)
        yield Request((heads[index] + encode(_numbered(number)), rests[index]), labels[index])


def get_requests(path: str, token: str = "", *, keep_alive: bool = True) -> Iterator[Request]:
    """Endless GET requests of one path, with a token of ours where there is one."""
    return itertools.repeat(Request((_head("GET", path, keep_alive, token=token),)))


def _numbered(number: int) -> bytes:
    """The first bytes of a JPEG: its marker and a comment that holds the number."""
    text = b"%0*d" % (NUMBER_DIGITS, number)
    return START_OF_IMAGE + COMMENT_MARKER + (len(text) + 2).to_bytes(2, "big") + text


def _head(
    method: str, path: str, keep_alive: bool, content_type: str = "", length: int = 0, *, token: str = ""
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: application/json"]
    lines += [f"Content-Type: {content_type}", f"Content-Length: {length}"] if content_type else []
    lines += [f"X-Api-Token: {token}"] if token else []
    lines += [] if keep_alive else ["Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
