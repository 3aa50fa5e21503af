"""Bits that say which answers are surely not kept: right for the file they were made from, and for no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cache import known_keys
from app.cache.disk import DiskStore
from app.cache.guarded_store import GuardedStore
from app.cache.known_keys import KnownKeys
from app.errors import StateUnusableError
from app.storage.circuit_breaker import CircuitBreaker


def opened(folder: Path) -> DiskStore:
    store = DiskStore(folder / "answers.sqlite3", 1 << 20, 60)
    store.probe()
    return store


def unasked(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> DiskStore:
    """The store, whose file cannot be read any more."""

    def refuse() -> None:
        raise StateUnusableError("It was asked.")

    monkeypatch.setattr(store._database, "reading", refuse)
    return store


def test_new_picture_does_not_ask_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    store.set_many({"a": "1"})
    breaker = CircuitBreaker("store", failures=2)
    guarded = GuardedStore(unasked(store, monkeypatch), breaker, store.may_hold)

    assert guarded.get_many(["b", "c"]) == [None, None]
    # One that may be there is asked for, which the circuit breaker hears of.
    assert (guarded.get_many(["b", "a"]), breaker.state) == ([None, None], "closed")
    guarded.get_many(["a"])
    assert breaker.state == "open"


def test_before_it_was_found_well_the_file_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = unasked(DiskStore(tmp_path / "answers.sqlite3", 1 << 20, 60), monkeypatch)

    with pytest.raises(StateUnusableError):
        store.get_many("a")


def test_what_others_keep_and_kept_before_is_found(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.set_many({"before": "1"})
    second = opened(tmp_path)
    first.set_many({"after": "2"})

    assert second.get_many("before", "after") == ["1", "2"]
    (tmp_path / "known-keys").unlink()
    assert opened(tmp_path).get_many("before", "after") == ["1", "2"]


def test_another_file_has_other_keys(tmp_path: Path) -> None:
    opened(tmp_path).set_many({"gone": "1"})
    for path in tmp_path.glob("answers*"):
        path.unlink()
    DiskStore(tmp_path / "answers.sqlite3", 1 << 20, 60).set_many({"others": "2"})

    store = opened(tmp_path)

    assert store.get_many("gone", "others") == [None, "2"]
    assert not store._known.may_hold("gone")


def test_bits_of_answers_that_went_do_not_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_keys, "MOST_ADDED", 10)
    opened(tmp_path).set_many({str(number): "1" for number in range(20)}, timeout=-1)
    opened(tmp_path).set_many({"new": "2"})

    store = opened(tmp_path)

    assert store.get_many("new")[0] == "2"
    assert sum(store._known.may_hold(str(number)) for number in range(20)) == 0


def test_without_a_file_everything_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "known-keys").mkdir()

    store = opened(tmp_path)
    store.set_many({"a": "1"})

    assert store.get_many("a", "b") == ["1", None]
    assert KnownKeys(tmp_path / "none").may_hold("a")
