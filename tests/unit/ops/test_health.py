"""Live, ready, started, status, version: what each says, and when it says no."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.errors import EngineAwayError, ManifestError
from app.models.routing import Broken, Routing
from app.web.ops import processes
from tests import fakes
from tests.fakes import FakeEngine


@pytest.fixture
def app(tmp_path: Path, engine: FakeEngine) -> Flask:
    """The real app over a FakeEngine."""
    return fakes.make_app(tmp_path, engine)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """An operator's tool."""
    return app.test_client()


def test_live_asks_nobody(client: FlaskClient, engine: FakeEngine) -> None:
    engine.error = EngineAwayError("gone")

    assert client.get("/livez").get_json() == {"live": True}
    assert engine.status_count == 0


def test_ready_lists_processes_and_models(client: FlaskClient) -> None:
    response = client.get("/readyz")

    document = response.get_json()
    assert (response.status_code, document["ready"], document["missing"]) == (200, True, [])
    assert [(row["role"], row["pid"]) for row in document["processes"]] == [
        ("engine", os.getpid()),
        ("web", os.getpid()),
        ("jobs", None),
    ]
    assert [model["name"] for model in document["processes"][0]["models"]] == ["classifier", "detector"]


def test_ready_says_no_while_the_engine_is_away(client: FlaskClient, engine: FakeEngine) -> None:
    engine.error = EngineAwayError("It has not started.")

    response = client.get("/readyz")

    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert response.get_json()["missing"] == ["engine: It has not started."]


def test_ready_names_models_that_load_or_failed(client: FlaskClient, engine: FakeEngine) -> None:
    engine.states = {"classifier@1": "loading", "detector@1": "failed"}

    assert client.get("/readyz").get_json()["missing"] == [
        "model classifier@1: loading",
        "model detector@1: failed: its weights are missing",
    ]


def test_ready_names_a_model_whose_manifest_cannot_be_read(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken("parts@2", None, ManifestError("manifest.toml cannot be read: Invalid value."))
    monkeypatch.setattr(Routing, "broken", [broken])

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.get_json()["missing"] == ["model parts@2: manifest.toml cannot be read: Invalid value."]


def test_ready_names_a_model_of_another_digest(client: FlaskClient, engine: FakeEngine) -> None:
    engine.manifests = engine.manifests[:1]

    assert client.get("/readyz").get_json()["missing"] == [
        "model detector@1: the engine does not hold this digest; restart it"
    ]


def test_ready_names_a_state_folder_that_cannot_be_written(client: FlaskClient, app: Flask, tmp_path: Path) -> None:
    settings = app.extensions["settings"]
    app.extensions["settings"] = settings.model_copy(update={"state_dir": tmp_path / "nowhere"})

    missing = client.get("/readyz").get_json()["missing"]

    assert missing == [f"state: {tmp_path / 'nowhere'} cannot be written by this process"]


def test_ready_from_the_ops_group_asks_for_a_web_process(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.extensions["role"] = "ops"
    monkeypatch.setattr(processes, "alive", lambda state_dir: [])

    missing = client.get("/readyz").get_json()["missing"]

    assert missing == ["web: no process of the web group is alive; see the error log"]


def test_started_once_is_started_for_ever(client: FlaskClient, engine: FakeEngine) -> None:
    engine.error = EngineAwayError("not yet")
    assert client.get("/startupz").status_code == 503
    engine.error = None
    assert client.get("/startupz").status_code == 200
    engine.error = EngineAwayError("gone again")

    response = client.get("/startupz")

    assert (response.status_code, response.get_json()) == (200, {"started": True})


def test_status_is_ok_even_while_the_engine_is_away(client: FlaskClient, engine: FakeEngine) -> None:
    up = client.get("/status").get_json()
    engine.error = EngineAwayError("gone")
    away = client.get("/status").get_json()

    assert (up["success"], up["environment"], up["engine"]["state"]) == ("OK", "test", "up")
    assert up["engine"]["resident_bytes"] > 1_000_000
    assert away["engine"] == {"state": "away", "reason": "gone"}


def test_version_names_the_revision(client: FlaskClient) -> None:
    assert set(client.get("/version").get_json()) >= {"version", "revision", "created"}


def test_threads_of_one_app_are_all_answered(app: Flask) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(app.test_client().get("/readyz").status_code)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 8
