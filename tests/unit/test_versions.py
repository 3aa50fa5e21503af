"""Operators' commands for versions: what they print and how they end where there is no engine. See tests/apache too."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import config, versions
from tests import fakes


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a service that does not run."""
    made = fakes.make_settings(tmp_path, tmp_path / "models")
    monkeypatch.setattr(config, "resolve", lambda: made)


@pytest.mark.parametrize(
    "arguments",
    [
        ("promote", "--model", "parts", "--version", "2"),
        ("rollback", "--model", "parts"),
        ("canary", "--model", "parts", "--share", "0"),
        ("shadow", "--model", "parts"),
        ("show",),
    ],
)
def test_command_without_an_engine_fails_and_says_what_to_look_at(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    status = versions.main(arguments)

    said = capsys.readouterr()
    assert (status, said.out) == (1, "")
    assert said.err.startswith("FAIL: The engine does not answer: it has not started")
    assert "same ENV and STATE_DIR" in said.err


def test_canary_with_a_share_needs_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert versions.main(["canary", "--model", "parts", "--share", "10"]) == 2
    assert capsys.readouterr().err == "VERSION is missing. make model-canary MODEL=parts VERSION=2 SHARE=10\n"


@pytest.mark.parametrize("command", ["promote", "rollback", "canary", "shadow", "show"])
def test_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        versions.main([command, "--help"])

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: make model-")


@pytest.mark.parametrize("arguments", [(), ("promote",), ("promote", "--model", "parts"), ("canary", "--model", "a")])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        versions.main(arguments)

    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
