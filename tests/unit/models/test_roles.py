"""Roles: every sequence of moves leaves one role a version at most, and the file gives back what was written."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ChangeRefusedError, ManifestError, RolesInvalidError
from app.models import roles
from app.models.roles import Roles
from tests import fakes

VERSIONS = st.sampled_from(["1", "2", "3", "4"])
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("promote"), VERSIONS),
        st.tuples(st.just("start_canary"), VERSIONS, st.floats(0.1, 100)),
        st.tuples(st.just("start_shadow"), VERSIONS),
        st.sampled_from([("roll_back",), ("end_canary",), ("end_shadow",)]),
    ),
    max_size=20,
)


def play(moves: list[tuple[str, ...]]) -> Roles:
    """Where a series of moves leads; those that are refused change nothing."""
    now = Roles("1")
    for name, *arguments in moves:
        with contextlib.suppress(ChangeRefusedError):
            now = getattr(now, name)(*arguments)
    return now


@given(MOVES)
def test_no_version_is_loaded_for_two_things_and_shares_add_up(moves: list[tuple[str, ...]]) -> None:
    now = play(moves)

    assert now.active
    assert len(now.serving) == len(set(now.serving))
    assert now.active not in (now.previous, now.withdrawn)
    assert sum(now.share_of(version) for version in now.named) == pytest.approx(100)
    assert bool(now.canary) == (now.canary_share > 0)


@given(MOVES, VERSIONS)
def test_every_move_made_twice_is_made_once(moves: list[tuple[str, ...]], version: str) -> None:
    now = play(moves)
    for move in (
        ("promote", version),
        ("roll_back",),
        ("start_canary", version, 5.0),
        ("end_canary",),
        ("end_shadow",),
    ):
        with contextlib.suppress(ChangeRefusedError):
            once = getattr(now, move[0])(*move[1:])
            assert getattr(once, move[0])(*move[1:]) == once


@given(MOVES, VERSIONS)
def test_a_rollback_undoes_a_promotion(moves: list[tuple[str, ...]], version: str) -> None:
    now = play(moves)
    there = now.promote(version)

    if there != now:
        assert there.active == version
        assert there.roll_back().active == now.active
        assert there.roll_back().withdrawn == version


@given(MOVES, VERSIONS)
def test_trying_a_version_never_takes_the_way_back(moves: list[tuple[str, ...]], version: str) -> None:
    now = play(moves)
    for name, *arguments in (
        ("start_shadow", version),
        ("start_canary", version, 5.0),
        ("end_shadow",),
        ("end_canary",),
    ):
        with contextlib.suppress(ChangeRefusedError):
            assert getattr(now, name)(*arguments).previous == now.previous


def test_there_is_no_way_back_from_the_first_version() -> None:
    with pytest.raises(ChangeRefusedError, match="no earlier version"):
        Roles("1").roll_back()


def test_a_promotion_ends_a_canary_and_keeps_another_versions_shadow() -> None:
    now = Roles("1").start_canary("2", 10).start_shadow("3")

    assert now.promote("2") == Roles("2", previous="1", shadow="3")
    assert now.promote("3") == Roles("3", previous="1")


def test_the_version_before_may_be_the_shadow_and_still_is_the_way_back() -> None:
    now = Roles("1").promote("2").start_shadow("1")

    assert now.role_of("1") == "shadow"
    assert now.roll_back() == Roles("1", withdrawn="2")


@pytest.mark.parametrize("share", [-1, 0, 100.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ChangeRefusedError, match="cannot be given"):
        Roles("1").start_canary("2", share)


def test_what_answers_callers_is_no_shadow() -> None:
    with pytest.raises(ChangeRefusedError, match="1 is the active version"):
        Roles("1").start_shadow("1")
    with pytest.raises(ChangeRefusedError, match="2 is the canary version"):
        Roles("1").start_canary("2", 1).start_shadow("2")


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(MOVES)
def test_file_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    known = {"a": play(moves), "b": Roles("9")}

    roles.write(folder, known)

    assert roles.read(folder) == known


def test_nothing_is_known_before_the_first_start(tmp_path: Path) -> None:
    assert roles.read(tmp_path) == {}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"models": 1}', '{"models": {"a": 1}}', '{"models": {"a": {}}}'),
        *('{"models": {"a": {"active": ""}}}', '{"models": {"a": {"active": 1}}}'),
        *('{"models": {"a": {"active": "1", "more": 2}}}',),
        *('{"models": {"a": {"active": "1", "canary_share": 101}}}',),
    ],
)
def test_file_that_is_damaged_is_named(tmp_path: Path, text: str) -> None:
    roles.path(tmp_path).write_text(text)

    with pytest.raises(RolesInvalidError, match=r"roles\.json cannot be used"):
        roles.read(tmp_path)


def test_write_that_fails_leaves_the_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roles.write(tmp_path, {"a": Roles("1")})
    monkeypatch.setattr(json, "dump", lambda *_, **__: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        roles.write(tmp_path, {"a": Roles("2")})

    assert roles.read(tmp_path) == {"a": Roles("1")}
    assert [path.name for path in tmp_path.iterdir()] == ["roles.json"]


# ── what MODELS and the store allow ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One model in three versions."""
    for version in ("1", "2", "10"):
        fakes.write_model(tmp_path, "a", version)
    return tmp_path


@pytest.mark.parametrize(
    ("selection", "known", "expected"),
    [
        ((), {}, Roles("10")),
        (("a",), {"a": Roles("2", previous="1")}, Roles("2", previous="1")),
        (("a@1",), {"a": Roles("2", previous="1")}, Roles("1")),
        (("a@1", "a@2"), {"a": Roles("1", canary="2", canary_share=5)}, Roles("1", canary="2", canary_share=5)),
        (("a@1",), {"a": Roles("1", canary="2", canary_share=5, shadow="10")}, Roles("1")),
        ((), {"a": Roles("3")}, Roles("10")),
        ((), {"a": Roles("3", previous="1", canary="2", canary_share=5)}, Roles("1")),
        ((), {"a": Roles("2", previous="3", shadow="4")}, Roles("2")),
    ],
)
def test_the_file_counts_where_models_and_store_allow_it(
    store: Path, selection: tuple[str, ...], known: dict[str, Roles], expected: Roles
) -> None:
    assert roles.settle(store, selection, known) == {"a": expected}


def test_model_that_is_not_in_the_store_is_refused(store: Path) -> None:
    with pytest.raises(ManifestError, match="'b', which is not in"):
        roles.settle(store, ("b",), {})


def test_role_of_a_version_that_has_none_is_held() -> None:
    assert Roles("1").role_of("2") == "held"
    assert replace(Roles("1"), withdrawn="2").role_of("2") == "withdrawn"


def test_a_model_that_is_added_later_comes_after_those_that_are_known(store: Path) -> None:
    fakes.write_model(store, "m", "1")
    known = roles.settle(store, (), {})
    fakes.write_model(store, "0-first-in-the-alphabet", "1")

    assert list(roles.settle(store, (), known)) == ["a", "m", "0-first-in-the-alphabet"]
    assert list(roles.settle(store, ("m", "a"), known)) == ["m", "a"]
