"""A plugin and a model that were written for cask 1.0 go on without a changed byte, and what is renamed is told.

``cask_1/`` is as its authors left it: what fails here would fail on their machines. Never change a file of it to make a
test pass; where the promise ends, ``cask.API_VERSION`` rises, and a folder for the new number is put beside it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

import cask
from app.auth.tokens import TokenStore
from app.cli.checks import Surroundings
from app.cli.checks import plugins as checks
from app.config import plugin_settings
from app.host import permissions
from app.model_code import adding
from app.model_code.adding import NewCode
from app.plugins import applications, manifest, testing
from cask import renamed
from loadtest import scenarios
from tests import fakes
from tests.fakes import FakeEngine, picture

FROZEN = Path(__file__).with_name("cask_1")
DIGEST = "f77163ab972ef67d399b47b1c69c0cd945be9c8fe8500a0c5088981acf020e1d"
# What plugin.toml of cask 1.0 may say; a later one may say more.
KEYS = {"name", "version", "cask", "navigation", "settings", "content_security_policy", "wsgi"}
WSGI_KEYS = {"application", "mount", "environment", "processes", "threads", "timeout_seconds", "max_body_bytes"}
WSGI_KEYS |= {"scope", "limit", "variables"}
TYPES = {"text", "whole number", "number", "yes or no", "list"}


def files() -> list[Path]:
    found = (path for path in FROZEN.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(found)


def names_used() -> set[str]:
    found = set()
    for path in files():
        if path.suffix == ".py":
            trees = ast.walk(ast.parse(path.read_text()))
            found |= {each.name for node in trees if _is_ours(node) for each in node.names}  # type: ignore[attr-defined]
    return found


def _is_ours(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "cask"


def serve(tmp_path: Path, **changes: Any) -> Flask:
    folder = tmp_path / "plugins"
    if not folder.exists():
        shutil.copytree(FROZEN / "keepsake", folder / "keepsake")
    return fakes.make_app(tmp_path, FakeEngine(), plugins_dir=folder, plugins_on_error="stop", **changes)


def test_files_are_as_they_were_written_and_use_every_name() -> None:
    digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files()))

    assert digest.hexdigest() == DIGEST
    # A name that came later has a plugin or model of its own time.
    assert names_used() == {*cask.__all__}


def test_plugin_of_cask_1_serves_all_that_it_did(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    app = serve(tmp_path, authentication="required")
    store = TokenStore(tmp_path / "state")
    token = {"X-Api-Token": store.create("a", ("predict",))[1]}
    client = app.test_client()

    def keep() -> Any:
        return client.post("/keepsake", data={"photo": (io.BytesIO(picture()), "a.jpg")}, headers=token)

    assert client.post("/keepsake").status_code == 401
    kept = keep()
    assert (kept.status_code, len(kept.json["kept"]), kept.json["both"]) == (200, 1, [1, 1])
    assert (keep().status_code, keep().status_code) == (200, 429)
    page = client.get("/keepsake")
    assert b"<h1>keepkeep</h1>" in page.data
    assert b"/static/plugins/keepsake/keepsake.css" in page.data
    assert "https://images.example.org" in page.headers["Content-Security-Policy"]
    assert b">Keepsake</a>" in client.get("/models").data
    values = client.get("/keepsake/settings", headers=token).json or {}
    assert values == {
        "rows": 2,
        "share": 0.5,
        "is_open": True,
        "places": ["a", "b"],
        "api": 1,
        "kept": kept.json["kept"][0],
    }
    assert client.delete("/keepsake", headers=token).status_code == 403
    assert client.get("/keepsake/failing", headers=token).status_code == 418
    assert client.get("/keepsake/plain").data == b"plain"
    assert 'cask_plugin_events_total{event="labels",plugin="keepsake"} 2.0' in client.get("/metrics").text
    assert "keepsake" not in capfd.readouterr().err


def test_model_of_cask_1_is_taken_and_answers_as_it_did(tmp_path: Path) -> None:
    """Adding it asks its example, and refuses it where the answer is another one than was written down."""
    made = adding.add(NewCode(FROZEN / "model", "keepsake", "1"), tmp_path / "store")

    assert (made.code and made.code.timeout_seconds, made.code and made.code.memory_mb) == (20, 2000)
    assert json.loads((FROZEN / "model" / "examples" / "01.expected.json").read_text())[1] == {
        "refused": "no flag is set"
    }


def test_scenario_of_cask_1_is_read_and_asked() -> None:
    (scenario,) = scenarios.from_file(FROZEN / "keepsake" / "loadtest.py")
    turn = SimpleNamespace(number=1, id="a", chance=random, expect=None)
    figures = dict[str, int]()
    assert scenario.request and scenario.setup and scenario.check

    known = scenario.setup(lambda request: SimpleNamespace(status=200))
    asked = scenario.request(turn)
    scenario.check(SimpleNamespace(status=200, turn=turn, text="keepkeep", body=b"abc", metric=figures.__setitem__))

    assert (scenario.name, known, asked["path"], figures) == ("keepsake", {"status": 200}, "/keepsake", {"bytes": 3})


def test_what_plugin_toml_could_say_it_still_may() -> None:
    assert {*manifest.KEYS} >= KEYS
    assert {*applications.KEYS} >= WSGI_KEYS
    assert {*plugin_settings.TYPES} >= TYPES


def test_fixtures_that_tests_of_plugins_take_are_there() -> None:
    assert all(hasattr(testing, name) for name in ("app", "client", "photo"))


def test_blocks_that_templates_of_plugins_fill_are_there() -> None:
    layout = (Path(__file__).parents[2] / "app/templates/layout.html").read_text()

    assert all(f"{{% block {name} " in layout for name in ("title", "head", "main"))


# ── what is renamed ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that calls some things otherwise than the plugin does."""
    monkeypatch.setitem(renamed.NAMES, "open_to_all", "public")
    monkeypatch.setitem(renamed.NAMES, "Reject", "Refused")
    monkeypatch.setitem(renamed.KEYS, "menu", "navigation")


@pytest.mark.usefixtures("later")
def test_old_name_is_taken_and_told_with_file_line_and_the_new_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "plugins" / "keepsake"
    shutil.copytree(FROZEN / "keepsake", folder)
    for name, old, new in (("__init__.py", "public", "open_to_all"), ("plugin.toml", "navigation =", "menu =")):
        (folder / name).write_text((folder / name).read_text().replace(old, new))

    app = serve(tmp_path)
    said = capfd.readouterr().err
    here = Surroundings(app.extensions["settings"], permissions.own_account())
    (finding,) = checks.plugins(here)

    assert app.test_client().get("/keepsake").status_code == 200
    assert b">Keepsake</a>" in app.test_client().get("/models").data
    for words in (
        "plugin keepsake: ",
        f"{folder}/__init__.py, line 8: cask.open_to_all is called cask.public now. Write cask.public:",
        f"{folder}/plugin.toml, line 4: menu is called navigation now.",
    ):
        assert words in said
    assert finding.verdict == "warn"
    assert f"{folder}/__init__.py, line 8: cask.open_to_all is called cask.public now" in finding.found


@pytest.mark.usefixtures("later")
def test_old_name_in_a_model_is_told_when_it_is_added_and_by_the_doctor(tmp_path: Path) -> None:
    model = tmp_path / "models" / "mine" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text("import cask\nfrom cask import Model\nBad = cask.Reject\n")
    settings = fakes.make_settings(tmp_path, tmp_path / "models")

    (finding,) = checks.models_with_code(Surroundings(settings, permissions.own_account()))

    assert cask.Reject is cask.Refused
    assert f"{model}, line 3: cask.Reject is called cask.Refused now" in finding.found


def test_name_that_never_was_is_no_old_one() -> None:
    with pytest.raises(AttributeError, match="cask has no 'Rejected'; it has "):
        _ = cask.Rejected
