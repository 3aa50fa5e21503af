"""``flask model`` where there is no engine: what it prints and how it ends. With one: tests/apache/test_versions.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app import config
from app.cli.model import command
from tests import fakes


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a service that does not run."""
    made = fakes.make_settings(tmp_path, tmp_path / "models")
    monkeypatch.setattr(config, "resolve", lambda: made)
    monkeypatch.setattr(config, "resolve_known", lambda place, *needed: (made, []))
    fakes.write_model(tmp_path / "models", "parts", "1")
    fakes.write_model(tmp_path / "models", "parts", "2", task="detect")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("promote", "parts", "2"),
        ("rollback", "parts"),
        ("canary", "parts", "--share", "0"),
        ("shadow", "parts"),
        ("shadow", "parts", "2"),
        ("shadow", "parts", "--end"),
        ("versions",),
    ],
)
def test_command_without_an_engine_fails_and_says_what_to_look_at(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("FAIL: The engine does not answer: it has not started")
    assert "same ENV and STATE_DIR" in done.stderr


def test_canary_with_a_share_needs_a_version() -> None:
    done = run("canary", "parts", "--share", "10")

    assert done.exit_code == 2
    assert done.stderr == "FAIL: VERSION is missing.\nNext: make model-canary MODEL=parts VERSION=2 SHARE=10\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("promote", "parts", "2"), [("promote", False)]),
        (("promote", "parts", "2", "--anyway"), [("promote", True)]),
        (("promote", "parts", "2", "--build"), ["built parts@2", ("reload", False), ("promote", False)]),
        (("canary", "parts", "2", "--share", "5", "--build"), ["built parts@2", ("reload", False), ("canary", False)]),
        (("canary", "parts", "--share", "0", "--build"), [("canary", False)]),
    ],
)
def test_a_version_is_built_before_the_engine_is_asked(
    arguments: tuple[str, ...], expected: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.engine.client import EngineClient
    from app.host import permissions
    from app.models import versions
    from app.runtimes.build import build

    done: list[object] = []
    now = {"active": "2", "previous": "1", "canary": "", "canary_share": 0.0, "shadow": "", "withdrawn": ""}

    def change(self: EngineClient, action: str, *_: object, is_anyway: bool = False, say: object) -> dict[str, object]:
        done.append((action, is_anyway))
        return {"before": {**now, "active": "1"}, "after": now}

    monkeypatch.setattr(EngineClient, "change", change)
    monkeypatch.setattr(versions, "held", lambda *_: [{"version": "2", "state": "ready"}])
    monkeypatch.setattr(permissions, "become_owner", lambda path: None)
    monkeypatch.setattr(build, "build_all", lambda chosen, *_, **__: done.append(f"built {chosen[0].key}"))

    ended = run(*arguments)

    assert ended.exit_code == 0, ended.output
    assert done == expected


@pytest.mark.parametrize("name", command.commands)
def test_command_explains_itself(name: str) -> None:
    done = run(name, "--help")

    assert done.exit_code == 0
    assert "..." not in run("--help").stdout.partition("Commands:")[2]
    assert len(done.stdout.splitlines()) > 4


@pytest.mark.parametrize("arguments", [("promote",), ("promote", "parts"), ("rollback",), ("canary", "a"), ("add",)])
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)

    assert done.exit_code == 2
    assert "Usage:" in done.stderr


def test_list_shows_the_store_without_an_engine() -> None:
    done = run("list")

    assert done.exit_code == 0
    assert [line.split()[:4] for line in done.stdout.splitlines()[1:]] == [
        ["parts@1", "classify", "fake", "-"],
        ["parts@2", "detect", "fake", "-"],
    ]


def test_list_as_json() -> None:
    rows = json.loads(run("list", "--json").stdout)

    assert [(row["model"], row["version"], row["role"], row["labels"]) for row in rows] == [
        ("parts", "1", None, 3),
        ("parts", "2", None, 3),
    ]


def test_check_says_so_where_the_tools_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "training", None)

    done = run("check")

    assert done.exit_code == 1
    assert done.stderr.endswith("Next: Run it in a checkout.\n")


def test_options_for_the_builder_are_a_json_object() -> None:
    done = run("add", "--arch", "a", "--weights", "random", "--name", "b", "--version", "1", "--options", "[1]")

    assert done.exit_code == 2
    assert "expected a JSON object" in done.stderr


def test_list_shows_what_cannot_be_read_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "models" / "parts" / "1" / "manifest.toml").write_text("= no")

    rows = json.loads(run("list", "--json").stdout)

    assert [(row["key"], row["state"]) for row in rows] == [("parts@1", "unreadable"), ("parts@2", None)]
    assert "manifest.toml cannot be read" in rows[0]["description"]


@pytest.mark.parametrize("sides", ["640x480", "640 480", "640×480", "640,480", "(640, 480)", "[640,480]"])
def test_two_sides_are_refused_by_name(sides: str) -> None:
    done = run("add", "--arch", "resnet18", "--weights", "random", "--name", "a", "--version", "1", "--size", sides)

    assert done.exit_code == 2
    assert "are two sides. An input of fixed sides that are not equal is not supported" in " ".join(done.stderr.split())
