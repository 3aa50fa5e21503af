"""``flask token`` as an operator types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app import cli
from app.auth.tokens import TokenStore, TokenTable


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("ENV", "test")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.load("token"), arguments, prog_name="flask token")


def made(output: str) -> str:
    (text,) = re.findall(r"cask_[0-9a-f]{8}_[0-9a-f]{48}", output)
    return str(text)


def test_token_is_printed_once_and_works(state_dir: Path) -> None:
    done = run("create", "camera-7")

    token = TokenTable(state_dir).find(made(done.stdout))
    assert (done.exit_code, token.name, token.scopes) == (0, "camera-7", {"predict"})
    assert token.expires is not None
    assert round((token.expires - token.created) / 86400) == 365
    assert "printed this once" in done.stdout
    listed = run("list").stdout
    assert "camera-7" in listed
    assert made(done.stdout) not in listed


@pytest.mark.parametrize(
    ("options", "days", "scopes"),
    [
        (["--days", "0.5"], 0.5, {"predict"}),
        (["--never", "--scope", "admin"], None, {"admin"}),
        (["--scope", "admin", "--scope", "predict"], 365, {"admin", "predict"}),
    ],
)
def test_scopes_and_end_are_as_wished(
    state_dir: Path, options: list[str], days: float | None, scopes: set[str]
) -> None:
    said = json.loads(run("create", "one", "--json", *options).stdout)

    token = TokenTable(state_dir).find(said["token"])
    assert token.scopes == scopes == set(said["scopes"])
    assert (token.expires and (token.expires - token.created) / 86400) == days


def test_internal_token_works_and_is_not_listed(state_dir: Path) -> None:
    text = json.loads(run("create", "smoke", "--internal", "--json").stdout)["token"]

    assert TokenTable(state_dir).find(text).is_internal
    assert json.loads(run("list", "--all", "--json").stdout) == []


def test_revoked_token_is_listed_on_demand_only() -> None:
    run("create", "one")
    run("create", "two")

    done = run("revoke", "one")

    assert (done.exit_code, "every process refuses it within a second" in done.stdout) == (0, True)
    assert [row["name"] for row in json.loads(run("list", "--json").stdout)] == ["two"]
    assert {row["name"]: row["state"] for row in json.loads(run("list", "--all", "--json").stdout)} == {
        "one": "revoked",
        "two": "valid",
    }
    assert "1 more have ended: flask token list --all" in run("list").stderr


def test_last_use_is_shown(state_dir: Path) -> None:
    TokenTable(state_dir).find(made(run("create", "one").stdout))

    assert "just now" in run("list").stdout


def test_empty_list_says_what_to_do() -> None:
    assert "flask token create NAME" in run("list").stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["create", "a b"], 1, "cannot be a name"),
        (["create", "one", "--never", "--days", "3"], 2, "Only one of"),
        (["create", "one", "--scope", "root"], 2, "'root' is not one of 'predict', 'admin'"),
        (["create", "one", "--days", "0"], 2, "0.0 is not in the range"),
        (["revoke", "nobody"], 1, "no valid token of the id or name 'nobody'"),
    ],
)
def test_wish_that_cannot_be_is_refused(state_dir: Path, arguments: list[str], status: int, words: str) -> None:
    done = run(*arguments)

    assert (done.exit_code, words in done.stderr) == (status, True), done.stderr
    assert TokenStore(state_dir).all() == []


def test_second_token_of_a_name_is_refused_with_the_way_out() -> None:
    run("create", "one")

    done = run("create", "one")

    assert (done.exit_code, "Next:" in done.stderr, "flask token revoke one" in done.stderr) == (1, True, True)
