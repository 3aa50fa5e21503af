"""Every failure has one shape, and none harms the next request."""

from __future__ import annotations

import base64
import gc
import importlib
import io
import json
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import app as package
from app import errors
from app.errors import (
    CaskError,
    DeadlineExceededError,
    EngineAwayError,
    EngineBusyError,
    GpuOutOfMemoryError,
    ModelNotReadyError,
    RequestError,
    UnavailableError,
)
from app.web.middleware import body_limits
from tests import bad_input
from tests.bad_input import BadInput
from tests.fakes import FakeEngine, picture

FIELDS = ["type", "title", "status", "detail", "code", "hint", "request_id"]
MAX_BYTES = 33_554_432  # REQUEST_MAX_BYTES of every environment
CASES = bad_input.cases(MAX_BYTES)
# Leaf errors of their own code, so that a caller's program can tell them apart.
SHARED_CODES: set[str] = set()


def error_classes() -> list[type[CaskError]]:
    """All of them, also those that a module declares for itself. torch is not needed for that."""
    for module in pkgutil.walk_packages(package.__path__, "app."):
        if not module.name.startswith(("app.runtimes", "app.engine.__main__")):
            importlib.import_module(module.name)
    return sorted(_below(CaskError), key=lambda each: each.__name__)


def _below(kind: type[CaskError]) -> Iterator[type[CaskError]]:
    yield kind
    for each in kind.__subclasses__():
        if each.__module__.startswith("app."):
            yield from _below(each)


def check_shape(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """A problem document with exactly our fields. Returns it."""
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = json.loads(response.data)
    assert list(document) == [*FIELDS, *(["reason"] if code == "engine_busy" else [])]
    assert (document["status"], document["code"], document["type"]) == (status, code, f"urn:cask:problem:{code}")
    assert document["title"] and document["detail"]
    assert document["request_id"] == response.headers["X-Request-Id"]
    assert len(response.headers.getlist("X-Request-Id")) == 1
    return document


def check_good(client: FlaskClient) -> None:
    """The next good request succeeds."""
    response = client.post("/v1/detect", data=picture(), content_type="image/jpeg")
    assert response.status_code == 200, response.get_data(as_text=True)


def post(client: FlaskClient, data: bytes, content_type: str | None = "image/jpeg", **how: Any) -> TestResponse:
    return client.post(how.pop("path", "/v1/detect"), data=data, content_type=content_type, **how)


# ── the classes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_codes_are_used_once() -> None:
    codes = Counter(each.__dict__.get("code") for each in error_classes())

    assert codes.pop(None, 0) == 0, "every error class names its own code"
    assert {code for code, count in codes.items() if count > 1} == SHARED_CODES


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_each_error_has_code_title_and_status(kind: type[CaskError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert kind.title and not kind.title.endswith(".")
    assert 400 <= kind.status < 600
    assert kind.__name__.endswith("Error") and kind.__doc__


@pytest.mark.parametrize("kind", [each for each in error_classes() if issubclass(each, RequestError)])
def test_what_is_the_callers_fault_is_a_4xx(kind: type[CaskError]) -> None:
    assert 400 <= kind.status < 500


@pytest.mark.parametrize("kind", [each for each in error_classes() if issubclass(each, UnavailableError)])
def test_what_will_pass_always_says_when(kind: type[CaskError]) -> None:
    assert kind.status == 503
    assert kind("now").retry_after_seconds


# ── the ten kinds of bad input ────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_ten_kinds_of_bad_input() -> None:
    assert len({case.name for case in CASES}) == 10


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/detect"])
def test_bad_input_is_refused_and_the_next_good_one_answered(client: FlaskClient, path: str, case: BadInput) -> None:
    query = "?top_k=-1" if case.name == "wrong_option" and path == "/v1/classify" else case.query

    response = post(client, case.body, case.content_type, path=path + query, headers=case.headers)

    document = check_shape(response, case.status, case.code)
    assert document["hint"]
    check_good(client)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_are_no_json_are_refused(client: FlaskClient, constant: str) -> None:
    body = b'{"images": [], "score_threshold": %s}' % constant.encode()

    document = check_shape(post(client, body, "application/json"), 400, "bad_request")

    assert f"{constant} is not a JSON number" in document["detail"]


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ([], 400, "bad_request"),
        ("text", 400, "bad_request"),
        (None, 400, "bad_request"),
        ({}, 400, "bad_request"),
        ({"images": "abc"}, 400, "bad_request"),
        ({"images": {}}, 400, "bad_request"),
        ({"images": [5]}, 400, "bad_request"),
        ({"images": [None]}, 400, "bad_request"),
        ({"images": []}, 400, "image_missing"),
        ({"images": ["garbage!"]}, 422, "image_undecodable"),
        ({"images": ["abc"]}, 415, "image_unsupported"),
        ({"images": ["abcde"]}, 422, "image_undecodable"),
        ({"images": ["é"]}, 422, "image_undecodable"),
        ({"images": ["\ud800"]}, 400, "bad_request"),
        ({"images": [""]}, 422, "image_empty"),
        ({"images": ["data:image/png;base64,"]}, 422, "image_empty"),
        ({"images": ["AAAA"]}, 415, "image_unsupported"),
        ({"images": ["AAAA"], "score_threshold": [0.5]}, 400, "bad_request"),
        ({"images": ["AAAA"], "score_threshold": {"a": 1}}, 400, "bad_request"),
        ({"images": ["AAAA"], "score_threshold": True}, 422, "option_invalid"),
        ({"images": ["AAAA"], "score_threshold": "0.5"}, 422, "option_invalid"),
        ({"images": ["AAAA"], "score_threshold": 10**400}, 422, "option_invalid"),
        ({"images": ["AAAA"], "\ud800": 1}, 400, "bad_request"),
        ({"images": ["AAAA"], "": 1}, 422, "option_invalid"),
        ({"images": ["AAAA"], "model": "\ud800"}, 400, "bad_request"),
        ({"images": ["AAAA"], "model": 5}, 422, "option_invalid"),
    ],
    ids=lambda value: json.dumps(value)[:50] if not isinstance(value, int) else None,
)
def test_json_of_another_shape_is_refused(client: FlaskClient, document: Any, status: int, code: str) -> None:
    check_shape(post(client, json.dumps(document).encode(), "application/json"), status, code)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"\x00", b"1" * 5000, b'{"images": [' + b"9" * 5000 + b"]}", b'{"a":' * 100_000]
)
def test_json_that_cannot_be_read_is_refused(client: FlaskClient, body: bytes) -> None:
    check_shape(post(client, body, "application/json"), 400, "bad_request")


@pytest.mark.parametrize("content_type", [None, "", "text/html", "application/x-www-form-urlencoded", "x", "é/é"])
def test_content_type_that_carries_no_image_is_refused(client: FlaskClient, content_type: str | None) -> None:
    document = check_shape(post(client, picture(), content_type), 415, "media_type_unsupported")

    assert "multipart/form-data" in document["hint"]


def test_option_that_stands_twice_in_the_address_is_refused(client: FlaskClient) -> None:
    document = check_shape(post(client, picture(), path="/v1/detect?max_results=1&max_results=2"), 400, "bad_request")

    assert document["detail"] == "'max_results' stands 2 times in the address."


def test_file_in_a_part_of_another_name_is_refused(client: FlaskClient) -> None:
    body, content_type = bad_input.multipart(picture(), field_name="file")

    document = check_shape(post(client, body, content_type), 400, "bad_request")

    assert document["detail"] == "The part 'file' holds a file."


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=x", '; boundary="' + "y" * 300])
def test_multipart_without_its_boundary_is_refused_for_that(client: FlaskClient, boundary: str) -> None:
    body, _ = bad_input.multipart(picture())

    document = check_shape(post(client, body, "multipart/form-data" + boundary), 400, "bad_request")

    assert "boundary" in document["detail"]


def test_multipart_with_an_image_as_a_plain_field_is_refused(client: FlaskClient) -> None:
    body, content_type = bad_input.multipart(image="this is no file")

    document = check_shape(post(client, body, content_type), 400, "bad_request")

    assert document["detail"] == "The part 'image' has no filename, so it is a field and no file."


def test_too_many_images_are_refused(client: FlaskClient) -> None:
    body, content_type = bad_input.multipart(*[picture()] * 33)
    as_json = json.dumps({"images": [base64.b64encode(picture()).decode()] * 33}).encode()

    check_shape(post(client, body, content_type), 413, "too_many_images")
    check_shape(post(client, as_json, "application/json"), 413, "too_many_images")


@pytest.fixture
def collected() -> Iterator[None]:
    """Werkzeug leaves the file of a part to the collector where it stops in the middle of a form."""
    yield
    gc.collect()


UNCLOSED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@UNCLOSED
@pytest.mark.usefixtures("collected")
def test_too_many_parts_are_refused_with_the_reason(client: FlaskClient) -> None:
    body, content_type = bad_input.multipart(*[b"x"] * 2000)

    document = check_shape(post(client, body, content_type), 413, "request_too_large")

    assert "33554432" not in document["detail"], "it is well below that limit"


@UNCLOSED
@pytest.mark.usefixtures("collected")
def test_form_field_that_is_too_long_is_refused_with_the_reason(client: FlaskClient) -> None:
    body, content_type = bad_input.multipart(picture(), model="x" * (body_limits.MAX_FORM_BYTES + 1))

    document = check_shape(post(client, body, content_type), 413, "request_too_large")

    assert "33554432" not in document["detail"]


def test_body_without_a_length_is_cut_off_at_the_limit(app: Flask, client: FlaskClient) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 1000

    response = client.post(
        "/v1/detect",
        input_stream=io.BytesIO(bytes(2000)),
        content_type="image/jpeg",
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )

    check_shape(response, 413, "request_too_large")


# ── addresses, methods, hosts, headers ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1", "/nothing", "/v1/detect/", "/static/nothing.js", "/v1/%0A%1b"])
def test_address_that_does_not_exist_is_404(client: FlaskClient, path: str) -> None:
    check_shape(client.get(path), 404, "not_found")


def test_long_address_is_not_repeated_in_full(client: FlaskClient) -> None:
    assert len(client.get("/v1/" + "x" * 7000).data) < 1000


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/v1/detect", "POST"), ("DELETE", "/v1/models", "GET")]
)
def test_method_that_is_not_taken_is_405_with_those_that_are(
    client: FlaskClient, method: str, path: str, allowed: str
) -> None:
    response = client.open(path, method=method)

    check_shape(response, 405, "method_not_allowed")
    assert allowed in response.headers["Allow"]


@pytest.mark.parametrize("name", ["nobody", "a%0Ab", "%F0%9F%98%80", "..", "a" * 3000])
def test_model_that_is_not_there_is_404(client: FlaskClient, name: str) -> None:
    response = client.get(f"/v1/models/{name}")

    assert response.status_code == 404
    assert json.loads(response.data)["code"] in ("model_not_found", "not_found")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "a b", "localhost@evil", "é"]
)
def test_host_that_is_not_ours_is_refused_while_health_is_answered(client: FlaskClient, host: str) -> None:
    headers = {"Host": host.encode().decode("latin-1")}

    check_shape(client.get("/v1/models", headers=headers), 400, "host_unknown")
    assert client.get("/livez", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost:8000", "127.0.0.1:80", "localhost.", "LocalHost.:8000"]
)
def test_host_that_is_ours_is_answered(client: FlaskClient, host: str) -> None:
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "x", "", "121", "1e9", "1_0"])
def test_timeout_outside_its_range_is_refused(client: FlaskClient, timeout: str) -> None:
    response = post(client, picture(), headers={"X-Request-Timeout": timeout})

    document = check_shape(response, 422, "option_invalid")
    assert document["hint"] == "Seconds, more than 0 and at most 120."


def test_callers_request_id_is_kept_when_it_is_harmless(client: FlaskClient) -> None:
    kept = client.get("/v1/nothing", headers={"X-Request-Id": "caller-12345"})
    replaced = client.get("/v1/nothing", headers={"X-Request-Id": "<script>alert(1)</script>"})

    assert check_shape(kept, 404, "not_found")["request_id"] == "caller-12345"
    assert re.fullmatch(r"[0-9a-f]{32}", check_shape(replaced, 404, "not_found")["request_id"])


# ── our own trouble ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (EngineAwayError("It has not started.", retry_after_seconds=2.0), 503, "2"),
        (EngineBusyError("64 wait."), 503, "1"),
        (EngineBusyError("64 wait.", retry_after_seconds=0.01), 503, "1"),
        (GpuOutOfMemoryError("No memory.", retry_after_seconds=5.0), 503, "5"),
        (ModelNotReadyError("It loads.", retry_after_seconds=29.1), 503, "30"),
        (DeadlineExceededError("Late."), 504, None),
        (CaskError("The model failed."), 500, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_trouble_of_the_engine_has_the_same_shape(
    client: FlaskClient, engine: FakeEngine, error: CaskError, status: int, retry_after: str | None
) -> None:
    engine.error = error

    response = post(client, picture())

    assert check_shape(response, status, error.code)["detail"] == error.message
    assert response.headers.get("Retry-After") == retry_after
    engine.error = None
    check_good(client)


def test_fault_of_ours_says_nothing_of_the_inside(client: FlaskClient, engine: FakeEngine) -> None:
    engine.error = ZeroDivisionError("secret detail")  # type: ignore[assignment]

    document = check_shape(post(client, picture()), 500, "internal_error")

    assert "secret" not in json.dumps(document)
    engine.error = None
    check_good(client)


def test_people_get_the_same_words_as_a_page(client: FlaskClient) -> None:
    as_page = client.get("/nothing", headers={"Accept": "text/html,*/*;q=0.8"})
    as_json = client.get("/nothing", headers={"Accept": "application/json"})

    assert as_page.status_code == as_json.status_code == 404
    assert as_page.mimetype == "text/html"
    assert json.loads(as_json.data)["hint"] in as_page.get_data(as_text=True)
    assert as_page.headers["X-Request-Id"] in as_page.get_data(as_text=True)


def test_all_classes_are_found() -> None:
    assert errors.GoldenCheckError in error_classes()
    assert len(error_classes()) > 20
