"""Tokens by a file: into another store, twice, with what was revoked; a broken file changes nothing."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app import cli
from app.auth import transfer
from app.auth.tokens import TokenStore, TokenTable
from app.errors import TokenError, TokenInvalidError

NOW = time.time()


@pytest.fixture
def here(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "there")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()


def test_tokens_work_elsewhere_and_twice_is_once(here: TokenStore, there: TokenStore, tmp_path: Path) -> None:
    _, text = here.create("camera-7", lifetime_seconds=None)
    here.create("camera-8")
    here.create("smoke", is_internal=True)
    file = transfer.exported(here.all())

    assert transfer.imported(there, file, NOW) == transfer.Outcome(2, 0, 0)
    assert transfer.imported(there, file, NOW) == transfer.Outcome(0, 0, 2)
    assert TokenTable(tmp_path / "there").find(text).name == "camera-7"
    assert text.rpartition("_")[2] not in file


def test_revocations_travel_and_nothing_is_brought_back(here: TokenStore, there: TokenStore, tmp_path: Path) -> None:
    _, text = here.create("camera-7")
    before = transfer.exported(here.all())
    transfer.imported(there, before, NOW)
    here.revoke("camera-7")

    assert transfer.imported(there, transfer.exported(here.all()), NOW) == transfer.Outcome(0, 1, 0)
    assert transfer.imported(there, before, NOW) == transfer.Outcome(0, 0, 1)
    with pytest.raises(TokenInvalidError, match="was revoked"):
        TokenTable(tmp_path / "there").find(text)


def test_ended_token_of_a_name_that_is_in_use_is_taken(here: TokenStore, there: TokenStore) -> None:
    here.create("camera-7")
    here.revoke("camera-7")
    there.create("camera-7")

    assert transfer.imported(there, transfer.exported(here.all()), NOW).added == 1


def _line(number: int, **changes: object) -> Callable[[str], str]:
    def change(file: str) -> str:
        lines = file.splitlines()
        lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **changes})
        return "\n".join(lines)

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: "", "Line 1: it is not JSON"),
        (lambda file: "{}\n", "Line 1: it is no export of tokens"),
        (_line(1, cask_tokens=2), "Line 1: it is no export of tokens of the form 1"),
        (lambda file: file[:-20], "Line 3: it is not JSON; the file may have been cut off"),
        (
            lambda file: "".join(file.splitlines(keepends=True)[:2]),
            "Line 2: it has 1 tokens, and its first line says 2",
        ),
        (lambda file: file.replace('"hash"', '"hush"', 1), "Line 2: 'hash' is missing"),
        (_line(2, hash="zz"), "Line 2: non-hexadecimal"),
        (_line(2, hash="00"), "Line 2: id, name or hash has not the form of a token"),
        (_line(2, hash=7), "Line 2: hash is not a text"),
        (_line(2, name="../x"), "Line 2: id, name or hash"),
        (_line(3, scopes=["root"]), r"Line 3: scopes are \['root'\], expected some of predict, admin"),
        (_line(3, scopes=[[]]), r"Line 3: scopes are \[\[\]\]"),
        (_line(3, expires="soon"), "Line 3: expires is 'soon', expected seconds since 1970"),
        (_line(3, expires=float("nan")), "Line 3: expires is nan"),
        (_line(3, created=None), "Line 3: created is not a number"),
        (lambda file: "\n".join([*file.splitlines()[:2], "[]"]), "Line 3: it is not an object"),
        (lambda file: "\n".join([*file.splitlines()[:2], file.splitlines()[1]]), "Line 3: its id stands in an earlier"),
    ],
)
def test_broken_file_is_refused_by_its_line(
    here: TokenStore, there: TokenStore, damage: Callable[[str], str], words: str
) -> None:
    here.create("camera-7")
    here.create("camera-8")

    with pytest.raises(TokenError, match=words):
        transfer.imported(there, damage(transfer.exported(here.all())), NOW)
    assert there.all() == []


def test_what_contradicts_the_store_is_refused(here: TokenStore, there: TokenStore) -> None:
    token, _ = here.create("camera-7")
    file = transfer.exported(here.all())
    other, _ = there.create("camera-7")

    with pytest.raises(TokenError, match=f"Line 2: here another valid token .{other.id}. has the name camera-7"):
        transfer.imported(there, file, NOW)
    changed = file.replace(token.hash.hex(), "00" * 32)
    with pytest.raises(TokenError, match=f"Line 2: here the id {token.id} is another token's"):
        transfer.imported(here, changed, NOW)


def run(state_dir: Path, *arguments: str, given: str = "") -> Result:
    environment = {"STATE_DIR": str(state_dir), "ENV": "test"}
    return CliRunner().invoke(cli.load("token"), arguments, given, environment, prog_name="flask token")


def test_commands_write_a_closed_file_and_read_it(here: TokenStore, tmp_path: Path) -> None:
    here.create("camera-7")
    path = tmp_path / "tokens.jsonl"
    path.touch(0o644)

    done = run(tmp_path / "here", "export", str(path))
    assert (done.exit_code, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600), done.output
    assert run(tmp_path / "there", "import", str(path)).stdout == "1 token added, 0 revoked, 0 known already.\n"
    assert run(tmp_path / "here", "export", "-").stdout == path.read_text()

    broken = run(tmp_path / "there", "import", "-", given=path.read_text()[:-9])
    assert (broken.exit_code, "Line 2: it is not JSON" in broken.stderr) == (1, True), broken.stderr


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_export_follows_no_link(here: TokenStore, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tokens.jsonl"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()

    done = run(tmp_path / "here", "export", str(path))

    assert done.exit_code != 0
    assert not (tmp_path / "elsewhere").exists()
