"""Tokens: made, found, ended; what is kept of them; how soon a change is seen by somebody who has them in RAM."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.auth import tokens
from app.auth.disk_rows import DiskRows
from app.auth.rows import Snapshot
from app.auth.tokens import Token, TokenStore, TokenTable
from app.errors import StateUnusableError, TokenError, TokenInvalidError
from tests import servers
from tests.fakes import FakeClock

DAY_SECONDS = 86400.0
UNKNOWN = "cask_00000000_" + "0" * 48


class HeldRows(DiskRows):
    """The file, whose first look is held after it has read until ``may_answer`` is set."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir, is_durable=False)
        self.looks = 0
        self.has_read, self.may_answer = threading.Event(), threading.Event()

    def look(self, mark: str | None) -> Snapshot | None:
        """As ``DiskRows``."""
        self.looks += 1
        found = super().look(mark)
        self.has_read.set()
        assert self.may_answer.wait(30)
        return found


@pytest.fixture
def now() -> FakeClock:
    """The time of day."""
    return FakeClock(1_800_000_000.0)


@pytest.fixture
def clock() -> FakeClock:
    """Seconds of a process."""
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, now: FakeClock) -> TokenStore:
    return TokenStore(tmp_path, now)


@pytest.fixture
def table(tmp_path: Path, clock: FakeClock, now: FakeClock) -> TokenTable:
    return TokenTable(tmp_path, clock, now)


def test_token_that_was_made_is_found(store: TokenStore, table: TokenTable) -> None:
    token, text = store.create("camera-7", ["predict", "admin"], DAY_SECONDS)

    assert re.fullmatch(r"cask_[0-9a-f]{8}_[0-9a-f]{48}", text)
    found = table.find(text)
    assert (found.name, found.scopes, found.expires) == ("camera-7", {"predict", "admin"}, token.created + DAY_SECONDS)
    assert table.by_session("a session", token.id, token.created) == found


def test_file_holds_no_secret_and_is_closed_to_others(store: TokenStore, tmp_path: Path) -> None:
    _, text = store.create("camera-7")

    files = list(tmp_path.iterdir())
    assert files
    for path in files:
        assert text.rpartition("_")[2].encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [lambda t: t[:-1] + ("0" if t[-1] != "0" else "1"), lambda t: t + "0", str.upper])
def test_text_that_differs_in_one_place_is_refused(store: TokenStore, table: TokenTable, change: Any) -> None:
    _, text = store.create("camera-7")

    with pytest.raises(TokenInvalidError):
        table.find(change(text))


@pytest.mark.parametrize("text", ["", "x", "cask_", "cask_00000000_" + "0" * 48, "é" * 60, "cask_\n"])
def test_text_that_is_no_token_is_refused(store: TokenStore, table: TokenTable, text: str) -> None:
    store.create("camera-7")

    with pytest.raises(TokenInvalidError):
        table.find(text)


def test_hashes_are_compared_in_constant_time(
    store: TokenStore, table: TokenTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = store.create("camera-7")
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)

    table.find(text)

    assert [len(each) for pair in compared for each in pair] == [32, 32]


def test_expired_token_is_refused_with_the_reason(store: TokenStore, table: TokenTable, now: FakeClock) -> None:
    token, text = store.create("camera-7", lifetime_seconds=10)
    table.find(text)
    now.now += 10

    with pytest.raises(TokenInvalidError, match=f"{token.id} .camera-7. has expired"):
        table.find(text)
    with pytest.raises(TokenInvalidError, match="has expired"):
        table.by_session("a session", token.id, token.created)


def test_revoked_token_is_refused_within_a_second(store: TokenStore, table: TokenTable, clock: FakeClock) -> None:
    token, text = store.create("camera-7")
    table.find(text)

    assert store.revoke("camera-7").id == token.id

    clock.now += 1.0
    with pytest.raises(TokenInvalidError, match="was revoked"):
        table.find(text)


def test_new_token_works_at_once_although_the_table_was_just_read(store: TokenStore, table: TokenTable) -> None:
    _, first = store.create("camera-7")
    table.find(first)
    _, second = store.create("camera-8")

    assert table.find(second).name == "camera-8"


def test_new_token_works_although_another_request_was_reading_when_it_was_made(
    store: TokenStore, tmp_path: Path, now: FakeClock
) -> None:
    rows = HeldRows(tmp_path)
    table = TokenTable(rows, now=now)
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(pytest.raises, TokenInvalidError, table.find, UNKNOWN)
        assert rows.has_read.wait(30)
        _, text = store.create("camera-7")
        late = pool.submit(table.find, text)
        rows.may_answer.set()

        assert early.result(30)
        assert late.result(30).name == "camera-7"


def test_flood_of_unknown_tokens_shares_its_looks(tmp_path: Path) -> None:
    arrived: list[float] = []

    def clock() -> float:
        arrived.append(time.monotonic())
        return arrived[-1]

    rows = HeldRows(tmp_path)
    table = TokenTable(rows, clock)
    with ThreadPoolExecutor(32) as pool:
        refused = [pool.submit(pytest.raises, TokenInvalidError, table.find, UNKNOWN) for _ in range(32)]
        # Each has asked for the time once, and the one that looks once more.
        servers.wait_until(lambda: len(arrived) == 33, 30, "all of them to wait")
        rows.may_answer.set()
        assert all(each.result(30) for each in refused)

    assert rows.looks == 2


def test_token_is_ended_by_name_or_id_and_only_once(store: TokenStore) -> None:
    one, _ = store.create("one")
    store.create("two")

    store.revoke(one.id)
    store.revoke("two")

    for known_as in ("one", "two", one.id, "nobody"):
        with pytest.raises(TokenError, match="no valid token"):
            store.revoke(known_as)


def test_name_of_a_valid_token_is_not_given_twice(store: TokenStore, now: FakeClock) -> None:
    store.create("one", lifetime_seconds=5)

    with pytest.raises(TokenError, match="There is a valid token of the name 'one'"):
        store.create("one")
    now.now += 5
    store.create("one")
    store.revoke("one")
    store.create("one")

    assert [each.state(now.now) for each in store.all()] == ["expired", "revoked", "valid"]


@pytest.mark.parametrize("name", ["", " a", "a b", "-a", "a" * 65, "é", "a\n"])
def test_name_that_cannot_be_is_refused(store: TokenStore, name: str) -> None:
    with pytest.raises(TokenError, match="cannot be a name"):
        store.create(name)


@pytest.mark.parametrize("scopes", [[], ["root"], ["predict", "root"]])
def test_scope_that_there_is_not_is_refused(store: TokenStore, scopes: list[str]) -> None:
    with pytest.raises(TokenError, match="The scopes are"):
        store.create("one", scopes)


def test_internal_tokens_are_not_listed_and_vanish(store: TokenStore, table: TokenTable, now: FakeClock) -> None:
    token, text = store.create("smoke", lifetime_seconds=60, is_internal=True)
    store.create("smoke", lifetime_seconds=60, is_internal=True)

    assert table.find(text).is_internal
    assert store.all() == []
    assert not store.is_any_valid()
    store.discard(token)
    now.now += 61
    store.create("people")
    assert [each.name for each in store.rows.all()] == ["people"]


def test_last_use_is_written_once_a_minute(
    store: TokenStore, table: TokenTable, clock: FakeClock, now: FakeClock
) -> None:
    token, text = store.create("camera-7")

    def used() -> float | None:
        return next(each.last_used for each in store.all() if each.id == token.id)

    assert used() is None
    table.find(text)
    first = used()
    clock.now += 59
    now.now += 59
    table.find(text)
    assert used() == first == now.now - 59
    clock.now += 1
    now.now += 1
    table.find(text)
    assert used() == now.now


def test_request_does_not_fail_when_its_use_cannot_be_noted(store: TokenStore, table: TokenTable) -> None:
    _, text = store.create("camera-7")

    with store.rows.database.transaction():
        assert table.find(text).name == "camera-7"


def test_who_is_known_comes_in_while_another_program_lets_nobody_read(
    store: TokenStore, table: TokenTable, clock: FakeClock, tmp_path: Path
) -> None:
    _, text = store.create("camera-7")
    _, unknown = store.create("camera-8", is_internal=True)
    table.find(text)
    table._tokens.pop(unknown.split("_")[1])
    store.close()
    table.rows.close()
    with contextlib.closing(sqlite3.connect(tmp_path / tokens.FILE_NAME, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        clock.now += 1

        assert table.find(text).name == "camera-7"
        clock.now += 1
        with pytest.raises(StateUnusableError, match="locked by another program"):
            table.find(unknown)


def test_file_that_cannot_be_read_lets_nobody_in(store: TokenStore, tmp_path: Path) -> None:
    _, text = store.create("camera-7")
    store.close()
    (tmp_path / tokens.FILE_NAME).write_bytes(b"this is no database " * 100)

    with pytest.raises(StateUnusableError):
        TokenTable(tmp_path).find(text)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_file_that_root_makes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 33, 33)

    TokenStore(tmp_path).create("camera-7")

    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()} == {(33, 33)}


def test_token_is_not_shown_with_its_hash_in_full() -> None:
    token = Token("0" * 8, "one", b"h" * 32, frozenset(), 0.0)

    assert "hhh" not in repr(token)
