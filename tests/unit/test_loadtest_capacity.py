"""The capacity comes to where the page reads it, or the command that brings it there is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest import capacity
from loadtest.guard import target_of


@pytest.fixture
def found(tmp_path: Path) -> Path:
    path = tmp_path / "dev-capacity.json"
    path.write_text('{"capacity_rps": 40}')
    return path


def publish(found: Path, url: str, state_dir: Path) -> str:
    return capacity.publish(found, target_of(url), 8000, state_dir)


def test_the_service_of_this_machine_shows_it(found: Path, tmp_path: Path) -> None:
    words = publish(found, "http://127.0.0.1:8000", tmp_path)

    assert json.loads((tmp_path / "capacity.json").read_text()) == json.loads(found.read_text())
    assert words == "Shown at http://127.0.0.1:8000/capacity"
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8001", "http://192.0.2.7:8000"])
def test_of_another_service_the_command_is_said(found: Path, tmp_path: Path, url: str) -> None:
    assert f"scp {found}" in publish(found, url, tmp_path)
    assert not (tmp_path / "capacity.json").exists()


def test_of_a_container_the_command_is_said(found: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "not here"

    assert f"docker cp {found} CONTAINER:{state_dir}/capacity.json" in publish(
        found, "http://127.0.0.1:8000", state_dir
    )


def test_what_may_not_be_written_says_the_command(found: Path, tmp_path: Path) -> None:
    (tmp_path / "capacity.json").mkdir()

    assert f"sudo install -m 644 {found}" in publish(found, "http://127.0.0.1:8000", tmp_path)


def test_used_up_runs_say_at_least() -> None:
    table = {"verdict": "UNDECIDED", "capacity_rps": 40.0, "lowest_failing_rps": 50.0, "reason": "25 runs were used up"}

    assert capacity.headline(table) == "Capacity: at least 40 requests a second (25 runs were used up)."
