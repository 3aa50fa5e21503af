"""The pages of jobs: what stands on them, and what their forms do."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.auth.tokens import TokenStore
from app.jobs.worker import Worker
from app.telemetry import metrics
from tests import fakes
from tests.fakes import FakeEngine, picture


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    with fakes.logging_kept():
        yield fakes.make_app(tmp_path, FakeEngine())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def work(app: Flask, steps: int = 1000) -> None:
    worker = Worker(app.extensions["jobs"], app.extensions["predictor"], 1)
    for _ in range(steps):
        if not worker.step():
            break


def leave(client: FlaskClient, *names: str, headers: dict[str, str] | None = None, **form: Any) -> TestResponse:
    files = [(io.BytesIO(picture()), name) for name in names or ("a.jpg", "b.jpg")]
    return client.post("/jobs", data={"image": files, **form}, headers=headers)


def test_form_makes_a_job_and_leads_to_its_page(app: Flask, client: FlaskClient) -> None:
    sent = leave(client, task="classify")
    assert sent.status_code == 303
    waiting = client.get(sent.headers["Location"]).text
    work(app)
    done = client.get(sent.headers["Location"]).text

    assert "Waiting" in waiting
    assert 'value="0"' in waiting
    assert '<meta http-equiv="refresh"' in waiting
    assert "Done" in done
    assert '<th scope="row">a.jpg</th>' in done
    assert '<meta http-equiv="refresh"' not in done


def test_model_of_the_form_decides_the_task(app: Flask, client: FlaskClient) -> None:
    leave(client, model="classifier@1", task="detect")

    (job,) = app.extensions["jobs"].list()
    assert (job.task, dict(job.params)) == ("classify", {"model": "classifier", "version": "1"})


def test_list_shows_progress_and_pages(app: Flask, client: FlaskClient) -> None:
    for _ in range(21):
        leave(client, "a.jpg")
    first = client.get("/jobs").text
    older = client.get(f"/jobs?before={app.extensions['jobs'].list()[19].id}").text

    assert (first.count("<progress"), older.count("<progress")) == (20, 1)
    assert "Older jobs" in first
    assert "Older jobs" not in older
    assert "Nobody works jobs off at the moment." in first


def test_running_job_says_how_long_it_will_take(app: Flask, client: FlaskClient) -> None:
    where = leave(client, *(f"{number}.jpg" for number in range(8))).headers["Location"]
    work(app, steps=4)

    text = client.get(where).text
    assert "4 of 8" in text
    assert "left" in text


def test_jobs_of_the_page_are_counted_like_those_of_the_api(client: FlaskClient) -> None:
    client.get("/livez")  # this process counts where others can see it from its first request on
    before = counted()
    where = leave(client).headers["Location"]
    client.post(f"{where}/remove")

    assert [counted()[outcome] - before[outcome] for outcome in ("queued", "cancelled")] == [1, 1]


def counted() -> dict[str, float]:
    """What this process has counted of jobs, by what became of them."""
    outcomes = metrics.JOBS.labels["outcome"].values
    places = (metrics.JOBS._find({"outcome": outcome}) for outcome in outcomes)
    return dict(zip(outcomes, (values[at] for values, at in places), strict=True))


def test_button_removes_a_job(app: Flask, client: FlaskClient) -> None:
    where = leave(client).headers["Location"]

    assert client.post(f"{where}/remove").headers["Location"] == "/jobs"
    assert app.extensions["jobs"].list() == []
    gone = client.get(where)
    assert (gone.status_code, gone.mimetype) == (404, "text/html")
    assert client.post(f"{where}/remove").status_code == 404


def test_names_and_errors_are_text(app: Flask, client: FlaskClient) -> None:
    where = client.post("/jobs", data={"image": [(io.BytesIO(b"x"), "<b>.jpg")]}).headers["Location"]
    work(app)
    text = client.get(where, headers={"Accept-Language": "de"}).text

    assert "&lt;b&gt;.jpg" in text
    assert "Fehlgeschlagen" in text
    assert "sind kein Bild" in text


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({}, 400),
        ({"image": [(io.BytesIO(b""), "")]}, 400),
        ({"image": [(io.BytesIO(b"x"), "a.zip")]}, 422),
        ({"image": [(io.BytesIO(b"x"), "a.jpg")], "model": "nobody"}, 404),
        ({"image": [(io.BytesIO(b"x"), "a.jpg")], "task": "dance"}, 422),
    ],
)
def test_wrong_form_is_told_as_a_page_and_leaves_nothing(
    app: Flask, client: FlaskClient, data: dict[str, Any], status: int
) -> None:
    answer = client.post("/jobs", data=data, content_type="multipart/form-data")

    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert app.extensions["jobs"].list() == []


def test_results_that_expired_are_said_to_be_gone(app: Flask, client: FlaskClient, monkeypatch: Any) -> None:
    where = leave(client).headers["Location"]
    work(app)
    store = app.extensions["jobs"]
    boot, now = store._boot_clock()
    monkeypatch.setattr(store, "_boot_clock", lambda: (boot, now + 1e6))

    text = client.get(where).text
    assert "Expired" in text
    assert "are gone" in text


def test_page_is_not_in_the_navigation_where_there_are_no_jobs(tmp_path: Path) -> None:
    with fakes.logging_kept():
        client = fakes.make_app(tmp_path, FakeEngine(), jobs="off").test_client()

    assert 'href="/jobs"' not in client.get("/").text
    assert client.get("/jobs").status_code == 404


def test_others_do_not_see_a_job(tmp_path: Path) -> None:
    with fakes.logging_kept():
        app = fakes.make_app(tmp_path, FakeEngine(), authentication="required")
    tokens, client = TokenStore(app.extensions["settings"].state_dir), app.test_client()
    anna, bert = ({"X-Api-Token": tokens.create(name)[1]} for name in ("anna", "bert"))
    where = leave(client, headers=anna).headers["Location"]

    assert client.get(where, headers=anna).status_code == 200
    assert client.get(where, headers=bert).status_code == 404
    assert client.post(f"{where}/remove", headers=bert).status_code == 404
    assert "<progress" not in client.get("/jobs", headers=bert).text
