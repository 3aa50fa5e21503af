"""The controller as WSGI and the app see it: a refusal touches neither body nor Flask, and all slots are given back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.web.middleware.admission import Admission
from app.web.middleware.admission_controller import AdmissionController
from tests import bad_input, fakes

ROUTE = "/v1/classify"


def controller(slots: int = 8) -> AdmissionController:
    return AdmissionController(slots, max_wait_seconds=1.0)


class UnreadBody:
    """A body that nobody may read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body was read")


def environ(path: str = ROUTE, method: str = "POST") -> dict[str, Any]:
    return {"PATH_INFO": path, "REQUEST_METHOD": method, "REMOTE_ADDR": "10.0.0.1", "wsgi.input": UnreadBody()}


def test_a_refusal_is_a_problem_document_that_touches_neither_body_nor_app() -> None:
    def application(*_: Any) -> list[bytes]:
        raise AssertionError("the app was asked")

    closed = Admission(application, controller(slots=0), [ROUTE])
    answered: list[Any] = []

    body = closed(environ(), lambda status, headers: answered.append((status, dict(headers))))

    status, headers = answered[0]
    document = json.loads(b"".join(body))
    assert status.startswith("503")
    assert int(headers["Retry-After"]) >= 1
    assert (document["code"], document["reason"]) == ("engine_busy", "slots")
    assert document["request_id"] == headers["X-Request-Id"]


@pytest.mark.parametrize(("path", "method"), [("/livez", "GET"), ("/v1/models", "GET"), ("/", "GET"), (ROUTE, "GET")])
def test_what_does_not_predict_is_always_let_in(path: str, method: str) -> None:
    closed = Admission(lambda *_: [b"through"], controller(slots=0), [ROUTE])

    assert closed(environ(path, method), lambda *_: None) == [b"through"]


def test_a_place_is_given_back_when_the_app_fails() -> None:
    def application(*_: Any) -> list[bytes]:
        raise RuntimeError("broken")

    middleware = Admission(application, controller(), [ROUTE])
    with pytest.raises(RuntimeError):
        middleware(environ(), lambda *_: None)

    assert (middleware.controller.in_hand, middleware.controller.images) == (0, 0)


def test_a_prediction_is_counted_while_it_is_in_work_and_not_after(tmp_path: Path) -> None:
    engine = fakes.FakeEngine()
    app = fakes.make_app(tmp_path, engine)
    seen: list[int] = []
    predict = engine.predict

    def watched(*arguments: Any) -> Any:
        seen.append(app.extensions["admission"].turns.running)
        return predict(*arguments)

    engine.predict = watched  # type: ignore[method-assign]
    answer = app.test_client().post(ROUTE, data=bad_input.good_image(), content_type="image/jpeg")

    assert answer.status_code == 200
    assert seen == [1]
    assert (app.extensions["admission"].turns.running, app.extensions["admission"].in_hand) == (0, 0)
    assert app.extensions["admission"].costs.least() > 0


def test_the_page_shows_a_refusal_as_a_page(tmp_path: Path) -> None:
    app = fakes.make_app(tmp_path)
    app.extensions["admission"].slots = 0

    answer = app.test_client().post("/upload", data={})

    assert answer.status_code == 503
    assert answer.mimetype == "text/html"
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("said", ["no-cache", "no-store", "max-age=0", 'Max-Age="0", x'])
def test_who_wants_it_computed_anew_is_known_to_need_the_engine(said: str) -> None:
    busy = AdmissionController(100, max_wait_seconds=0.1, has_cache=True)
    busy.costs.learn("kind", 1.0)
    ticket = busy.arrive("b")
    assert not hasattr(ticket, "reason")
    busy.begin(ticket, "kind", 2)
    answered: list[str] = []
    admission = Admission(lambda *_: [b"through"], busy, [ROUTE])

    assert admission({**environ(), "HTTP_CACHE_CONTROL": "max-age=60"}, lambda *_: None) == [b"through"]
    admission({**environ(), "HTTP_CACHE_CONTROL": said}, lambda status, _: answered.append(status))
    assert answered == ["503 Service Unavailable"]
