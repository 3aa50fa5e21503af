"""/v1/jobs over HTTP, with a worker that works when the test says so."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, url_for
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.auth.tokens import TokenStore
from app.jobs.worker import Worker
from app.web.api import jobs as jobs_api
from tests import bad_input, fakes
from tests.fakes import FakeEngine, picture

IMAGES = [picture(colour=(200, 30, 30)), picture(colour=(30, 200, 30), kind="PNG")]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    with fakes.logging_kept():
        yield fakes.make_app(tmp_path, FakeEngine(), jobs_max_images=4)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def work(app: Flask) -> None:
    """Work everything off."""
    worker = Worker(app.extensions["jobs"], app.extensions["predictor"], 1)
    while worker.step():
        pass


def leave(client: FlaskClient, *images: bytes, headers: dict[str, str] | None = None, **options: Any) -> TestResponse:
    body, content_type = bad_input.multipart(*(images or IMAGES), **options)
    return client.post("/v1/jobs", data=body, content_type=content_type, headers=headers)


def job_id(response: TestResponse) -> str:
    assert response.status_code == 202, response.data
    return str(response.json["id"])  # type: ignore[index]


def problem(response: TestResponse) -> tuple[int, str]:
    assert response.mimetype == "application/problem+json", response.data
    return response.status_code, response.json["code"]  # type: ignore[index]


def test_job_is_taken_worked_off_and_told_of(app: Flask, client: FlaskClient) -> None:
    taken = leave(client, task="classify", top_k=1)
    where = taken.headers["Location"]
    assert taken.json["progress"] == {"done": 0, "failed": 0, "total": 2}  # type: ignore[index]
    assert client.get(where).json["state"] == "queued"

    work(app)
    job = client.get(where).json

    assert (job["state"], job["progress"]) == ("succeeded", {"done": 2, "failed": 0, "total": 2})
    assert [(row["number"], row["name"], len(row["predictions"])) for row in job["results"]] == [
        (1, "0.jpg", 1),
        (2, "1.jpg", 1),
    ]
    assert job["expires_at"] > job["ended_at"] >= job["started_at"] >= job["created_at"]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, image in enumerate(IMAGES):
            archive.writestr(f"{number}.jpg", image)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number, image in enumerate(IMAGES):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type", "total"),
    [
        (bad_input.json_body(*IMAGES), "application/json", 2),
        (IMAGES[0], "image/jpeg", 1),
        (zipped(), "application/zip", 2),
        (tarred(), "application/gzip", 2),
        (*bad_input.multipart(zipped(), field_name="archive"), 2),
    ],
)
def test_each_way_to_send_images_makes_a_job(
    app: Flask, client: FlaskClient, body: bytes, content_type: str, total: int
) -> None:
    where = client.post("/v1/jobs?task=detect", data=body, content_type=content_type).headers["Location"]
    work(app)

    assert client.get(where).json["progress"] == {"done": total, "failed": 0, "total": total}


def test_same_key_is_the_same_job(client: FlaskClient) -> None:
    key = {"Idempotency-Key": "nightly"}
    first, again = leave(client, headers=key), leave(client, headers={"Idempotency-Key": '"nightly"'})

    assert job_id(first) == job_id(again)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert problem(leave(client, IMAGES[0], headers=key)) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["x" * 256, "näch"])
def test_key_that_is_none_is_refused(client: FlaskClient, key: str) -> None:
    assert problem(leave(client, headers={"Idempotency-Key": key})) == (422, "option_invalid")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"task": "dance"}, (422, "option_invalid")),
        ({"top_k": 3}, (422, "option_invalid")),
        ({"task": "classify", "explain": "true"}, (422, "option_invalid")),
        ({"model": "nobody"}, (404, "model_not_found")),
        ({"task": "classify", "model": "detector"}, (404, "model_not_found")),
    ],
)
def test_wrong_wish_is_refused_at_once_and_leaves_nothing(
    app: Flask, client: FlaskClient, options: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert problem(leave(client, **options)) == expected
    assert client.get("/v1/jobs").json["jobs"] == []
    assert list((app.extensions["jobs"].folder / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"", "image/jpeg", (202, "")),
        (b"{}", "application/json", (400, "bad_request")),
        (b"[]", "application/json", (400, "bad_request")),
        (b'{"images": []}', "application/json", (400, "image_missing")),
        (b'{"images": ["&"]}', "application/json", (422, "image_undecodable")),
        (b"x", "text/plain", (415, "media_type_unsupported")),
        (b"x", "application/zip", (422, "archive_unusable")),
        (*bad_input.multipart(b"x", field_name="other"), (400, "bad_request")),
        (*bad_input.multipart(zipped(), zipped(), field_name="archive"), (400, "bad_request")),
        (*bad_input.multipart(*[IMAGES[0]] * 5), (413, "too_many_images")),
        (bad_input.json_body(*[IMAGES[0]] * 5), "application/json", (413, "too_many_images")),
    ],
)
def test_wrong_body_is_refused_by_name(
    client: FlaskClient, body: bytes, content_type: str, expected: tuple[int, str]
) -> None:
    response = client.post("/v1/jobs", data=body, content_type=content_type)

    assert (response.status_code, response.json.get("code", "")) == expected  # type: ignore[union-attr]


def test_image_that_is_none_has_its_error_and_the_job_goes_on(app: Flask, client: FlaskClient) -> None:
    where = leave(client, b"no image", IMAGES[0]).headers["Location"]
    work(app)
    job = client.get(where).json

    assert (job["state"], job["progress"]["failed"]) == ("succeeded", 1)
    assert job["results"][0]["error"]["code"] == "image_unsupported"
    assert "detections" in job["results"][1]


def test_results_come_in_pages_and_as_lines(app: Flask, client: FlaskClient) -> None:
    where = leave(client, *IMAGES, IMAGES[0]).headers["Location"]
    work(app)

    pages, following = [], f"{where}?limit=2"
    while following:
        page = client.get(following).json
        pages.append([row["number"] for row in page["results"]])
        following = page["next"]
    lines = client.get(f"{where}/results")

    assert pages == [[1, 2], [3]]
    assert lines.mimetype == "application/x-ndjson"
    assert [json.loads(line)["number"] for line in lines.text.splitlines()] == [1, 2, 3]


def test_address_is_below_the_path_that_each_request_came_by(app: Flask, client: FlaskClient) -> None:
    job = job_id(leave(client))
    for prefix in ("", "/vision", "", "/ä"):
        answer = client.get(f"/v1/jobs/{job}", environ_overrides={"SCRIPT_NAME": prefix}).json
        with app.test_request_context(environ_overrides={"SCRIPT_NAME": prefix}):
            assert answer["url"] == url_for("api.show_job", job_id=job)


def test_address_keeps_what_stands_behind_it(app: Flask, client: FlaskClient) -> None:
    app.url_default_functions.setdefault(None, []).append(lambda _, values: values.setdefault("who", "me"))
    job = job_id(leave(client))

    assert client.get(f"/v1/jobs/{job}").json["url"] == f"/v1/jobs/{job}?who=me"


def test_list_comes_in_pages(client: FlaskClient) -> None:
    ids = [job_id(leave(client)) for _ in range(3)]
    first = client.get("/v1/jobs?limit=2").json
    second = client.get(first["next"]).json

    assert [job["id"] for job in first["jobs"] + second["jobs"]] == ids[::-1]
    assert second["next"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "page=2", "before=../x"])
def test_wrong_page_is_refused(client: FlaskClient, query: str) -> None:
    assert problem(client.get(f"/v1/jobs?{query}")) == (422, "option_invalid")


def test_page_that_is_said_twice_is_refused(client: FlaskClient) -> None:
    assert problem(client.get("/v1/jobs?limit=1&limit=2")) == (400, "bad_request")


def test_removed_job_is_gone(client: FlaskClient) -> None:
    where = leave(client).headers["Location"]

    assert client.delete(where).status_code == 204
    assert problem(client.get(where)) == (404, "job_not_found")
    assert problem(client.get(f"{where}/results")) == (404, "job_not_found")
    assert problem(client.delete(where)) == (404, "job_not_found")


def test_others_get_404_and_an_admin_sees_all(tmp_path: Path) -> None:
    with fakes.logging_kept():
        app = fakes.make_app(tmp_path, FakeEngine(), authentication="required")
    tokens, client = TokenStore(app.extensions["settings"].state_dir), app.test_client()
    anna, bert, admin = (
        {"X-Api-Token": tokens.create(name, scopes)[1]}
        for name, scopes in (("anna", ("predict",)), ("bert", ("predict",)), ("admin", ("predict", "admin")))
    )
    where = leave(client, headers=anna).headers["Location"]
    old_form = f"/get_result?job_id={where.rpartition('/')[2]}"

    assert problem(leave(client)) == (401, "token_missing")
    for path in (where, f"{where}/results", old_form):
        assert problem(client.get(path)) == (401, "token_missing")
        assert problem(client.get(path, headers=bert)) == (404, "job_not_found")
        assert client.get(path, headers=anna).status_code == client.get(path, headers=admin).status_code == 200
    assert problem(client.delete(where, headers=bert)) == (404, "job_not_found")
    assert [len(client.get("/v1/jobs", headers=each).json["jobs"]) for each in (anna, bert, admin)] == [1, 0, 1]
    assert client.delete(where, headers=anna).status_code == 204


def test_bodies_that_are_being_read_do_not_take_all_threads(client: FlaskClient) -> None:
    for _ in range(jobs_api.UPLOADS_AT_ONCE):
        assert jobs_api.UPLOADS.places.acquire(blocking=False)
    try:
        refused = leave(client)
    finally:
        for _ in range(jobs_api.UPLOADS_AT_ONCE):
            jobs_api.UPLOADS.places.release()

    assert problem(refused) == (503, "jobs_full")
    assert refused.headers["Retry-After"]
    assert leave(client).status_code == 202


def test_switched_off_is_told_so(tmp_path: Path) -> None:
    with fakes.logging_kept():
        client = fakes.make_app(tmp_path, FakeEngine(), jobs="off").test_client()

    assert problem(leave(client)) == (404, "jobs_off")
    assert problem(client.get("/v1/jobs")) == (404, "jobs_off")
    assert "jobs" not in [row["role"] for row in client.get("/readyz").json["processes"]]
    assert client.get("/status").json["jobs"] == {"state": "off"}


def test_status_counts_jobs(client: FlaskClient) -> None:
    assert client.get("/status").json["jobs"] == {"pid": None, "state": "away"}
    leave(client)

    assert client.get("/status").json["jobs"] == {"pid": None, "state": "away", "queued": 1, "images_waiting": 2}


# ── earlier clients ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_earlier_clients_get_their_form(app: Flask, client: FlaskClient) -> None:
    made = job_id(leave(client, IMAGES[0], b"no image"))
    waiting = client.get(f"/get_result?job_id={made}").json
    work(app)
    found = client.get(f"/get_result?job_id={made}").json
    direct = client.post("/predict", data=json.dumps({"image": _base64(IMAGES[0])}), content_type="application/json")

    assert waiting == {"job_id": made, "status": "queued", "done": 0, "total": 2, "responses": []}
    assert (found["status"], found["done"], found["total"]) == ("succeeded", 2, 2)
    first, second = found["responses"]
    for got, expected in zip(first["normalizedVertices"], direct.json["normalizedVertices"], strict=True):  # type: ignore[index]
        assert got == {
            name: pytest.approx(value, abs=1e-3) if name != "label" else value for name, value in expected.items()
        }
    assert second["error"]["code"] == "image_unsupported"


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def test_earlier_clients_get_labels_of_a_job_that_classifies(app: Flask, client: FlaskClient) -> None:
    made = job_id(leave(client, IMAGES[0], task="classify", top_k=1))
    work(app)

    (only,) = client.get(f"/get_result?job_id={made}").json["responses"]
    assert [set(row) for row in only["labels"]] == [{"label", "score"}]


def test_earlier_clients_hear_what_is_missing(client: FlaskClient) -> None:
    assert problem(client.get("/get_result")) == (422, "option_invalid")
    assert problem(client.get("/get_result?job_id=nothing")) == (404, "job_not_found")
