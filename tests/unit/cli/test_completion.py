"""What a shell proposes after TAB, by click's own machinery; and that every command stands in the documents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from app import cli, config
from app.cli.__main__ import main
from app.config import ROOT
from tests import fakes

ADMINISTRATION = (ROOT / "docs" / "administration.md").read_text()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models, one of them in two versions."""
    fakes.write_model(tmp_path / "models", "parts", "1")
    fakes.write_model(tmp_path / "models", "parts", "2")
    fakes.write_model(tmp_path / "models", "people", "2026-11")
    monkeypatch.setattr(config, "resolve", lambda *place: fakes.make_settings(tmp_path, tmp_path / "models"))


def proposed(*words: str) -> list[str]:
    """What is proposed for the last of the words."""
    *before, incomplete = words
    completion = BashComplete(main, {}, "flask", "_FLASK_COMPLETE")
    return [item.value for item in completion.get_completions(before, incomplete)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("mo",), ["model"]),
        (("model", "pro"), ["promote"]),
        (("model", "promote", "p"), ["parts", "people"]),
        (("model", "promote", "parts", ""), ["1", "2"]),
        (("model", "canary", "people", ""), ["2026-11"]),
        (("predict", "x.jpg", "--model", "pe"), ["people"]),
        (("config", "diff", "dev", "p"), ["prod"]),
        (("config", "show", "--env", "s"), ["staging"]),
        (("config", "get", "engine_h"), ["ENGINE_HANG_SECONDS"]),
        (("doctor", "--js"), ["--json"]),
    ],
)
@pytest.mark.usefixtures("store")
def test_a_shell_is_told_what_may_come(words: tuple[str, ...], expected: list[str]) -> None:
    assert proposed(*words) == expected


def test_nothing_is_proposed_where_there_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "resolve", lambda *place: fakes.make_settings(tmp_path, tmp_path / "none"))

    assert proposed("model", "promote", "") == []


def test_flask_itself_completes_our_commands() -> None:
    flask = Path(sys.executable).with_name("flask")
    asked = {"_FLASK_COMPLETE": "bash_complete", "COMP_WORDS": "flask model promote site", "COMP_CWORD": "3"}

    done = subprocess.run(
        [flask], cwd=ROOT, env={"PATH": os.environ["PATH"], **asked}, capture_output=True, text=True, check=False
    )

    assert done.stdout.splitlines() == ["plain,site-safety-classifier", "plain,site-safety-detector"]


# ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_stands_in_the_table_of_administration(name: str) -> None:
    command = cli.load(name)
    rows = "\n".join(re.findall(rf"^\| `flask {name}\b.*$", ADMINISTRATION, re.M))

    assert rows, f"add `flask {name}` to the table in docs/administration.md"
    for each in command.commands if isinstance(command, click.Group) else ():
        assert re.search(rf"`(flask {name} )?{each}\b", rows) or each == "docs", f"flask {name} {each}"
