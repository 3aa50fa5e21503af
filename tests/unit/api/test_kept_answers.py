"""The same question is answered from memory, and never with what is no longer so."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.auth.tokens import LOOK_SECONDS, TokenStore
from app.jobs import stores
from app.storage import sqlite
from app.web.api import kept_answers
from app.web.api.kept_answers import KeptAnswers
from tests import fakes


class Unchanging:
    """A source that never changes."""

    def mark(self) -> int:
        return 1

    settled_mark = mark


class Service:
    """An application with two callers and a job of the first; it counts how often jobs were read."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.app: Flask = fakes.make_app(folder, authentication="required", **changes)
        self.client: FlaskClient = self.app.test_client()
        self.settings = self.app.extensions["settings"]
        self.tokens = TokenStore(self.settings.state_dir)
        self.own, self.other = (self.tokens.create(name)[1] for name in ("own", "other"))
        told = {"X-Api-Token": self.own, "Content-Type": "image/jpeg"}
        self.job = self.client.post("/v1/jobs", data=fakes.picture(), headers=told).get_json()["id"]
        self.read = 0
        self.jobs = self.app.extensions["jobs"]
        get = self.jobs.get

        def count(*arguments: Any) -> Any:
            self.read += 1
            return get(*arguments)

        monkeypatch.setattr(self.jobs, "get", count)
        # However slow this machine is.
        monkeypatch.setattr(sqlite, "SETTLED_SECONDS", 600.0)
        monkeypatch.setattr(kept_answers, "LONGEST_SECONDS", 600.0)

    def ask(self, token: str = "", **headers: str) -> TestResponse:
        told = {"X-Api-Token": token or self.own, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.client.get(f"/v1/jobs/{self.job}", headers=told)

    def keep(self) -> TestResponse:
        """Ask so that the answer is kept, and see that it is."""
        fakes.settle_jobs(self.app)
        self.ask()
        before = self.read
        kept = self.ask()
        assert self.read == before
        return kept


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(tmp_path, monkeypatch, rate_limit_per_token=("1000/hour",))


def test_kept_answer_differs_by_its_id_and_what_is_left_of_the_limit(service: Service) -> None:
    fakes.settle_jobs(service.app)
    first, second = service.ask(), service.ask()

    assert service.read == 1
    assert second.data == first.data
    assert [name for name, _ in second.headers] == [name for name, _ in first.headers]
    changed = {name for name, value in second.headers if first.headers[name] != value}
    assert (
        {"RateLimit-Remaining", "X-Request-Id"} <= changed <= {"RateLimit-Remaining", "X-Request-Id", "RateLimit-Reset"}
    )
    assert int(second.headers["RateLimit-Remaining"]) == int(first.headers["RateLimit-Remaining"]) - 1


def test_change_is_seen_by_the_next_request(service: Service) -> None:
    assert service.keep().get_json()["state"] == "queued"
    elsewhere = stores.of(service.settings)

    claim = elsewhere.claim()
    assert claim is not None
    assert service.ask().get_json()["state"] == "running"

    service.keep()
    elsewhere.remove(service.job)
    assert service.ask().status_code == 404
    elsewhere.close()


def test_job_that_changed_just_now_is_read_each_time(service: Service) -> None:
    for asked in range(1, 4):
        assert service.ask().status_code == 200
        assert service.read == asked


def test_answer_is_kept_for_its_caller_alone(service: Service) -> None:
    service.keep()

    assert service.ask(service.other).status_code == 404
    assert service.ask("cask_00000000_" + "0" * 48).status_code == 401
    assert service.ask(Accept_Language="de").headers["Content-Language"] == "de"
    assert service.ask(X_Request_Timeout="soon").status_code == 422


def test_revoked_token_gets_no_kept_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.keep()
    service.tokens.revoke("own")
    # As when the table looks next.
    monkeypatch.setattr(service.app.extensions["token_table"], "_clock", lambda: time.monotonic() + 2 * LOOK_SECONDS)

    assert service.ask().status_code == 401


def test_kept_answers_count_against_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(tmp_path, monkeypatch, rate_limit_per_token=("5/hour",))
    service.keep()

    # The job itself was the first of five, and two were asked for to keep one.
    answers = [service.ask() for _ in range(4)]

    assert [each.status_code for each in answers] == [200, 200, 429, 429]
    assert answers[-1].headers["RateLimit-Remaining"] == "0"
    assert answers[-1].headers["Retry-After"]
    assert answers[-1].get_json()["code"] == "rate_limited"


def test_kept_answer_ends_by_itself() -> None:
    now = 0.0
    app, answers = Flask("app"), KeptAnswers(lambda: now)
    source = Unchanging()
    response = app.response_class("{}")

    answers.keep("key", source.mark(), response, [])
    assert answers.find(source, "key") is not None
    now = kept_answers.LONGEST_SECONDS
    assert answers.find(source, "key") is None


def test_what_is_large_or_may_change_at_any_moment_is_not_kept() -> None:
    app, answers, source = Flask("app"), KeptAnswers(), Unchanging()

    answers.keep("changing", None, app.response_class("{}"), [])
    answers.keep("large", source.mark(), app.response_class("x" * (kept_answers.MAX_BYTES + 1)), [])
    answers.keep("failed", source.mark(), app.response_class("{}", 404), [])
    assert not any(answers.find(source, key) for key in ("changing", "large", "failed"))

    for number in range(3 * kept_answers.MAX_ANSWERS):
        answers.keep(number, source.mark(), app.response_class("{}"), [])
    assert len(answers._kept) <= kept_answers.MAX_ANSWERS
