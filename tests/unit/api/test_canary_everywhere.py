"""X-Model-Canary and the canary's share are the same at every address that predicts; a job keeps to one version."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.inference.pipeline import Predictor
from app.jobs.worker import Worker
from app.models import roles
from app.models.roles import Roles
from tests import bad_input, fakes
from tests.fakes import FakeEngine

HEADER = "X-Model-Canary"
IMAGE = fakes.picture(64, 48, "PNG", (0, 0, 7))
TEXT = base64.b64encode(IMAGE).decode()
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
CALL = {"jsonrpc": "2.0", "method": "Image.detect", "params": {"image": TEXT}, "id": 1}
FORM, FORM_TYPE = bad_input.multipart(IMAGE, field_name="image_upload", task="detect")
# Every address that predicts, but for jobs, which predict later.
WAYS: dict[str, dict[str, Any]] = {
    "/v1/detect": {"data": IMAGE, "content_type": "image/png"},
    "/v1/ensemble": {"data": IMAGE, "content_type": "image/png"},
    "/predict": {"json": {"image": TEXT}},
    "/": {"json": {"requests": [{"image": {"content": TEXT}}]}},
    "/api": {"json": CALL},
    "/v2/models/detector/infer": {"json": {"inputs": [TENSOR]}},
    "/upload": {"data": FORM, "content_type": FORM_TYPE},
}
ASK = pytest.mark.parametrize("path", WAYS)
Versions = Callable[[float], None]


@pytest.fixture
def app(tmp_path: Path, engine: FakeEngine) -> Flask:
    """The real app with a detector of two versions and a fake engine that holds both."""
    for version in ("1", "2"):
        fakes.write_model(tmp_path / "models", "detector", version, "detect", labels=["cone", "7"])
    fakes.write_model(tmp_path / "models", "classifier", task="classify")
    (tmp_path / "state").mkdir()
    roles.write(tmp_path / "state", {"detector": Roles("1"), "classifier": Roles("1")})
    return fakes.make_app(tmp_path, engine, jobs="on")


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    yield app.test_client()


@pytest.fixture
def canary(tmp_path: Path) -> Versions:
    """Version 2 answers so many percent."""
    return lambda share: roles.write(
        tmp_path / "state", {"detector": Roles("1", canary="2", canary_share=share), "classifier": Roles("1")}
    )


def asked_version(client: FlaskClient, engine: FakeEngine, path: str, **headers: str) -> str:
    before = len(engine.asked)
    response = client.post(path, headers=headers, **WAYS[path])
    assert response.status_code == 200, response.get_data(as_text=True)[:300]
    assert len(engine.asked) == before + 1
    return engine.asked[-1].manifest.version


@ASK
def test_header_decides_at_every_address(client: FlaskClient, engine: FakeEngine, canary: Versions, path: str) -> None:
    canary(50)

    assert {asked_version(client, engine, path, **{HEADER: "always"}) for _ in range(5)} == {"2"}
    assert {asked_version(client, engine, path, **{HEADER: "Never"}) for _ in range(5)} == {"1"}


@ASK
def test_share_applies_at_every_address(client: FlaskClient, engine: FakeEngine, canary: Versions, path: str) -> None:
    canary(100)

    assert asked_version(client, engine, path) == "2"


@pytest.mark.parametrize("path", [*WAYS, "/v1/jobs"])
def test_wrong_header_is_refused_at_every_address(client: FlaskClient, path: str) -> None:
    how = WAYS.get(path, WAYS["/v1/detect"])

    response = client.post(path, headers={HEADER: "perhaps"}, **how)

    assert response.status_code == 422
    assert "X-Model-Canary is" in response.get_data(as_text=True)


def test_fixed_version_counts_more(client: FlaskClient, engine: FakeEngine, canary: Versions) -> None:
    canary(100)
    for path in ("/v1/detect?version=1", "/v1/ensemble?members=detector@1"):
        client.post(path, headers={HEADER: "always"}, **WAYS["/v1/detect"])
    client.post("/v2/models/detector/versions/1/infer", headers={HEADER: "always"}, json={"inputs": [TENSOR]})

    assert [each.manifest.version for each in engine.asked] == ["1", "1", "1"]


def test_pictures_of_one_form_get_one_version(client: FlaskClient, engine: FakeEngine, canary: Versions) -> None:
    canary(50)
    body, content_type = bad_input.multipart(IMAGE, b"no image", IMAGE, IMAGE, field_name="image_upload", task="detect")
    for _ in range(10):
        engine.asked.clear()
        client.post("/upload", data=body, content_type=content_type)
        assert len({each.manifest.version for each in engine.asked}) == 1


def leave(client: FlaskClient, **headers: str) -> dict[str, Any]:
    body, content_type = bad_input.multipart(*[IMAGE] * 20)
    response = client.post("/v1/jobs", data=body, content_type=content_type, headers=headers)
    assert response.status_code == 202, response.get_data(as_text=True)
    found: dict[str, Any] = response.json
    return found


def work_off(app: Flask, engine: FakeEngine, count: int) -> None:
    settings = app.extensions["settings"]
    worker = Worker(app.extensions["jobs"], Predictor(settings, engine), 1)
    for _ in range(count):
        assert worker.step()


def versions_of(client: FlaskClient, job: dict[str, Any]) -> list[str]:
    lines = client.get(f"{job['url']}/results").text.splitlines()
    return [json.loads(line)["model"]["version"] for line in lines]


def test_job_uses_one_version_for_all_its_images(
    app: Flask, client: FlaskClient, engine: FakeEngine, canary: Versions
) -> None:
    canary(50)
    for _ in range(4):
        job = leave(client)
        work_off(app, engine, 20)

        assert set(versions_of(client, job)) == {job["options"]["version"]}
        assert job["options"]["model"] == "detector"


def test_job_goes_on_with_its_version_when_the_pointer_moves(
    app: Flask, client: FlaskClient, engine: FakeEngine, tmp_path: Path
) -> None:
    job = leave(client)
    work_off(app, engine, 10)
    roles.write(tmp_path / "state", {"detector": Roles("2", previous="1"), "classifier": Roles("1")})
    work_off(app, engine, 10)

    assert versions_of(client, job) == ["1"] * 20
    assert leave(client)["options"]["version"] == "2"


@pytest.mark.parametrize(("requested", "version"), [("always", "2"), ("never", "1")])
def test_header_decides_for_a_job(client: FlaskClient, canary: Versions, requested: str, version: str) -> None:
    canary(50)

    assert {leave(client, **{HEADER: requested})["options"]["version"] for _ in range(4)} == {version}


def test_key_finds_its_job_whatever_version_was_drawn(client: FlaskClient, canary: Versions) -> None:
    canary(50)

    jobs = [leave(client, **{"Idempotency-Key": "nightly"}) for _ in range(10)]

    assert len({job["id"] for job in jobs}) == 1
