"""tests/run.sh: every file of tests runs by one command of CI, and in one of its three runs only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from app.config import ROOT

CLIENTS = "tests/clients/"


def listed(*given: str) -> list[str]:
    """The files that would run."""
    done = subprocess.run(
        ["tests/run.sh", "--list", *given], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return [line.split()[1] for line in done.stdout.splitlines()]


def test_every_file_runs_once_in_ci_but_clients_that_want_registries() -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}

    counted = Counter(listed() + listed("--long"))

    assert set(counted) == {each for each in there if not each.startswith(CLIENTS)}
    assert set(counted.values()) == {1}


@pytest.mark.parametrize("part", ["faults", "vision,clients"])
def test_part_is_all_of_its_files(part: str) -> None:
    folders = [ROOT / "tests" / each for each in part.split(",")]
    there = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("test_*.py")}

    assert sorted(listed(part)) == sorted(there)


def test_unknown_part_is_named_beside_those_there_are() -> None:
    done = subprocess.run(["tests/run.sh", "nobody"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "no part nobody. Parts: unit contract vision" in done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tests without anything that runs them: what stands for Python, Docker and the image's build says its name."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for program, text in {
        ".venv/bin/python": 'echo "ran ${*: -1}"',
        "bin/docker": "exit 0",
        "docker/steps/build.sh": 'echo "stage $STAGE"; exit "${FAILS:-0}"',
    }.items():
        path = tmp_path / program
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    return tmp_path


def run(checkout: Path, parts: str, **given: str) -> list[str]:
    """What a run of these parts prints; it must succeed."""
    environ = {"PATH": f"{checkout}/bin:{os.environ['PATH']}", **given}
    command = [checkout / "tests" / "run.sh", parts]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("given", "said", "logged"),
    [
        ({}, [], ["stage model-tools", "stage dependencies"]),
        ({"FAILS": "1"}, ["The image's build could not begin ahead (build/image-ahead.log)"], ["stage model-tools"]),
        ({"IMAGE_AHEAD": "no"}, [], None),
    ],
    ids=["works", "fails", "is not wanted"],
)
def test_image_is_begun_beside_other_tests_and_its_own_run_whatever_comes_of_it(
    checkout: Path, given: dict[str, str], said: list[str], logged: list[str] | None
) -> None:
    cheap, *rest = run(checkout, "contract,system", **given)
    containers = [each for each in rest if each.startswith("ran tests/system/")]

    log = checkout / "build" / "image-ahead.log"
    assert cheap.startswith("ran tests/contract/") and containers
    assert [each.partition(";")[0] for each in rest if each not in containers] == said
    assert (log.read_text().splitlines() if log.exists() else None) == logged


def test_image_alone_is_built_by_its_tests(checkout: Path) -> None:
    assert {each.rpartition("/")[0] for each in run(checkout, "system")} == {"ran tests/system"}
    assert not (checkout / "build").exists()
