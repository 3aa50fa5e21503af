"""Cache-Control of callers, and the headers that say where an answer is from."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.cache.predictions import Freshness
from app.errors import CaskError
from app.web.middleware.request_context import RequestContext
from tests import fakes
from tests.fakes import FakeEngine, picture


@pytest.fixture
def app(tmp_path: Path, engine: FakeEngine) -> Flask:
    """The real app, which keeps answers on disk."""
    return fakes.make_app(tmp_path, engine, cache="disk")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A caller."""
    return app.test_client()


def ask(client: FlaskClient, path: str = "/v1/classify", **headers: str) -> tuple[str | None, str | None]:
    response = client.post(path, data=picture(), content_type="image/jpeg", headers=headers)
    assert response.status_code == 200, response.data
    return response.headers.get("X-Cache"), response.headers.get("Age")


@pytest.mark.parametrize(
    ("text", "freshness"),
    [
        ("no-cache", Freshness(0)),
        ("No-Cache, max-age=5", Freshness(0)),
        ("max-age=60", Freshness(60)),
        ('max-age="60"', Freshness(60)),
        ("max-age=60, max-age=5", Freshness(5)),
        ("no-store", Freshness(may_keep=False)),
        ("max-age=-1, max-age=x, only-if-cached, stale=\x80", Freshness()),
        ("", Freshness()),
    ],
)
def test_what_callers_say_of_freshness(app: Flask, text: str, freshness: Freshness) -> None:
    with app.test_request_context(headers={"Cache-Control": text}):
        assert RequestContext().freshness() == freshness


def test_pragma_is_read_where_cache_control_says_nothing(app: Flask) -> None:
    with app.test_request_context(headers={"Pragma": "no-cache"}):
        assert RequestContext().freshness() == Freshness(0)


def test_outside_of_a_request_nothing_is_asked_and_told() -> None:
    asking = RequestContext()

    asking.tell([])
    assert asking.work("kind", 1, 0.0) is None
    assert asking.freshness() == Freshness()


def test_hit_is_told_with_its_age(client: FlaskClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(client) == ("miss", None)
    now = time.time()
    monkeypatch.setattr(client.application.extensions["predictor"].kept, "_clock", lambda: now + 90.9)

    assert ask(client) == ("hit", "90")
    assert len(engine.asked) == 1


def test_caller_gets_round_it(client: FlaskClient, engine: FakeEngine) -> None:
    ask(client)

    assert ask(client, **{"Cache-Control": "no-cache"}) == ("bypass", None)
    assert len(engine.asked) == 2


def test_several_images_are_partly_from_there(client: FlaskClient, engine: FakeEngine) -> None:
    ask(client)
    data = {"image": [(io.BytesIO(picture()), "a.jpg"), (io.BytesIO(picture(10, 10)), "b.jpg")]}

    response = client.post("/v1/classify", data=data)

    assert response.headers["X-Cache"] == "partial"
    assert [len(asked.images) for asked in engine.asked] == [1, 1]


def test_same_bytes_for_another_task_or_option_are_another_question(client: FlaskClient) -> None:
    ask(client)

    assert ask(client, "/v1/detect") == ("miss", None)
    assert ask(client, "/v1/classify?top_k=1") == ("miss", None)
    assert ask(client, "/v1/classify?top_k=5")[0] == "hit"


def test_refused_request_says_nothing_of_it(client: FlaskClient) -> None:
    response = client.post("/v1/classify", data=b"no image", content_type="image/jpeg")

    assert response.status_code == 415
    assert "X-Cache" not in response.headers


def test_hit_takes_no_place_in_the_engines_line(client: FlaskClient) -> None:
    controller = client.application.extensions["admission"]
    ask(client)
    controller.begin = None

    assert ask(client)[0] == "hit"
    assert (controller.in_hand, controller.images) == (0, 0)


def test_hit_is_answered_while_the_engine_is_away(client: FlaskClient, engine: FakeEngine) -> None:
    ask(client)
    engine.error = CaskError("gone")

    assert ask(client)[0] == "hit"


def test_without_a_cache_nothing_is_said(tmp_path: Path) -> None:
    client = fakes.make_app(tmp_path, cache="off").test_client()

    assert [ask(client), ask(client)] == [(None, None)] * 2


TEXT = base64.b64encode(picture()).decode()
DOCUMENTS = {
    "/v1/detect": {"images": [TEXT]},
    "/": {"image": TEXT},
    "/api": {"jsonrpc": "2.0", "method": "Image.detect", "params": {"image": TEXT}, "id": 1},
    "/v2/models/detector/infer": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]},
}


def test_every_address_that_predicts_shares_one_store(client: FlaskClient, engine: FakeEngine) -> None:
    answers = [client.post(path, json=document) for path, document in DOCUMENTS.items()]
    form = {"image_upload": (io.BytesIO(picture()), "a.jpg"), "task": "detect"}
    answers.append(client.post("/upload", data=form))

    assert [each.status_code for each in answers] == [200] * 5
    assert [each.headers["X-Cache"] for each in answers] == ["miss", "hit", "hit", "hit", "hit"]
    assert len(engine.asked) == 1
