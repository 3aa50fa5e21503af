"""The application of the daemon group ops: the views of operators alone, and the addresses of all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app import config, factory, ops_factory
from app.config import Settings
from app.web.middleware.request_metrics import NO_ROUTE, Routes
from app.web.ops import known_routes
from tests import fakes


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    fakes.write_model(tmp_path / "models")
    (tmp_path / "run" / "httpd").mkdir(parents=True)
    noted = json.dumps(known_routes.rules(factory.routes_only().url_map))
    (tmp_path / "run" / "httpd" / known_routes.FILE_NAME).write_text(noted)
    update = {
        "state_dir": tmp_path,
        "models_dir": tmp_path / "models",
        "engine_socket": tmp_path / "engine.sock",
        "plugins_dir": tmp_path / "none",
    }
    return config.describe("test").model_copy(update=update)


def test_operators_are_answered_and_nobody_else(settings: Settings) -> None:
    app = ops_factory.create_app(settings)
    client = app.test_client()

    assert client.get("/livez").json == {"live": True}
    assert client.get("/readyz").json["missing"]
    assert client.get("/status").json["environment"] == "test"
    assert client.get("/v1/models").status_code == 404
    assert {rule.endpoint.partition(".")[0] for rule in app.url_map.iter_rules()} == {"ops"}


def test_a_browser_gets_a_problem_document(settings: Settings) -> None:
    answer = ops_factory.create_app(settings).test_client().post("/livez", headers={"Accept": "text/html"})

    assert (answer.status_code, answer.content_type) == (405, "application/problem+json")


def test_apaches_own_answers_find_the_same_addresses_as_in_the_whole_app(settings: Settings) -> None:
    known = ops_factory.create_app(settings).extensions["routes"]
    whole = factory.routes_only().url_map
    paths = [
        "/nothing",
        "/v1",
        "/v1/models/",
        *(rule.rule.replace("<", "").replace(">", "") for rule in whole.iter_rules()),
    ]
    asked = [(path, method) for path in paths for method in ("GET", "POST", "PUT", "HEAD")]

    found = {each: known.of(*each) for each in asked}

    assert found == {each: Routes(whole).of(*each) for each in asked}
    assert {NO_ROUTE, "/v1/models/{name}"} <= set(found.values())


def test_a_start_that_noted_no_addresses_gets_the_whole_app(settings: Settings) -> None:
    (settings.state_dir / "run" / "httpd" / known_routes.FILE_NAME).unlink()

    assert "pages" in ops_factory.create_app(settings).blueprints


@pytest.mark.parametrize("named", [(), ("notes",)])
def test_plugins_get_the_whole_app(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    (tmp_path / "plugins" / "notes").mkdir(parents=True)
    (tmp_path / "plugins" / "notes" / "plugin.toml").touch()
    asked = []
    monkeypatch.setattr(factory, "create_app", lambda found: asked.append(found) or factory.routes_only())

    ops_factory.create_app(settings.model_copy(update={"plugins": named, "plugins_dir": tmp_path / "plugins"}))

    assert [each.plugins for each in asked] == [named]
