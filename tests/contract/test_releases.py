"""One number says which version this is, CHANGELOG.md begins with it, and recipes for pipelines name what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from app import __version__
from tests.servers import ROOT

HEADING = re.compile(r"^## (\d+\.\d+\.\d+), (not released yet|\d{4}-\d\d-\d\d)$", re.M)
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
CI = ROOT / "ci"


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_changelog_begins_with_this_version_and_goes_back_in_time() -> None:
    found = HEADING.findall(CHANGELOG)

    assert len(found) == len(re.findall("^## ", CHANGELOG, re.M)), (
        "each heading is «## 1.2.3, date» or «not released yet»"
    )
    assert found[0][0] == __version__
    versions = [numbers(version) for version, _ in found]
    assert versions == sorted(set(versions), reverse=True)
    assert [date for _, date in found[1:] if date == "not released yet"] == []


def test_each_version_says_what_to_do_when_upgrading() -> None:
    parts = re.split("^## ", CHANGELOG, flags=re.M)[1:]

    assert [part.splitlines()[0] for part in parts if "**Do this when you upgrade**" not in part] == []


def test_state_of_each_released_version_is_kept_for_the_test_of_upgrades() -> None:
    released = [version for version, date in HEADING.findall(CHANGELOG) if date != "not released yet"]

    kept = [path.name.removesuffix(".tar.gz") for path in (ROOT / "tests/apache/states").iterdir()]

    assert sorted(kept) == sorted(released), "python -m tests.record_state keeps one"


def test_no_other_file_holds_the_version() -> None:
    assert re.findall(r"^version\s*=", (ROOT / "pyproject.toml").read_text(), re.M) == []
    assert len(re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', (ROOT / "app/__init__.py").read_text(), re.M)) == 1


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    shutil.copy(ROOT / "app/__init__.py", tmp_path / "app")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changes\n\n## {__version__}, not released yet\n\nwords\n")
    return tmp_path


def version(checkout: Path, following: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "ROOT": str(checkout)}
    command = [CI / "version.sh", following]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_next_version_is_begun_in_both_places(checkout: Path) -> None:
    done = version(checkout, "99.0.0")

    assert done.returncode == 0, done.stderr
    assert '__version__ = "99.0.0"' in (checkout / "app/__init__.py").read_text()
    found = HEADING.findall((checkout / "CHANGELOG.md").read_text())
    assert found[0] == ("99.0.0", "not released yet")
    assert found[1][0] == __version__
    assert found[1][1] != "not released yet"


@pytest.mark.parametrize("following", ["", "1", "0.0.1", __version__, "1.2.3; id"])
def test_what_is_no_next_version_is_refused(checkout: Path, following: str) -> None:
    before = (checkout / "CHANGELOG.md").read_text()

    assert version(checkout, following).returncode == 2
    assert (checkout / "CHANGELOG.md").read_text() == before


def stages() -> set[str]:
    return set(re.findall(r"^    (\w+)\) \w", (CI / "run.sh").read_text(), re.M))


@pytest.mark.parametrize("recipe", ["github.yml", "gitlab.yml", "Jenkinsfile"])
def test_recipe_has_every_stage_of_the_pipeline(recipe: str) -> None:
    text = (CI / recipe).read_text()

    assert set(re.findall(r"ci/run\.sh (\w+)", text)) == stages() == {"test", "image", "gate", "bundle", "deploy"}
    if recipe.endswith(".yml"):
        assert isinstance(yaml.safe_load(text), dict)


def test_pipeline_calls_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    called = {
        word for line in re.findall(r"\bmake ((?:[a-z-]+ ?)+)", (CI / "run.sh").read_text()) for word in line.split()
    }

    assert called
    assert called <= targets
