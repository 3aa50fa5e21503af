"""JSON-RPC 2.0 at /api: the examples of the specification (section 7), predictions, and failures in its shape."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.errors import EngineBusyError
from app.inference.results import ClassifyOptions
from tests import fakes
from tests.fakes import FakeEngine, picture


@pytest.fixture
def client(tmp_path: Path, engine: FakeEngine) -> FlaskClient:
    """A caller of the real app with a fake engine."""
    return fakes.make_app(tmp_path, engine).test_client()


def encoded(number: int = 7) -> str:
    return base64.b64encode(picture(64, 48, "PNG", (0, 0, number))).decode()


def call(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params}), **more}


def labels(result: dict[str, Any]) -> list[str]:
    return [each["predictions"][0]["label"] for each in result["results"]]


def test_index_says_who_answers(client: FlaskClient) -> None:
    reply = client.post("/api", json=call("App.index", id=1)).json

    assert reply == {"jsonrpc": "2.0", "id": 1, "result": reply["result"]}
    assert reply["result"].startswith("Welcome to Cask")


def test_models_are_those_of_the_api(client: FlaskClient) -> None:
    assert (
        client.post("/api", json=call("Model.list", [], id="a")).json["result"]
        == client.get("/v1/models").json["models"]
    )


@pytest.mark.parametrize(
    "params", [{"image": encoded(), "top_k": 1}, [encoded(), 1], [[encoded()], 1], {"image": [encoded()], "top_k": 1}]
)
def test_images_are_predicted_by_name_and_by_position(client: FlaskClient, engine: FakeEngine, params: Any) -> None:
    reply = client.post("/api", json=call("Image.classify", params, id=1)).json

    assert labels(reply["result"]) == ["7"]
    assert engine.asked[0].options == [ClassifyOptions(top_k=1)]


def test_several_images_of_a_call_share_a_batch(client: FlaskClient, engine: FakeEngine) -> None:
    reply = client.post("/api", json=call("Image.classify", {"image": [encoded(3), encoded(1)]}, id=1)).json

    assert labels(reply["result"]) == ["3", "1"]
    assert len(engine.asked) == 1


def test_batch_is_answered_call_by_call_and_notifications_are_not(
    client: FlaskClient, engine: FakeEngine, failed_parts: list[tuple[str, str]]
) -> None:
    calls = [
        call("Image.detect", {"image": encoded()}, id=1),
        call("Image.classify", {"image": encoded()}),
        call("Image.nothing", id="2"),
        {"foo": "boo"},
        1,
        call("Model.list", id=None),
    ]

    response = client.post("/api", json=calls)

    replies = response.json
    assert response.status_code == 200
    assert [(each["id"], each.get("error", {}).get("code")) for each in replies] == [
        (1, None),
        ("2", -32601),
        (None, -32600),
        (None, -32600),
        (None, None),
    ]
    assert len(engine.asked) == 2, "the notification was carried out"
    assert failed_parts == [("call", code) for code in ("rpc_method_not_found", "rpc_call_invalid", "rpc_call_invalid")]


@pytest.mark.parametrize(
    ("body", "status", "parts"),
    [
        (call("Image.detect", {}, id=1), 400, []),
        (call("Image.detect", {}), 204, [("call", "image_missing")]),
        ([call("Image.detect", {})], 204, [("call", "image_missing")]),
        ([call("Model.list", id=1)], 200, []),
    ],
    ids=["single", "notification", "batch", "success"],
)
def test_failure_that_the_status_does_not_say_is_counted_as_a_part(
    client: FlaskClient, failed_parts: list[tuple[str, str]], body: Any, status: int, parts: list[tuple[str, str]]
) -> None:
    assert client.post("/api", json=body).status_code == status

    assert failed_parts == parts


def test_notifications_alone_get_nothing(client: FlaskClient) -> None:
    for body in (call("App.index"), [call("App.index"), call("App.index")], call("Image.nothing")):
        response = client.post("/api", json=body)

        assert (response.status_code, response.data) == (204, b"")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', 400, -32700),
        (b'[{"jsonrpc": "2.0", "method"', 400, -32700),
        (b"[]", 400, -32600),
        (b"null", 400, -32600),
        (b'{"jsonrpc": "2.0", "method": 1, "params": "bar"}', 400, -32600),
        (b'{"jsonrpc": "1.0", "method": "App.index", "id": 1}', 400, -32600),
        (b'{"jsonrpc": "2.0", "method": "App.index", "id": {}}', 400, -32600),
        (b'{"jsonrpc": "2.0", "method": "foobar", "id": 1}', 404, -32601),
        (b'{"jsonrpc": "2.0", "method": "App.index", "params": [1], "id": 1}', 422, -32602),
        (b'{"jsonrpc": "2.0", "method": "App.index", "params": {"a": 1}, "id": 1}', 422, -32602),
        (b'{"jsonrpc": "2.0", "method": "Image.detect", "id": 1}', 400, -32602),
        (b'{"jsonrpc": "2.0", "method": "Image.detect", "params": {"image": 5}, "id": 1}', 400, -32602),
        (b'{"jsonrpc": "2.0", "method": "Image.detect", "params": {"image": "AAAA"}, "id": 1}', 415, -32602),
        (
            b'{"jsonrpc": "2.0", "method": "Image.detect", "params": {"image": "AAAA", "top_k": 1}, "id": 1}',
            422,
            -32602,
        ),
    ],
)
def test_failure_has_the_number_of_the_specification(client: FlaskClient, body: bytes, status: int, code: int) -> None:
    response = client.post("/api", data=body, content_type="application/json")

    reply = json.loads(response.data)
    assert (response.status_code, reply["error"]["code"]) == (status, code)
    assert reply["error"]["data"]["status"] == status
    assert reply["error"]["data"]["request_id"] == response.headers["X-Request-Id"]
    assert set(reply) == {"jsonrpc", "id", "error"}


def test_engine_that_is_busy_says_when_to_come_again(client: FlaskClient, engine: FakeEngine) -> None:
    engine.error = EngineBusyError("64 wait.", retry_after_seconds=3.0)

    response = client.post("/api", json=call("Image.detect", {"image": encoded()}, id=1))

    assert (response.status_code, response.json["error"]["code"]) == (503, -32000)
    assert response.json["error"]["data"]["retry_after_seconds"] == 3.0
    assert response.headers["Retry-After"] == "3"


def test_what_a_guard_refuses_has_the_shape_too(client: FlaskClient) -> None:
    host = client.post("/api", json=call("App.index", id=1), headers={"Host": "evil.example"})
    kind = client.post("/api", data=b"{}", content_type="text/plain")

    assert (host.status_code, host.json["error"]["code"]) == (400, -32600)
    assert (kind.status_code, kind.json["error"]["data"]["code"]) == (415, "media_type_unsupported")


def test_too_many_calls_are_refused(client: FlaskClient) -> None:
    response = client.post("/api", json=[call("App.index", id=1)] * 33)

    assert response.json["error"]["data"]["detail"] == "The batch has 33 calls; at most 32 are accepted."


@pytest.mark.parametrize("path", ["/api", "/api/browse"])
def test_page_shows_each_method(client: FlaskClient, path: str) -> None:
    page = client.get(path).get_data(as_text=True)

    for name in ("App.index", "Model.list", "Image.classify", "Image.detect"):
        assert f">{name}</h2>" in page
