"""Routing: the pointer is followed at once by everybody, a canary gets its share, and damage changes nothing."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from app.errors import ManifestError, ModelNotFoundError, ModelNotReadyError
from app.models import roles
from app.models.roles import Roles
from app.models.routing import Routing
from tests import fakes

SEED = 20261120


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A classifier in three versions and a detector."""
    for version in ("1", "2", "3"):
        fakes.write_model(tmp_path / "models", "a", version)
    fakes.write_model(tmp_path / "models", "b", task="detect")
    return tmp_path / "models"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def point(state: Path, **known: Roles) -> None:
    roles.write(state, {"b": Roles("1"), **known})


def active(routing: Routing) -> str:
    return routing.choose("classify").manifest.version


def test_every_process_follows_the_pointer_with_its_next_request(store: Path, state: Path) -> None:
    processes = [Routing(store, state, ()) for _ in range(3)]
    found = []
    for version in ("1", "2", "3", "1", "2"):
        point(state, a=Roles(version))
        found += [active(each) for each in processes]

    assert found == [version for version in "12312" for _ in processes]


def test_a_version_that_came_into_the_store_later_is_found_when_the_pointer_moves(store: Path, state: Path) -> None:
    point(state, a=Roles("1"))
    routing = Routing(store, state, ())
    fakes.write_model(store, "a", "4")
    before = active(routing)

    point(state, a=Roles("4", previous="1"))

    assert (before, active(routing)) == ("1", "4")


@pytest.mark.parametrize("share", [0.5, 10, 50, 99])
def test_a_canary_gets_its_share_over_several_processes(store: Path, state: Path, share: float) -> None:
    point(state, a=Roles("1", canary="2", canary_share=share))
    seeds = random.Random(SEED)  # noqa: S311 - nothing secret depends on it
    draws = [random.Random(seeds.random()).random for _ in range(4)]  # noqa: S311 - as above
    processes = [Routing(store, state, (), draw) for draw in draws]
    count = 20_000

    found = Counter(active(processes[number % 4]) for number in range(count))

    expected = count * share / 100
    # Four standard deviations of a binomial distribution.
    assert abs(found["2"] - expected) < 4 * (expected * (1 - share / 100)) ** 0.5
    assert set(found) == {"1", "2"}


def test_a_share_of_a_hundred_is_every_request(store: Path, state: Path) -> None:
    point(state, a=Roles("1", canary="2", canary_share=100))
    routing = Routing(store, state, (), lambda: 1 - 2**-53)

    assert active(routing) == "2"


def test_a_caller_may_insist_on_the_canary_or_refuse_it(store: Path, state: Path) -> None:
    point(state, a=Roles("1", canary="2", canary_share=50))
    routing = Routing(store, state, ())

    assert {routing.choose("classify", canary="always").manifest.version for _ in range(20)} == {"2"}
    assert {routing.choose("classify", canary="never").manifest.version for _ in range(20)} == {"1"}


def test_insisting_where_there_is_no_canary_is_answered_by_the_active_version(store: Path, state: Path) -> None:
    point(state, a=Roles("1"))

    assert Routing(store, state, ()).choose("classify", canary="always").manifest.version == "1"


def test_a_wished_version_is_given_whatever_the_roles(store: Path, state: Path) -> None:
    point(state, a=Roles("1", previous="3", canary="2", canary_share=100))
    routing = Routing(store, state, ())

    assert [routing.choose(None, "a", version).manifest.version for version in "123"] == ["1", "2", "3"]


def test_a_version_without_a_role_is_not_there_unless_models_names_it(store: Path, state: Path) -> None:
    point(state, a=Roles("1"))

    with pytest.raises(ModelNotFoundError, match="no model a of version 2"):
        Routing(store, state, ()).choose("classify", "a", "2")
    assert Routing(store, state, ("a@1", "a@2")).choose("classify", "a", "2").manifest.version == "2"


@pytest.mark.parametrize("damage", ["{", '{"models": {"a": {"active": 1}}}'])
def test_a_damaged_pointer_leaves_the_table_as_it_was(store: Path, state: Path, damage: str) -> None:
    point(state, a=Roles("1"))
    routing = Routing(store, state, ())

    roles.path(state).write_text(damage)

    assert active(routing) == "1"
    assert active(Routing(store, state, ())) == "3"


def test_a_pointer_to_a_version_with_a_broken_manifest_is_not_followed(store: Path, state: Path) -> None:
    point(state, a=Roles("1"))
    routing = Routing(store, state, ())
    (store / "a" / "2" / "manifest.toml").write_text("= no")

    point(state, a=Roles("2"))

    assert active(routing) == "1"


def test_a_model_that_cannot_be_read_stops_no_other_and_none_answers_in_its_place(store: Path, state: Path) -> None:
    fakes.write_model(store, "c")
    (store / "a" / "1" / "manifest.toml").write_text('name = "a"\ntask = "classify"\n[input\n')
    roles.write(state, {"a": Roles("1"), "b": Roles("1"), "c": Roles("1")})

    routing = Routing(store, state, ())

    assert routing.choose("detect").manifest.key == "b@1"
    assert routing.choose("classify", "c").manifest.key == "c@1"
    assert [(each.key, each.task) for each in routing.broken] == [("a@1", "classify")]
    for name in (None, "a"):
        with pytest.raises(ModelNotReadyError, match="a@1 failed to load"):
            routing.choose("classify", name)
    # An operator may say who answers instead.
    assert Routing(store, state, (), defaults=("c",)).choose("classify").manifest.key == "c@1"
    # Mended and promoted again: the pointer is written anew.
    fakes.write_model(store, "a", "1")
    roles.write(state, {"a": Roles("1"), "b": Roles("1"), "c": Roles("1")})
    assert routing.choose("classify").manifest.key == "a@1"
    assert routing.broken == []


def test_a_manifest_that_does_not_even_tell_its_task_lets_no_other_answer_without_a_name(
    store: Path, state: Path
) -> None:
    (store / "a" / "1" / "manifest.toml").write_bytes(b"\xff\x00")
    point(state, a=Roles("1"))
    roles.write(state, {"a": Roles("1"), "b": Roles("1")})

    routing = Routing(store, state, ())

    assert routing.choose("detect", "b").manifest.key == "b@1"
    with pytest.raises(ModelNotReadyError):
        routing.choose("detect")


def test_a_store_in_which_nothing_can_be_read_is_refused(store: Path, state: Path) -> None:
    for name in ("a", "b"):
        (store / name / "1" / "manifest.toml").write_text("= no")
    point(state, a=Roles("1"))

    with pytest.raises(ManifestError):
        Routing(store, state, ())


def test_a_canary_with_a_broken_manifest_harms_nobody(store: Path, state: Path) -> None:
    (store / "a" / "2" / "manifest.toml").write_text("= no")
    point(state, a=Roles("1", canary="2", canary_share=100))

    assert active(Routing(store, state, ())) == "1"


def test_a_removed_pointer_is_as_before_the_first_start(store: Path, state: Path) -> None:
    point(state, a=Roles("1"))
    routing = Routing(store, state, ())

    roles.path(state).unlink()

    assert active(routing) == "3"


# ── which model answers where none is named ──────────────────────────────────────────────────────────────────────────


def test_an_added_model_does_not_answer_in_the_place_of_another(store: Path, state: Path) -> None:
    point(state, a=Roles("1"))
    fakes.write_model(store, "0-new", "1")

    assert Routing(store, state, ()).choose("classify").manifest.name == "a"


def test_the_setting_names_who_answers(store: Path, state: Path) -> None:
    point(state, a=Roles("1"))
    fakes.write_model(store, "z-best", "1")
    routing = Routing(store, state, (), defaults=("z-best", "b"))

    assert routing.choose("classify").manifest.name == "z-best"
    assert routing.choose("detect").manifest.name == "b"
    assert routing.choose("classify", "a").manifest.name == "a"


def test_a_default_that_is_not_served_is_refused_by_name(store: Path, state: Path) -> None:
    with pytest.raises(ManifestError, match="MODELS_DEFAULT names 'gone', which is not served"):
        Routing(store, state, (), defaults=("gone",))


def test_model_that_was_added_since_the_start_is_routed_once_the_pointer_names_it(store: Path, state: Path) -> None:
    point(state, a=Roles("1"))
    routing = Routing(store, state, ())
    fakes.write_model(store, "new", "1")
    point(state, a=Roles("2"))
    before = "new" in routing.routes
    point(state, a=Roles("2"), new=Roles("1"))

    assert not before
    assert list(routing.routes) == ["b", "a", "new"]
