"""`flask plugin`: what it begins works as it stands, and what it refuses it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "ENV": "test", "PLUGINS_DIR": str(folder / "plugins"), **environ}
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new plugin."""
    folder = tmp_path_factory.mktemp("theirs")
    done = run(folder, "plugin", "new", "shop_2")
    assert done.returncode == 0, done.stderr
    assert "make plugin-test NAME=shop_2" in done.stdout
    return folder


def test_new_plugin_passes_its_own_tests_with_a_real_model(made: Path) -> None:
    done = run(made, "plugin", "test", "shop_2", STATE_DIR=str(made / "state"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_second_example_passes_its_own_tests() -> None:
    done = run(ROOT / "examples", "plugin", "test", "notes")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_failing_test_is_a_failure(made: Path) -> None:
    (made / "plugins" / "shop_2" / "tests" / "test_wrong.py").write_text("def test_wrong():\n    assert False\n")

    done = run(made, "plugin", "test", "shop_2", "-k", "wrong")

    assert (done.returncode, "1 failed" in done.stdout) == (1, True)
    # Without a name, as before each build of the image: all that have some.
    assert run(made, "plugin", "test", "--", "-k", "wrong").returncode == 1


def test_there_is_no_word_of_the_example_left(made: Path) -> None:
    texts = [path.read_text() for path in (made / "plugins").rglob("*") if path.is_file() and path.suffix != ".pyc"]

    assert texts
    assert not [text for text in texts if "claims" in text.lower()]
    for path in (made / "plugins").rglob("*.py"):
        compile(path.read_text(), str(path), "exec")


def test_folder_that_is_there_and_wrong_names_are_refused(made: Path) -> None:
    before = sorted((made / "plugins").rglob("*"))

    again, wrong, none = (run(made, "plugin", "new", *name) for name in (["shop_2"], ["My-Shop"], []))
    missing = run(made, "plugin", "test", "shop_3")

    assert all(each.returncode in (1, 2) for each in (again, wrong, none, missing)), [again, wrong, none, missing]
    assert "is there already; nothing was touched" in again.stderr
    assert "NAME is 'My-Shop'; expected small letters" in wrong.stderr
    assert "NAME" in none.stderr
    assert "Did you mean 'shop_2'?" in missing.stderr
    assert sorted((made / "plugins").rglob("*")) == before


def test_list_and_config_show_it(made: Path) -> None:
    listed = json.loads(run(made, "plugin", "list", "--json").stdout)
    shown = json.loads(run(made, "config", "show", "--json", PLUGIN_SHOP_2_ROWS="7").stdout)
    typo = run(made, "config", "check", PLUGIN_SHOP_2_ROW="7")

    assert [row["name"] for row in listed] == ["shop_2"]
    row = next(row for row in shown["settings"] if row["name"] == "PLUGIN_SHOP_2_ROWS")
    assert (row["value"], row["source"], row["section"]) == ("7", "environment", "Plugin shop_2")
    assert (typo.returncode, "Did you mean 'PLUGIN_SHOP_2_ROWS'?" in typo.stderr) == (2, True)
