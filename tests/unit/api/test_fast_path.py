"""One image or file as the body of a POST is answered before Flask, and nobody can tell."""

from __future__ import annotations

import io
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request_started
from werkzeug.test import TestResponse

from app.auth.tokens import TokenStore
from app.errors import DeadlineExceededError, EngineBusyError, ModelNotReadyError
from app.model_code import adding
from app.model_code.adding import NewCode
from app.telemetry import logs
from tests import fakes
from tests.fakes import FakeEngine, picture
from tests.unit.model_code import folders

# Functions of ours that one ordinary request calls. It took 305 of ours and 900 of Flask's on its way.
MOST_CALLS = 280
CHANGING = ("Server-Timing", "RateLimit-Reset", "Age")


def ask(app: Flask, path: str, body: bytes, headers: Mapping[str, str], **beside: Any) -> TestResponse:
    return app.test_client().post(
        path, data=body, headers={"X-Request-Id": "abcdefgh", "Content-Type": "image/jpeg", **headers}, **beside
    )


def shown(response: TestResponse) -> tuple[int, list[tuple[str, str]], bytes]:
    """All that a caller sees, without the times in it."""
    headers = [(name, "" if name in CHANGING else value) for name, value in response.headers]
    return response.status_code, headers, response.data


JPEG = picture()
ASKED: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "plain": ("/v1/classify", JPEG, {}),
    "detect": ("/v1/detect?min_score=0.1", JPEG, {}),
    "PNG": ("/v1/classify", picture(kind="PNG"), {"Content-Type": "image/png"}),
    "bytes": ("/v1/classify", JPEG, {"Content-Type": "application/octet-stream"}),
    "options": ("/v1/classify?top_k=2&min_score=0.25&model=", JPEG, {}),
    "blank": ("/v1/classify?top_k=+2", JPEG, {}),
    "explained": ("/v1/classify?explain=true", JPEG, {}),
    "label that is no UTF-8": ("/v1/classify?explain=true&explain_label=%FF", JPEG, {}),
    "two ways to write it": ("/v1/classify?top%5Fk=2&model=%63lassifier", JPEG, {}),
    "option out of range": ("/v1/classify?top_k=0", JPEG, {}),
    "option twice": ("/v1/classify?top_k=1&top_k=1", JPEG, {}),
    "unknown option": ("/v1/classify?top=1", JPEG, {}),
    "unknown option, not ASCII": ("/v1/classify?t%C3%B6p=1", JPEG, {}),
    "half of a pair": ("/v1/classify?top_k", JPEG, {}),
    "no model of the name": ("/v1/classify?model=nobody", JPEG, {}),
    "model of the name": ("/v1/classify?model=classifier", JPEG, {}),
    "damaged": ("/v1/classify", JPEG[:300], {}),
    "damaged, in German": ("/v1/classify", JPEG[:300], {"Accept-Language": "de"}),
    "damaged, for people": ("/v1/classify", JPEG[:300], {"Accept": "text/html"}),
    "no image": ("/v1/classify", b"hello", {}),
    "empty": ("/v1/classify", b"", {}),
    "too large": ("/v1/classify", JPEG + bytes(70_000), {}),
    "no type": ("/v1/classify", JPEG, {"Content-Type": ""}),
    "a form's type": ("/v1/classify", JPEG, {"Content-Type": "application/x-www-form-urlencoded"}),
    "type with more": ("/v1/classify", JPEG, {"Content-Type": "image/jpeg; charset=x"}),
    "type in capitals": ("/v1/classify", JPEG, {"Content-Type": "Image/JPEG"}),
    "compressed": ("/v1/classify", JPEG, {"Content-Encoding": "gzip"}),
    "not compressed": ("/v1/classify", JPEG, {"Content-Encoding": "identity"}),
    "cookie": ("/v1/classify", JPEG, {"Cookie": "lang=de"}),
    "origin": ("/v1/classify", JPEG, {"Origin": "http://elsewhere"}),
    "foreign host": ("/v1/classify", JPEG, {"Host": "evil.test"}),
    "host with a port": ("/v1/classify", JPEG, {"Host": "LOCALHOST.:8000"}),
    "no host": ("/v1/classify", JPEG, {"Host": "a b"}),
    "deadline": ("/v1/classify", JPEG, {"X-Request-Timeout": "5"}),
    "no deadline": ("/v1/classify", JPEG, {"X-Request-Timeout": "soon"}),
    "canary": ("/v1/classify", JPEG, {"X-Model-Canary": "never"}),
    "no canary": ("/v1/classify", JPEG, {"X-Model-Canary": "perhaps"}),
    "new answer": ("/v1/classify", JPEG, {"Cache-Control": "no-cache"}),
    "new answer, not kept": ("/v1/classify", JPEG, {"Cache-Control": "no-store"}),
    "old way": ("/v1/classify", JPEG, {"Pragma": "no-cache"}),
    "condition": ("/v1/classify", JPEG, {"If-None-Match": "*", "If-Match": '"x"'}),
    "wrong id": ("/v1/classify", b"hello", {"X-Request-Id": "12345678"}),
    "code": ("/v1/models/size/predict", JPEG, {}),
    "code, options": ("/v1/models/size/predict?top=2&word=%C3%B6", JPEG, {"Content-Type": "application/octet-stream"}),
    "code, version": ("/v1/models/size/predict?version=1", JPEG, {}),
    "code, no version": ("/v1/models/size/predict?version=7", JPEG, {}),
    "code, option out of range": ("/v1/models/size/predict?top=9", JPEG, {}),
    "code, unknown option": ("/v1/models/size/predict?bottom=1", JPEG, {}),
    "code, option twice": ("/v1/models/size/predict?top=1&top=1", JPEG, {}),
    "code, damaged": ("/v1/models/size/predict", JPEG[:300], {}),
    "code, no image": ("/v1/models/size/predict", b"hello", {"Accept-Language": "de"}),
    "code, too large": ("/v1/models/size/predict", JPEG + bytes(70_000), {}),
    "code, no cache": ("/v1/models/size/predict", JPEG, {"Cache-Control": "no-cache"}),
    "code, JSON": ("/v1/models/size/predict", b'{"photo": 1}', {"Content-Type": "application/json"}),
    "code, canary": ("/v1/models/size/predict", JPEG, {"X-Model-Canary": "never"}),
    "code, another name": ("/v1/models/nobody/predict", JPEG, {}),
    "code, no name": ("/v1/models//predict", JPEG, {}),
    "code, a name that is not ASCII": ("/v1/models/gr%C3%B6%C3%9Fe/predict", JPEG, {}),
    "no code": ("/v1/models/classifier/predict", JPEG, {}),
    "code that takes two": ("/v1/models/two/predict", JPEG, {}),
}
# Models with code: one file and nothing else, kept; and a file among others.
SIZE = """
    from typing import Annotated

    from cask import Image, Model, Range, Shape


    class Size(Model):
        cache = True

        def predict(
            self, photo: list[Annotated[Image, Shape(8, 8, 3)]], *, top: Annotated[int, Range(1, 5)] = 1, word: str = ""
        ) -> list[int]:
            return [top for _ in photo]
"""
TWO = """
    from cask import Model


    class Two(Model):
        def predict(self, file: list[bytes], number: list[int]) -> list[int]:
            return number
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each task that is asked here, and two with code."""
    place = tmp_path_factory.mktemp("store")
    fakes.write_model(place / "models", "classifier", task="classify")
    fakes.write_model(place / "models", "detector", task="detect")
    for name, code in (("size", SIZE), ("two", TWO)):
        adding.add(NewCode(folders.write(place / name, code), name, "1"), place / "models")
    return place / "models"


def both(folder: Path, models: Path | None = None, **settings: Any) -> tuple[Flask, Flask]:
    """An application that takes the fast path, and one that never does."""
    apps = []
    for name in ("fast", "flask"):
        (folder / name).mkdir()
        if models is not None:
            shutil.copytree(models, folder / name / "models")
        apps.append(fakes.make_app(folder / name, FakeEngine(), images_max_bytes=65_536, **settings))

    # As a hook of somebody else's does.
    apps[1].before_request(lambda: None)
    return apps[0], apps[1]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, store: Path) -> tuple[Flask, Flask]:
    """The two for all cases, which meet the same requests in the same order."""
    return both(tmp_path_factory.mktemp("two"), store)


@pytest.mark.parametrize("case", ASKED)
def test_answers_are_those_of_flask(case: str, two: tuple[Flask, Flask]) -> None:
    path, body, headers = ASKED[case]
    fast, flask = two

    # The second time an answer may be a kept one.
    for _ in range(2):
        assert shown(ask(fast, path, body, headers)) == shown(ask(flask, path, body, headers))


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/models/size/predict"])
@pytest.mark.parametrize(
    "error",
    [EngineBusyError("Busy."), DeadlineExceededError("Late."), ModelNotReadyError("Loading."), RuntimeError("a fault")],
    ids=lambda error: type(error).__name__,
)
def test_failures_of_the_engine_are_told_alike(
    error: Exception, path: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, flask = both(tmp_path, store)
    for app in (fast, flask):
        monkeypatch.setattr(app.extensions["predictor"].engine, "error", error)

    assert shown(ask(fast, path, JPEG, {})) == shown(ask(flask, path, JPEG, {}))
    assert logs.request_id.get() == ""
    assert fast.extensions["admission"].in_hand == 0
    assert fast.extensions["budget"].used_bytes == 0


BUSY = (
    EngineBusyError(
        "More requests are in work than can be answered in time.", hint="Send it again after the time in Retry-After."
    ),
    EngineBusyError("Full.", reason="slots", retry_after_seconds=1.2),
)


@pytest.mark.parametrize("error", BUSY, ids=lambda error: error.reason)
@pytest.mark.parametrize("headers", [{}, {"Accept-Language": "de"}, {"Accept": "text/html"}], ids=str)
def test_refusals_for_want_of_time_are_told_alike(
    error: EngineBusyError, headers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, flask = both(tmp_path, rate_limit_per_address=("6/minute",))
    for app in (fast, flask):
        monkeypatch.setattr(app.extensions["predictor"].engine, "error", error)

    told = shown(ask(fast, "/v1/classify", JPEG, headers))

    assert told == shown(ask(flask, "/v1/classify", JPEG, headers))
    assert told[0] == 503
    assert dict(told[1])["RateLimit-Remaining"] == "5"


def test_limits_and_tokens_hold_alike(tmp_path: Path) -> None:
    limits = {"rate_limit_per_address": ("6/minute",), "rate_limit_per_token": ("3/minute",)}
    fast, flask = both(tmp_path, authentication="required", **limits)
    seen: list[Sequence[Any]] = []
    for app in (fast, flask):
        store = TokenStore(app.extensions["settings"].state_dir)
        right, other = store.create("right", ["predict"])[1], store.create("other", ["admin"])[1]
        shown_tokens: tuple[dict[str, str], ...] = (
            *({"X-Api-Token": right}, {"Authorization": f"Bearer {right}"}, {"X-Api-Token": "cask_x"}),
            *({}, {"X-Api-Token": right}, {"X-Api-Token": right}, {"X-Api-Token": other}, {"X-Api-Token": right}),
        )
        answers = [ask(app, "/v1/classify", JPEG, headers) for headers in shown_tokens]
        seen.append(
            [(each.status_code, [*each.headers.keys()], each.headers.get("RateLimit-Remaining")) for each in answers]
        )

    assert seen[0] == seen[1]
    assert [status for status, *_ in seen[0]] == [200, 200, 401, 401, 200, 429, 429, 429]


def test_caller_who_goes_away_is_no_fault(tmp_path: Path) -> None:
    class Broken:
        def read(self, size: int = -1) -> bytes:
            raise OSError("Apache/mod_wsgi request data read error: Partial results are valid.")

    fast, flask = both(tmp_path)
    answers = []
    for app in (fast, flask):
        beside = {"environ_overrides": {"wsgi.input": Broken(), "CONTENT_LENGTH": "1000"}}
        answers.append(shown(ask(app, "/v1/classify", b"", {}, **beside)))

    assert answers[0] == answers[1]
    assert b"caller_gone" in answers[0][2]


def test_hooks_of_others_see_every_request(tmp_path: Path) -> None:
    app, seen = fakes.make_app(tmp_path), []

    @app.before_request
    def look() -> None:
        seen.append("hook")

    assert ask(app, "/v1/classify", JPEG, {}).status_code == 200
    assert seen == ["hook"]


def test_listeners_hear_of_every_request(tmp_path: Path) -> None:
    app, heard = fakes.make_app(tmp_path), []

    def listen(sender: Flask, **_: Any) -> None:
        heard.append(sender)

    assert ask(app, "/v1/classify", JPEG, {}).status_code == 200
    with request_started.connected_to(listen, app):
        assert ask(app, "/v1/classify", JPEG, {}).status_code == 200
    assert heard == [app]


@pytest.mark.parametrize(
    ("path", "query", "part"),
    [("/v1/classify", "top_k=1", b'"predictions"'), ("/v1/models/size/predict", "top=2", b'"top": 2')],
)
def test_ordinary_request_calls_few_functions(path: str, query: str, part: bytes, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "models")
    app, calls = fakes.make_app(tmp_path), Counter[str]()
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SCRIPT_NAME": "",
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "image/jpeg",
        "CONTENT_LENGTH": str(len(JPEG)),
    }

    def count(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            calls[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1

    for number in range(3):
        body = picture(colour=(number, 0, 0))
        given = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        calls.clear()
        sys.setprofile(count)
        try:
            answer = b"".join(app.wsgi_app(given, lambda status, headers: bytes))  # type: ignore[arg-type]
        finally:
            sys.setprofile(None)
        assert part in answer

    ours = {name: count for name, count in calls.items() if "/app/" in name}
    assert sum(ours.values()) <= MOST_CALLS, calls
    assert not [name for name in calls if "/flask/" in name]
