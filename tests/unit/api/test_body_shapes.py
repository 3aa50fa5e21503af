"""In how many shapes people send an image: each is answered, or told its own true reason."""

from __future__ import annotations

import base64
import gc
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests import bad_input, fakes
from tests.fakes import FakeEngine

IMAGE = fakes.picture(64, 48, "PNG", (0, 0, 7))


def odd_picture() -> bytes:
    """Its base64 needs padding, and holds both characters that the alphabet for addresses writes in another way."""
    for number in range(1000):
        data = fakes.picture(64, 48, "PNG", (0, number % 256, number // 256))
        if len(data) % 3 and {"+", "/"} <= set(base64.b64encode(data).decode()):
            return data
    raise AssertionError("no such picture")


ODD = odd_picture()
PLAIN = base64.b64encode(ODD).decode()
BOUNDARY = "----cask"


def lines(text: str, width: int, end: str) -> str:
    return "".join(text[start : start + width] + end for start in range(0, len(text), width))


BASE64 = {
    "plain": PLAIN,
    "MIME lines": lines(PLAIN, 76, "\r\n"),
    "lines of Unix and Android": lines(PLAIN, 76, "\n"),
    "in blanks": f"  {PLAIN[:10]} {PLAIN[10:]}\t\n",
    "lines joined by a shell": lines(PLAIN, 76, " "),
    "unpadded lines joined by a shell": lines(PLAIN.rstrip("="), 64, " "),
    "data address": f"data:image/png;base64,{PLAIN}",
    "data address, odd case": f"DATA:image/PNG;charset=utf-8;BASE64,{PLAIN}",
    "data address with lines": "data:image/png;base64," + lines(PLAIN, 64, "\n"),
    "for addresses": base64.urlsafe_b64encode(ODD).decode(),
    "unpadded": PLAIN.rstrip("="),
    "for addresses, unpadded": base64.urlsafe_b64encode(ODD).decode().rstrip("="),
    "padded too much": PLAIN + "==",
}
NO_BASE64 = {
    "+ lost in a form": (PLAIN.replace("+", " "), "blanks where + was"),
    "+ lost in a data address": (f"data:image/png;base64,{PLAIN.replace('+', ' ')}", "blanks where + was"),
    "cut off": (PLAIN.rstrip("=")[: len(PLAIN) // 4 * 4 - 7], "characters cannot be whole bytes"),
    "no base64": ("!" + PLAIN, "characters that base64 does not have"),
    "not ASCII": ("é" + PLAIN, "not ASCII"),
    "data address that is not base64": ("data:image/png," + quote(ODD), "does not say ;base64"),
    "data address without a comma": ("data:image/png;base64", "does not say ;base64"),
    "escaped for an address": (quote(PLAIN, safe=""), "characters that base64 does not have"),
}


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> Iterator[FlaskClient]:
    """Sends requests to the real app with a fake engine."""
    yield fakes.make_app(tmp_path, engine).test_client()


def bodies_with(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The same base64 at every address that takes one."""
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    return [
        ("/v1/detect", {"images": [text]}),
        ("/v1/jobs", {"images": [text]}),
        ("/v1/ensemble", {"images": [text]}),
        ("/predict", {"image": text}),
        ("/", {"requests": [{"image": {"content": text}}]}),
        ("/api", {"jsonrpc": "2.0", "method": "Image.detect", "params": {"image": text}, "id": 1}),
        ("/v2/models/detector/infer", {"inputs": [tensor]}),
    ]


@pytest.mark.parametrize("text", BASE64.values(), ids=BASE64)
def test_base64_in_any_form_is_the_same_image(client: FlaskClient, engine: FakeEngine, text: str) -> None:
    expected = client.post("/v1/detect", data=ODD, content_type="image/png").json["results"]

    for path, body in bodies_with(text):
        response = client.post(path, json=body)
        assert response.status_code in (200, 202), (path, response.get_data(as_text=True))
    assert client.post("/v1/detect", json={"images": [text]}).json["results"] == expected


@pytest.mark.parametrize(("text", "reason"), NO_BASE64.values(), ids=NO_BASE64)
def test_what_is_no_base64_is_told_why(client: FlaskClient, text: str, reason: str) -> None:
    for path, body in bodies_with(text):
        response = client.post(path, json=body)
        assert 400 <= response.status_code < 500, path
        assert reason in response.get_data(as_text=True), (path, response.get_data(as_text=True))


def part(head: str, data: bytes, kind: str = "image/png") -> bytes:
    lines = f"Content-Disposition: form-data; {head}\r\n" + (f"Content-Type: {kind}\r\n" if kind else "")
    return f"--{BOUNDARY}\r\n{lines}\r\n".encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FORM = f"multipart/form-data; boundary={BOUNDARY}"
ONE = part('name="image"; filename="a.png"', IMAGE)


@dataclass(frozen=True)
class Sent:
    """A body as somebody sends it, and what is right. ``says``: part of the reason, where it is refused."""

    body: bytes
    content_type: str | None
    status: int = 200
    says: str = ""


SENT = {
    "form": Sent(ONE + END, FORM),
    "form with odd case and quotes": Sent(ONE + END, f'Multipart/FORM-data; charset=utf-8; Boundary="{BOUNDARY}"'),
    "form with an empty filename": Sent(part('name="image"; filename=""', IMAGE) + END, FORM),
    "form with a filename in UTF-8": Sent(part("name=\"image\"; filename*=UTF-8''%C3%A4.png", IMAGE) + END, FORM),
    "form with a part without a type": Sent(part('name="image"; filename="a"', IMAGE, "") + END, FORM),
    "form that names no boundary": Sent(ONE + END, "multipart/form-data", 400, "names no boundary"),
    "form with another boundary": Sent(ONE + END, "multipart/form-data; boundary=x", 400, "does not occur in the body"),
    "form without its closing boundary": Sent(ONE, FORM, 400, "ends before its closing boundary"),
    "form that was cut off": Sent(ONE[:-20], FORM, 400, "ends before its closing boundary"),
    "form with an image that has no filename": Sent(part('name="image"', IMAGE) + END, FORM, 400, "has no filename"),
    "form with a part without a name": Sent(ONE + part("x=1", b"1", "") + END, FORM, 400, "has no name"),
    "form with a part without a head": Sent(
        f"--{BOUNDARY}\r\nA: b\r\n\r\nx\r\n".encode() + END, FORM, 400, "Missing Content-Disposition"
    ),
    **{
        f"form with the part {name}": Sent(
            part(f'name="{name}"; filename="a.png"', IMAGE) + END, FORM, 400, f"The part '{name}' holds a file."
        )
        for name in ("file", "images", "images[]", "upload")
    },
    "form with a file in base64": Sent(
        part('name="image"; filename="a"', PLAIN.encode(), "image/png\r\nContent-Transfer-Encoding: Base64") + END,
        FORM,
        400,
        "Content-Transfer-Encoding 'base64'",
    ),
    "form with a file as it is": Sent(
        part('name="image"; filename="a"', IMAGE, "image/png\r\nContent-Transfer-Encoding: binary") + END, FORM
    ),
    "form without parts": Sent(END, FORM, 400, "holds no image"),
    "form of nothing": Sent(b"", FORM, 400, "holds no image"),
    "field twice": Sent(
        ONE + part('name="max_results"', b"1", "") + part('name="max_results"', b"2", "") + END,
        FORM,
        400,
        "'max_results' stands 2 times in the form.",
    ),
    "multipart of another kind": Sent(ONE + END, f"multipart/mixed; boundary={BOUNDARY}", 415, "'multipart/mixed'"),
    "raw": Sent(IMAGE, "image/png"),
    "raw with odd case": Sent(IMAGE, 'IMAGE/Png; charset="binary"'),
    "raw with the wrong image type": Sent(IMAGE, "image/jpeg"),
    "raw as octets": Sent(IMAGE, "application/octet-stream"),
    "raw from S3": Sent(IMAGE, "binary/octet-stream"),
    "JSON with a null": Sent(b'{"images": [null]}', "application/json", 400, "Image 1 is null, expected"),
    "JSON with an object": Sent(
        b'{"images": [{"b64": ""}]}', "application/json", 400, "Image 1 is an object, expected"
    ),
    "JSON with a number": Sent(b'{"images": [5]}', "application/json", 400, "Image 1 is a number, expected"),
    "raw without a type": Sent(IMAGE, None, 415, "Content-Type is 'missing'"),
    "raw as text": Sent(IMAGE, "text/plain", 415, "Content-Type is 'text/plain'"),
    "raw as curl sends it": Sent(IMAGE, "application/x-www-form-urlencoded", 415, "curl sends it where no other is"),
    "base64 in a form of fields": Sent(
        f"image={quote(PLAIN)}".encode(), "application/x-www-form-urlencoded", 415, "a form that can hold no files"
    ),
    "JSON with a charset": Sent(bad_input.json_body(IMAGE), "application/JSON; charset=UTF-8"),
    "JSON with a mark of its byte order": Sent(b"\xef\xbb\xbf" + bad_input.json_body(IMAGE), "application/json"),
    "JSON in UTF-16": Sent(bad_input.json_body(IMAGE).decode().encode("utf-16"), "application/json", 400, "not UTF-8"),
    "JSON as text": Sent(bad_input.json_body(IMAGE), "text/plain", 415, "Content-Type is 'text/plain'"),
    "JSON as a form": Sent(bad_input.json_body(IMAGE), FORM, 400, "does not occur in the body"),
    "a form as JSON": Sent(ONE + END, "application/json", 400, "The body is not JSON"),
}


def send(client: FlaskClient, path: str, sent: Sent) -> TestResponse:
    return client.post(path, data=sent.body, content_type=sent.content_type)


@pytest.fixture(scope="module")
def few_objects() -> Iterator[None]:
    """The collector looks at what is made from here on only: a look at all that a test run holds takes 0.15 s."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def collected(few_objects: None) -> Iterator[None]:
    """Werkzeug leaves the file of a part to the collector where it stops in the middle of a form."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("path", ["/v1/detect", "/v1/jobs", "/v1/ensemble"])
@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_body_is_answered_or_told_its_own_reason(client: FlaskClient, path: str, sent: Sent) -> None:
    response = send(client, path, sent)

    if sent.status == 200:
        assert response.status_code in (200, 202), response.get_data(as_text=True)
    else:
        assert response.status_code == sent.status, response.get_data(as_text=True)
        assert sent.says in response.json["detail"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "x-gzip", "gzip, identity", "zstd", "\xff"])
@pytest.mark.parametrize(
    "path",
    [
        *("/v1/detect", "/v1/classify", "/v1/jobs", "/v1/ensemble", "/", "/predict", "/api", "/upload"),
        *("/v2/models/detector/infer", "/v2/repository/index"),
    ],
)
def test_compressed_body_is_refused_the_same_everywhere(client: FlaskClient, path: str, coding: str) -> None:
    response = client.post(path, data=gzip.compress(IMAGE), headers={"Content-Encoding": coding})

    assert response.status_code == 415
    assert response.headers["Accept-Encoding"] == "identity"
    assert "The body is compressed" in response.get_data(as_text=True)


def test_body_that_says_it_is_not_compressed_is_read(client: FlaskClient) -> None:
    response = client.post("/v1/detect", data=IMAGE, content_type="image/png", headers={"Content-Encoding": "Identity"})

    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/upload", "/jobs", "/sign-in"])
def test_field_that_stands_twice_is_refused_by_every_form(client: FlaskClient, path: str) -> None:
    body = ONE + part('name="task"', b"detect", "") + part('name="task"', b"classify", "") + END

    response = client.post(path, data=body, content_type=FORM, headers={"Accept": "text/html"})

    if path == "/sign-in":
        assert response.status_code == 303, "nobody is asked for a token here"
    else:
        assert response.status_code == 400
        assert "stands 2 times in the form" in response.get_data(as_text=True)
