"""What the doctor says of plugins; it runs none of their code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app import config
from app.cli.checks import Surroundings
from app.cli.checks.plugins import plugins
from app.host import permissions


@pytest.fixture
def here(tmp_path: Path) -> Surroundings:
    (tmp_path / "plugins" / "claims").mkdir(parents=True)
    (tmp_path / "plugins" / "claims" / "plugin.toml").write_text('name = "claims"\nversion = "1"\ncask = ">=1"\n')
    (tmp_path / "plugins" / "claims" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "run").mkdir()
    changes = {"plugins_dir": tmp_path / "plugins", "state_dir": tmp_path}
    return Surroundings(config.describe("test").model_copy(update=changes), permissions.own_account())


def test_plugin_that_is_right_is_well_and_none_is_no_finding(here: Surroundings) -> None:
    assert [(each.verdict, each.found[:8]) for each in plugins(here)] == [("ok", "claims 1")]
    (here.settings.plugins_dir / "claims" / "plugin.toml").unlink()
    assert list(plugins(here)) == []


@pytest.mark.parametrize(("on_error", "verdict"), [("stop", "fail"), ("skip", "warn")])
def test_what_the_service_left_out_and_what_is_wrong_is_told(here: Surroundings, on_error: str, verdict: str) -> None:
    here = Surroundings(here.settings.model_copy(update={"plugins_on_error": on_error}), here.user)
    row = {"name": "claims", "version": "", "state": "left out", "reason": "line 7: NameError"}
    (here.settings.state_dir / "run" / "plugins.json").write_text(json.dumps([row]))
    left_out = next(plugins(here))
    (here.settings.plugins_dir / "claims" / "plugin.toml").write_text('name = "other"\n')
    wrong = next(plugins(here))

    assert (left_out.verdict, wrong.verdict) == (verdict, verdict)
    assert "line 7: NameError" in left_out.found
    assert "expected the folder's name" in wrong.found
