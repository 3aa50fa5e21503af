"""Libraries of a plugin: locked, installed beside it, never instead of Cask's; a conflict names both versions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import flask
import pytest

from app.errors import PluginError
from app.model_code import environments
from app.plugins import applications, libraries, trial
from tests.unit.model_code.test_environments import wheel
from tests.unit.plugins.test_mounting import make, refusal, write

CODE = """
import words_of_a_plugin
from flask import Blueprint
from cask import public

blueprint = Blueprint("{name}", __name__)

@blueprint.get("/{name}/word")
@public
def word():
    return words_of_a_plugin.WORD
"""


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("1.0", "2.0"):
        wheel(folder, "words_of_a_plugin", version, f"WORD = 'of {version}'\n")
    wheel(folder, "flask", "2.0", "WORD = 'another Flask'\n")
    return folder


def require(plugins: Path, name: str, wheels: Path, *lines: str) -> Path:
    folder = write(plugins, CODE.format(name=name), name) / name
    (folder / "requirements.txt").write_text("\n".join(("--no-index", f"--find-links {wheels}", *lines)))
    return folder


def test_library_is_locked_and_installed_before_it_is_imported(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = require(tmp_path / "theirs", "claims", wheels, "words_of_a_plugin==1.0")
    assert "make plugin-install NAME=claims" in refusal(tmp_path, tmp_path / "theirs")

    libraries.install(folder, (), print)

    lock = (folder / "requirements.lock").read_text()
    assert "words_of_a_plugin==1.0 --hash=sha256:" in lock
    assert make(tmp_path, tmp_path / "theirs").test_client().get("/claims/word").text == "of 1.0"
    # A list that was changed later is no promise kept.
    (folder / "requirements.txt").write_text("words_of_a_plugin==2.0\n")
    assert "requirements.txt was changed after the lock was made from it" in refusal(tmp_path, tmp_path / "theirs")


def test_version_of_ours_is_not_replaced(tmp_path: Path, wheels: Path) -> None:
    folder = require(tmp_path / "theirs", "claims", wheels, "flask==2.0")

    with pytest.raises(PluginError, match="flask") as error:
        libraries.install(folder, (), print)

    said = f"{error.value.message} {error.value.hint}"
    assert "flask==2.0" in said
    assert flask.__name__ in said
    assert not (folder / "requirements.lock").exists()


def test_two_plugins_with_two_versions_are_refused_with_both(tmp_path: Path, wheels: Path) -> None:
    one = require(tmp_path / "theirs", "claims", wheels, "words_of_a_plugin==1.0")
    other = require(tmp_path / "theirs", "shop", wheels, "words-of-a-plugin==2.0")
    libraries.install(one, (), print)

    with pytest.raises(PluginError) as error:
        libraries.install(other, [one], print)

    words = "plugin shop needs words-of-a-plugin 2.0, and plugin claims has 1.0; expected one version"
    assert words in error.value.message


def test_application_has_libraries_of_its_own_whatever_ours_are(tmp_path: Path, wheels: Path) -> None:
    folder = require(tmp_path / "theirs", "shop", wheels, "flask==2.0")
    (folder / "shop.py").write_text("import flask\nassert flask.WORD == 'another Flask'\napp = print\n")
    libraries.install(folder, (), print, is_alone=True)

    row = {"application": "shop:app", "mount": "/shop"}
    found = applications.read(folder, row, folder / "plugin.toml")

    assert found.libraries == environments.place(folder)
    assert trial.fault(found, folder, tmp_path) == ""


def test_command_tells_next_steps(tmp_path: Path, wheels: Path) -> None:
    require(tmp_path / "plugins", "claims", wheels, "words_of_a_plugin==1.0")
    command = [sys.executable, "-m", "app.cli", "plugin", "install", "claims"]
    kept = {"PATH": "/usr/bin:/bin", "ENV": "test", "PLUGINS_DIR": str(tmp_path / "plugins")}

    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, json.dumps(done.stderr)
    assert "make plugin-test NAME=claims" in done.stdout
