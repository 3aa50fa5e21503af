"""Requests of the API are answered in a context of their own, and nobody can tell."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, appcontext_popped, request_started

from app.auth.tokens import TokenStore
from app.config import Settings
from app.telemetry import logs
from app.web.middleware import rate_limits
from tests import fakes
from tests.fakes import picture

# Functions that one ordinary request calls, ours and Flask's; it took 350 with all hooks.
MOST_CALLS = 220
CHANGING = ("RateLimit-Reset", "Server-Timing", "Age", "Location")
JOB = "{job}"
ASKED: dict[str, tuple[str, dict[str, str]]] = {
    "models": ("/v1/models", {}),
    "the answer that the caller has": ("/v1/models", {"If-None-Match": "*"}),
    "another answer": ("/v1/models", {"If-None-Match": '"x"'}),
    "a condition that does not hold": ("/v1/models", {"If-Match": '"x"'}),
    "a part": ("/v1/models", {"Range": "bytes=0-9"}),
    "model": ("/v1/models/detector", {}),
    "version": ("/v1/models/detector?version=1", {}),
    "no version": ("/v1/models/detector?version=7", {}),
    "no model": ("/v1/models/nobody", {}),
    "no model, in German": ("/v1/models/nobody", {"Accept-Language": "de"}),
    "no model, for people": ("/v1/models/nobody", {"Accept": "text/html"}),
    "a name that is not ASCII": ("/v1/models/gr%C3%B6%C3%9Fe", {}),
    "jobs": ("/v1/jobs", {}),
    "a page of jobs": ("/v1/jobs?limit=1", {}),
    "page out of range": ("/v1/jobs?limit=0", {}),
    "option twice": ("/v1/jobs?limit=1&limit=1", {}),
    "unknown option": ("/v1/jobs?most=1", {}),
    "half of a pair": ("/v1/jobs?limit", {}),
    "job": (f"/v1/jobs/{JOB}", {}),
    "job, in German": (f"/v1/jobs/{JOB}", {"Accept-Language": "de"}),
    "job, below a path": (f"/v1/jobs/{JOB}", {"X-Forwarded-Prefix": "/vision"}),
    "results": (f"/v1/jobs/{JOB}/results", {}),
    "no job": ("/v1/jobs/000000000000000000000000", {}),
    "slash at the end": ("/v1/jobs/", {}),
    "two slashes": ("/v1//jobs", {}),
    "nothing there": ("/v1/nothing", {}),
    "another method's": ("/v1/classify", {}),
    "cookie": ("/v1/jobs", {"Cookie": "lang=de; cask_session=x"}),
    "origin": ("/v1/jobs", {"Origin": "http://elsewhere"}),
    "foreign host": ("/v1/jobs", {"Host": "evil.test"}),
    "host with a port": ("/v1/jobs", {"Host": "LOCALHOST.:8000"}),
    "no host": ("/v1/jobs", {"Host": "a b"}),
    "deadline": ("/v1/jobs", {"X-Request-Timeout": "5"}),
    "no deadline": ("/v1/jobs", {"X-Request-Timeout": "soon"}),
    "compressed": ("/v1/jobs", {"Content-Encoding": "gzip"}),
    "wrong id": ("/v1/jobs", {"X-Request-Id": "1"}),
    "no token": ("/v1/jobs", {"X-Api-Token": ""}),
    "no token, for people": ("/v1/jobs", {"X-Api-Token": "", "Accept": "text/html"}),
    "unknown token": ("/v1/jobs", {"X-Api-Token": "cask_x"}),
    "another scope": ("/v1/jobs", {"X-Api-Token": "{other}"}),
    "token, the other way": ("/v1/jobs", {"X-Api-Token": "", "Authorization": "Bearer {right}"}),
}
IMAGE = picture()
TEXT = base64.b64encode(IMAGE).decode()
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
SAYS_JSON = {"Content-Type": "application/json"}


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    """A form: what stands in each Content-Disposition, and the bytes."""
    return (
        b"".join(b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (a.encode(), b) for a, b in parts) + end
    )


FILE = 'name="image"; filename="a.jpg"'
POSTED: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "form": ("/v1/detect", form((FILE, IMAGE)), FORM),
    "two files": ("/v1/detect", form((FILE, IMAGE), (FILE, IMAGE)), FORM),
    "option": ("/v1/detect", form((FILE, IMAGE), ('name="min_score"', b"0.5")), FORM),
    "option out of range": ("/v1/detect", form((FILE, IMAGE), ('name="min_score"', b"5")), FORM),
    "option twice": ("/v1/detect?min_score=0.1", form((FILE, IMAGE), ('name="min_score"', b"0.5")), FORM),
    "form that ends early": ("/v1/detect", form((FILE, IMAGE), end=b""), FORM),
    "form with another boundary": (
        "/v1/detect",
        form((FILE, IMAGE)),
        {"Content-Type": "multipart/form-data; boundary=y"},
    ),
    "form without one": ("/v1/detect", form((FILE, IMAGE)), {"Content-Type": "multipart/form-data"}),
    "form without a file": ("/v1/detect", form(('name="image"', IMAGE)), FORM),
    "no UTF-8": ("/v1/detect", form((FILE, IMAGE), ('name="min_score"', b"\xff")), FORM),
    "field too large": ("/v1/detect", form((FILE, IMAGE), ('name="min_score"', bytes(600_000))), FORM),
    "no image": ("/v1/detect", form((FILE, b"hello")), {**FORM, "Accept-Language": "de"}),
    "JSON": ("/v1/classify", json.dumps({"images": [TEXT]}).encode(), SAYS_JSON),
    "JSON, not kept": (
        "/v1/classify",
        json.dumps({"images": [TEXT]}).encode(),
        {**SAYS_JSON, "Cache-Control": "no-store"},
    ),
    "JSON, canary": ("/v1/classify", json.dumps({"images": [TEXT]}).encode(), {**SAYS_JSON, "X-Model-Canary": "never"}),
    "JSON, options": ("/v1/classify?top_k=2", json.dumps({"images": [TEXT, TEXT], "min_score": 0}).encode(), SAYS_JSON),
    "JSON that is none": ("/v1/classify", b"{", SAYS_JSON),
    "JSON with NaN": ("/v1/classify", b'{"images": NaN}', SAYS_JSON),
    "JSON, no base64": ("/v1/classify", b'{"images": ["?"]}', SAYS_JSON),
    "JSON, for people": ("/v1/classify", b'{"images": 1}', {**SAYS_JSON, "Accept": "text/html"}),
    "form of fields": ("/v1/classify", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}),
    "empty": ("/v1/classify", b"", SAYS_JSON),
    "too large": ("/v1/classify", bytes(2_100_000), SAYS_JSON),
    "short": ("/v1/classify", b"{}", {**SAYS_JSON, "Content-Length": "30"}),
    "length that is none": ("/v1/classify", b"{}", {**SAYS_JSON, "Content-Length": "-2"}),
    "compressed body": ("/v1/classify", b"{}", {**SAYS_JSON, "Content-Encoding": "gzip"}),
    "form with a cookie": ("/v1/detect", form((FILE, IMAGE)), {**FORM, "Cookie": "lang=de"}),
    "form of another site": ("/v1/detect", form((FILE, IMAGE)), {**FORM, "Origin": "http://elsewhere"}),
    "ensemble without images": ("/v1/ensemble", b"{}", SAYS_JSON),
    "new job": ("/v1/jobs", form((FILE, IMAGE)), FORM),
    "the same job": ("/v1/jobs", form((FILE, IMAGE)), {**FORM, "Idempotency-Key": "abcdefgh"}),
    "job without images": ("/v1/jobs", b"{}", SAYS_JSON),
    "no such route": ("/v1/nothing", b"{}", SAYS_JSON),
    "route of GETs": ("/v1/models", b"{}", SAYS_JSON),
    "form, no token": ("/v1/detect", form((FILE, IMAGE)), {**FORM, "X-Api-Token": ""}),
    "form, another scope": ("/v1/detect", form((FILE, IMAGE)), {**FORM, "X-Api-Token": "{other}"}),
}
# Of one side alone: moments, ids of jobs and tokens.
OWN = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|[0-9a-f]{24}|cask_[0-9a-f_]+|\b[0-9a-f]{8}\b")


class Side:
    """One application, with its tokens and a job that the other one has too."""

    def __init__(self, folder: Path, *, is_light: bool) -> None:
        folder.mkdir()
        fakes.write_model(folder / "models", "classifier", task="classify")
        fakes.write_model(folder / "models", "detector", task="detect")
        self.app = fakes.make_app(
            folder,
            authentication="required",
            request_max_bytes=2_000_000,
            rate_limit_per_token=("90000/minute", "8000/hour"),
            rate_limit_per_address=("7000/minute",),
        )
        if not is_light:
            # As a hook of somebody else's does.
            self.app.before_request(lambda: None)
        store = TokenStore(self.app.extensions["settings"].state_dir)
        self.names = {"right": store.create("right", ["predict"])[1], "other": store.create("other", ["admin"])[1]}
        told = {"X-Api-Token": self.names["right"], "Content-Type": "image/jpeg"}
        self.names["job"] = self.app.test_client().post("/v1/jobs", data=picture(), headers=told).json["id"]  # type: ignore[index]

    def ask(
        self, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[int, list[tuple[str, str]], str]:
        """All that a caller sees, without what is of this side alone."""
        told = {"X-Request-Id": "abcdefgh", "X-Api-Token": "{right}", **headers}
        filled = {name: value.format(**self.names) for name, value in told.items()}
        given = {name: value for name, value in filled.items() if value}
        how = {"method": "GET"} if body is None else {"method": "POST", "data": body}
        response = self.app.test_client().open(path.format(**self.names), headers=given, **how)  # type: ignore[arg-type]
        rows = [(name, "" if name in CHANGING or len(value) == 32 else value) for name, value in response.headers]
        return response.status_code, rows, OWN.sub("", response.get_data(as_text=True))


def both(folder: Path) -> tuple[Side, Side]:
    """One that takes the light path, and one that never does."""
    return Side(folder / "light", is_light=True), Side(folder / "flask", is_light=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    """The two for all cases, which meet the same requests in the same order."""
    return both(tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("case", ASKED)
def test_answers_are_those_of_flask(case: str, two: tuple[Side, Side]) -> None:
    path, headers = ASKED[case]
    light, flask = two
    # So that the second answer may be the first one again.
    fakes.settle_jobs(light.app)

    for _ in range(2):
        assert light.ask(path, headers) == flask.ask(path, headers)
    assert logs.request_id.get() == ""


# Werkzeug leaves the file of a part open when a form turns out to be broken; Python closes it, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", POSTED)
def test_answers_to_bodies_are_those_of_flask(case: str, two: tuple[Side, Side]) -> None:
    path, body, headers = POSTED[case]
    light, flask = two

    for _ in range(2):
        assert light.ask(path, headers, body) == flask.ask(path, headers, body)
    assert light.app.extensions["budget"].used_bytes == 0
    assert light.app.extensions["admission"].in_hand == 0


def test_faults_and_refusals_are_told_alike(tmp_path: Path) -> None:
    def broken() -> Any:
        return 1 / 0

    seen = []
    for side in both(tmp_path):
        side.app.view_functions["api.list_jobs"] = broken
        rates = side.app.extensions["rates"]
        rates.per_address = (*rates.per_address, *rate_limits.make(limited(side.app)).per_address)
        seen.append([side.ask(path, {}) for path in ("/v1/jobs", "/v1/models", "/v1/models", "/v1/models")])

    assert seen[0] == seen[1]
    assert [status for status, *_ in seen[0]] == [500, 200, 429, 429]


def limited(app: Flask) -> Settings:
    settings: Settings = app.extensions["settings"]
    return settings.model_copy(update={"rate_limit_per_address": ("2/hour",)})


def test_hooks_and_listeners_of_others_see_every_request(tmp_path: Path) -> None:
    app, seen = fakes.make_app(tmp_path), list[Any]()

    @app.teardown_request
    def look(_: BaseException | None) -> None:
        seen.append("hook")

    @appcontext_popped.connect_via(app)
    def listen(sender: Flask, **_: Any) -> None:
        seen.append("context")

    assert app.test_client().get("/v1/models?a=b").status_code == 200
    with request_started.connected_to(lambda sender, **_: seen.append("started"), app):
        assert app.test_client().get("/v1/models?a=b").status_code == 200
    assert Counter(seen) == {"hook": 2, "context": 2, "started": 1}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models/classifier"])
def test_ordinary_request_calls_few_functions(path: str, tmp_path: Path) -> None:
    side, calls = Side(tmp_path / "one", is_light=True), Counter[str]()
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        "HTTP_HOST": "localhost",
        "HTTP_X_API_TOKEN": side.names["right"],
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "127.0.0.1",
    }

    def count(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            calls[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1

    for _ in range(3):
        calls.clear()
        sys.setprofile(count)
        try:
            answer = b"".join(side.app.wsgi_app(dict(environ), lambda status, headers: bytes))  # type: ignore[arg-type]
        finally:
            sys.setprofile(None)
        assert answer.startswith(b"{")

    assert sum(count for name, count in calls.items() if "/app/" in name or "/flask/" in name) <= MOST_CALLS, calls
