"""tests/run.sh: every file of tests runs by one command of CI, and in one of its three runs only."""

from __future__ import annotations

import subprocess
from collections import Counter

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
