"""JSON that programs read differently is refused by name at every address; no answer holds NaN or an infinity."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from app.errors import RequestError
from app.web.api import json_bodies
from tests import fakes
from tests.fakes import FakeEngine

IMAGE = base64.b64encode(fakes.picture(64, 48, "PNG", (0, 0, 7))).decode()
TENSOR = f'{{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["{IMAGE}"]}}'
# Each address with a good body whose mark takes one member more.
GOOD = {
    "/v1/detect": f'{{"images": ["{IMAGE}"] MORE}}',
    "/v1/classify": f'{{"images": ["{IMAGE}"] MORE}}',
    "/v1/ensemble": f'{{"images": ["{IMAGE}"] MORE}}',
    "/v1/jobs": f'{{"images": ["{IMAGE}"] MORE}}',
    "/predict": f'{{"image": "{IMAGE}" MORE}}',
    "/": f'{{"requests": [{{"image": {{"content": "{IMAGE}"}}, "features": [{{"score_th": 0.5 MORE}}]}}]}}',
    "/api": f'{{"jsonrpc": "2.0", "id": 1, "method": "Image.detect", "params": {{"image": "{IMAGE}" MORE}}}}',
    "/v2/models/detector/infer": f'{{"inputs": [{TENSOR}], "parameters": {{"priority": 1 MORE}}}}',
    "/v2/repository/index": '{"ready": true MORE}',
}
WRONG = {
    "1e999": ('"x": 1e999', "1e999 is larger"),
    "-1e400": ('"x": -1e400', "-1e400 is larger"),
    "NaN": ('"x": NaN', "NaN is not a JSON number"),
    "Infinity": ('"x": -Infinity', "-Infinity is not a JSON number"),
    "5000 digits": ('"x": ' + "9" * 5000, "more than 4300 digits"),
    "half a surrogate pair": ('"x": "\\ud800"', "half a surrogate pair"),
    "half a surrogate pair in a key": ('"\\uDFFF": 1', "half a surrogate pair"),
    "nested": ('"x": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "key twice": ('"twice": 1, "twice": 2', "the key 'twice' stands more than once"),
    "key twice, deep": ('"x": [{"a": {"deep": 1, "deep": 1}}]', "the key 'deep' stands more than once"),
}


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> Iterator[FlaskClient]:
    """Sends requests to the real app with a fake engine."""
    yield fakes.make_app(tmp_path, engine).test_client()


@pytest.mark.parametrize("path", GOOD)
def test_good_body_is_answered(client: FlaskClient, path: str) -> None:
    response = client.post(path, data=GOOD[path].replace("MORE", ""), content_type="application/json")

    assert response.status_code in (200, 202), response.get_data(as_text=True)


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(("more", "reason"), WRONG.values(), ids=WRONG)
def test_json_that_is_read_differently_is_refused_with_400(
    client: FlaskClient, path: str, more: str, reason: str
) -> None:
    response = client.post(path, data=GOOD[path].replace("MORE", f", {more}"), content_type="application/json")

    assert response.status_code == 400
    assert reason in response.get_data(as_text=True)


# Bodies in which every member is a fault, and one that begins rightly.
FAULTS = {
    "inputs": ("/v2/models/detector/infer", '{"inputs": [MANY]}', "1"),
    "outputs": ("/v2/models/detector/infer", f'{{"inputs": [{TENSOR}], "outputs": [MANY]}}', "1"),
    "shape": ("/v2/models/detector/infer", TENSOR.replace("[1]", "[MANY]").join(('{"inputs": [', "]}")), '"x"'),
    "requests": ("/", '{"requests": [MANY]}', "1"),
    "features": ("/", f'{{"requests": [{{"image": {{"content": "{IMAGE}"}}, "features": [MANY]}}]}}', "1"),
    "images": ("/v1/detect", '{"images": [MANY]}', "1"),
    "members": ("/v1/ensemble", f'{{"images": ["{IMAGE}"], "members": [MANY]}}', "1"),
    "calls": ("/api", "[MANY]", "1"),
    "parameters": ("/api", '{"jsonrpc": "2.0", "id": 1, "method": "Image.detect", "params": [MANY]}', "1"),
}


@pytest.mark.parametrize(("path", "body", "member"), FAULTS.values(), ids=FAULTS)
def test_thousands_of_faults_take_no_more_memory_than_one(
    client: FlaskClient, path: str, body: str, member: str
) -> None:
    data = body.replace("MANY", ",".join([member] * 30_000)).encode()

    tracemalloc.start()
    try:
        response = client.post(path, data=data, content_type="application/json")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert 400 <= response.status_code < 500, response.get_data(as_text=True)
    assert peak < 8_000_000, f"{peak} bytes for a body of {len(data)}"


@pytest.mark.parametrize("path", GOOD)
def test_text_that_is_not_utf8_is_refused_with_400(client: FlaskClient, path: str) -> None:
    body = GOOD[path].replace("MORE", ', "x": "é"').encode("latin-1")

    response = client.post(path, data=body, content_type="application/json")

    assert response.status_code == 400
    assert "is not UTF-8" in response.get_data(as_text=True)


@pytest.mark.parametrize("number", ["1e999", "NaN", "Infinity", "-Infinity", "9" * 5000, '"\\ud800"'])
def test_id_comes_back_as_it_was_or_not_at_all(client: FlaskClient, number: str) -> None:
    call = f'{{"jsonrpc": "2.0", "method": "App.index", "id": {number}}}'

    response = client.post("/api", data=call, content_type="application/json")

    document = json.loads(response.data, parse_constant=lambda name: pytest.fail(f"the answer holds {name}"))
    assert (response.status_code, document["id"], document["error"]["code"]) == (400, None, -32700)


@pytest.mark.parametrize("number", [0, -7, 2**64, 10**400, 0.1, 1e308, "é", "𝄞", ""])
def test_id_that_is_one_comes_back(client: FlaskClient, number: Any) -> None:
    response = client.post("/api", json={"jsonrpc": "2.0", "method": "App.index", "id": number})

    assert (response.status_code, response.json["id"]) == (200, number)


@pytest.mark.parametrize("timeout", [10**400, 10**300, 2**64, 1e308])
def test_timeout_longer_than_any_deadline_is_none(client: FlaskClient, timeout: float) -> None:
    body = {"inputs": [json.loads(TENSOR)], "parameters": {"timeout": timeout}}

    assert client.post("/v2/models/detector/infer", json=body).status_code == 200


@pytest.mark.parametrize("option", ["score_threshold", "iou_threshold", "min_width", "max_results"])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "Infinity"])
def test_number_in_the_address_is_a_finite_one(client: FlaskClient, option: str, text: str) -> None:
    response = client.post(f"/v1/detect?{option}={text}", data=fakes.picture(), content_type="image/jpeg")

    assert (response.status_code, response.json["code"]) == (422, "option_invalid")


def test_answer_of_a_broken_model_holds_no_nan(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any) -> list[fakes.Prediction]:
        return [fakes.Prediction("cone", float(np.nan))]

    monkeypatch.setattr(fakes.FakeModel, "_answer", answer)

    response = client.post("/v1/classify", data=fakes.picture(), content_type="image/jpeg")

    assert (response.status_code, response.json["code"]) == (500, "internal_error")


@pytest.mark.parametrize("text", ['"\\\\ud800"', '"\\ud834\\udd1e"', '"\\u00e9"', '{"a": {"a": 1}}', "[1e308, 0.1]"])
def test_what_only_looks_wrong_is_read(text: str) -> None:
    assert json_bodies.load(text.encode()) == json.loads(text)


def test_reason_shows_the_key_in_plain_letters_and_short() -> None:
    with pytest.raises(RequestError) as failure:
        json_bodies.load(('{"' + "é" * 200 + '": 1, "' + "é" * 200 + '": 1}').encode())

    assert len(failure.value.message) < 600
    assert failure.value.message.isascii()
