"""Changes of versions: only what was loaded and checked ever serves, and what nobody needs goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.engine import pace
from app.engine.batcher import Limits, Work
from app.engine.changes import Change, Changes
from app.engine.worker import Reply, Workers
from app.errors import ChangeRefusedError, GoldenCheckError, ManifestError, ModelLoadError, ModelNotFoundError
from app.inference.results import ClassifyOptions
from app.models import builds, roles
from app.models.manifests import Manifest
from app.models.roles import Roles
from tests import fakes
from tests.fakes import PATIENCE_SECONDS, FakeClock, FakeModel, eventually, pixels

FIRST = Roles("1")

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@dataclass
class Bench:
    """Changes over workers with FakeModels; every load makes a new model."""

    store: Path
    state: Path
    changes: Changes
    workers: Workers
    clock: FakeClock
    loaded: list[FakeModel]
    prepare: list[Callable[[FakeModel], None]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def ask(
        self, action: str, version: str = "", share: float = 0.0, model: str = "a", *, is_anyway: bool = False
    ) -> Roles:
        done = self.changes.apply(Change(action, model, version, share, is_anyway), self.said.append)
        return Roles(**done["after"])

    def held(self) -> set[str]:
        return {key for key, slot in self.workers.slots.items() if slot.state == "ready"}

    def work(self, key: str, digest: str = "") -> list[Reply]:
        replies: list[Reply] = []
        now = self.clock()
        work = Work(key, (4, 4), now, now + 1e6, pixels(1), ClassifyOptions(), replies.append, digest=digest)
        self.workers.submit(work)
        return replies


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Builds a bench over one model in versions 1, 2 and 3, of which 1 serves."""
    made: list[Bench] = []

    def build(
        selection: tuple[str, ...] = ("a",),
        keep_seconds: float = 60,
        known: Roles = FIRST,
        prepare: Sequence[Callable[[FakeModel], None]] = (),
    ) -> Bench:
        store, state = tmp_path / "models", tmp_path / "state"
        if not store.exists():
            state.mkdir()
            for version in ("1", "2", "3"):
                fakes.write_model(store, "a", version)
            roles.write(state, {"a": known})
        clock, loaded = FakeClock(), []
        changes = Changes(store, state, selection, keep_seconds=keep_seconds, clock=clock)

        def load(manifest: Manifest) -> FakeModel:
            model = FakeModel(manifest)
            for each in made[-1].prepare:
                each(model)
            loaded.append(model)
            return model

        workers = Workers(
            changes.manifests_to_load(), load, threads=1, max_queue_size=8, limits=lambda _: Limits(), clock=clock
        )
        made.append(Bench(store, state, changes, workers, clock, loaded, list(prepare)))
        workers.start()
        changes.start(workers)
        assert workers.is_started.wait(PATIENCE_SECONDS)
        return made[-1]

    yield build
    for bench in made:
        for model in bench.loaded:
            model.gate.set()
        bench.workers.drain(0)


def test_start_writes_down_what_serves(make: Callable[..., Bench]) -> None:
    on = make()

    assert roles.read(on.state) == {"a": Roles("1")}
    assert on.held() == {"a@1"}


def test_start_loads_what_the_pointer_names_but_not_the_way_back(make: Callable[..., Bench]) -> None:
    on = make(known=Roles("2", previous="1", canary="3", canary_share=5))

    assert on.held() == {"a@2", "a@3"}


def test_promotion_loads_checks_and_then_moves_the_pointer(make: Callable[..., Bench]) -> None:
    on = make()

    after = on.ask("promote", "2")

    assert after == Roles("2", previous="1") == roles.read(on.state)["a"]
    assert on.held() == {"a@1", "a@2"}
    assert on.said == [
        "loading a@2 beside a@1, which goes on",
        *("loading the weights", "warming up", "comparing with its stored answers"),
        *("comparing with right answers", "the pointer has moved"),
    ]


def test_promotion_of_what_serves_changes_nothing_and_loads_nothing(make: Callable[..., Bench]) -> None:
    on = make()

    assert on.ask("promote", "1") == Roles("1")
    assert len(on.loaded) == 1


def test_rollback_is_instant_while_the_previous_version_is_loaded(make: Callable[..., Bench]) -> None:
    on = make()
    on.ask("promote", "2")

    assert on.ask("rollback") == Roles("1", withdrawn="2")
    assert on.ask("rollback") == Roles("1", withdrawn="2")
    assert len(on.loaded) == 2


@pytest.mark.parametrize("stage", ["warm_up_error", "golden_error", "prove_error"])
def test_version_that_fails_its_checks_never_serves(make: Callable[..., Bench], stage: str) -> None:
    on = make()
    on.prepare.append(lambda model: setattr(model, stage, GoldenCheckError("Image 1 differs by 0.4.", hint="Retrain.")))

    with pytest.raises(ModelLoadError, match=r"a@2 cannot be served: Image 1 differs by 0\.4") as caught:
        on.ask("promote", "2")

    assert caught.value.hint == "Retrain."
    assert roles.read(on.state)["a"] == Roles("1")
    assert on.held() == {"a@1"}
    assert on.workers.slots["a@2"].state == "failed"
    on.prepare.clear()
    assert on.ask("promote", "2").active == "2"


def test_version_with_a_broken_manifest_never_serves(make: Callable[..., Bench]) -> None:
    on = make()
    (on.store / "a" / "2" / "manifest.toml").write_text("= no")

    with pytest.raises(ManifestError):
        on.ask("promote", "2")

    assert roles.read(on.state)["a"] == Roles("1")


def test_version_for_another_task_is_refused(make: Callable[..., Bench]) -> None:
    on = make()
    fakes.write_model(on.store, "a", "4", task="detect")

    with pytest.raises(ChangeRefusedError, match="a@4 is for detect, a@1 is for classify"):
        on.ask("promote", "4")


@pytest.mark.parametrize(
    ("action", "version", "model", "words"),
    [
        ("promote", "9", "a", "holds no a of version '9'"),
        ("promote", "1", "b", "No model 'b' is served here"),
        ("rollback", "", "a", "no earlier version"),
        ("reload", "2", "a", "a@2 is not loaded"),
    ],
)
def test_what_cannot_be_is_refused(
    make: Callable[..., Bench], action: str, version: str, model: str, words: str
) -> None:
    with pytest.raises(ChangeRefusedError, match=words):
        make().ask(action, version, model=model)


def test_models_pins_what_may_serve(make: Callable[..., Bench]) -> None:
    on = make(("a@1", "a@2"))

    assert on.held() == {"a@1", "a@2"}
    with pytest.raises(ChangeRefusedError, match="MODELS allows a in version 1, 2 only, not 3"):
        on.ask("promote", "3")
    assert on.ask("promote", "2").active == "2"


def test_pointer_that_cannot_be_written_leaves_the_old_version(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    on = make()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(roles, "write", fail)

    with pytest.raises(ChangeRefusedError, match=r"roles\.json cannot be written: No space left"):
        on.ask("promote", "2")
    assert on.changes.status()["roles"]["a"]["active"] == "1"


def test_second_change_at_the_same_time_is_refused(make: Callable[..., Bench]) -> None:
    on = make()
    is_loading, gate = threading.Event(), threading.Event()

    def hold(_: FakeModel) -> None:
        is_loading.set()
        assert gate.wait(PATIENCE_SECONDS)

    on.prepare.append(hold)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(on.ask, "promote", "2")
        assert is_loading.wait(PATIENCE_SECONDS)
        with pytest.raises(ChangeRefusedError, match="under way"):
            on.ask("promote", "3")
        gate.set()

        assert first.result(PATIENCE_SECONDS).active == "2"


def test_the_way_back_is_open_while_something_loads_which_then_gives_up(make: Callable[..., Bench]) -> None:
    on = make()
    on.ask("promote", "2")
    is_loading, gate = threading.Event(), threading.Event()

    def hold(_: FakeModel) -> None:
        is_loading.set()
        assert gate.wait(PATIENCE_SECONDS)

    on.prepare.append(hold)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(on.ask, "promote", "3")
        assert is_loading.wait(PATIENCE_SECONDS)
        back = on.ask("rollback")
        gate.set()
        with pytest.raises(ChangeRefusedError, match="changed meanwhile"):
            slow.result(PATIENCE_SECONDS)

    assert back == roles.read(on.state)["a"] == Roles("1", withdrawn="2")


def test_what_was_tried_can_be_ended_while_something_loads(make: Callable[..., Bench]) -> None:
    on = make()
    on.ask("canary", "2", 10)
    on.ask("shadow", "3")
    with on.changes._change:
        assert on.ask("canary").canary == ""
        assert on.ask("shadow").shadow == ""
        with pytest.raises(ChangeRefusedError, match="under way"):
            on.ask("promote", "2")


def test_a_load_that_hangs_is_named_and_can_be_given_up(make: Callable[..., Bench]) -> None:
    on = make()
    is_loading, gate = threading.Event(), threading.Event()

    def hang(model: FakeModel) -> None:
        if model.manifest.version == "2":
            is_loading.set()
            assert gate.wait(PATIENCE_SECONDS)

    on.prepare.append(hang)
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(on.ask, "promote", "2")
        assert is_loading.wait(PATIENCE_SECONDS)
        on.clock.now += 37
        with pytest.raises(ChangeRefusedError, match="promote a@2, for 37 s, now loading the weights"):
            on.ask("canary", "3", 10)
        given_up = on.changes.apply(Change("give-up", ""))
        # At once, before the one that was given up has heard of it.
        with pytest.raises(ChangeRefusedError, match="a@2 is still being loaded by a change that was given up"):
            on.ask("promote", "2")
        third = on.ask("promote", "3")
        with pytest.raises(ChangeRefusedError, match="an operator asked for it"):
            hung.result(PATIENCE_SECONDS)
        gate.set()

    assert given_up == {"given_up": "promote a@2, for 37 s, now loading the weights"}
    assert third == roles.read(on.state)["a"] == Roles("3", previous="1")
    eventually(lambda: not on.changes._left["a@2"].is_left)
    # Nothing of it takes effect, and once its thread has ended the version can be had again.
    assert on.changes.roles["a"].active == "3"
    assert on.ask("promote", "2").active == "2"


def test_a_load_that_lasts_too_long_gives_up_by_itself(make: Callable[..., Bench]) -> None:
    on, gate = make(), threading.Event()
    on.changes._change_seconds = 0.2
    on.prepare.append(lambda model: gate.wait(PATIENCE_SECONDS) and None)

    with pytest.raises(ChangeRefusedError, match=r"given up while loading the weights: it took longer than 0\.2 s"):
        on.ask("promote", "2")
    gate.set()

    assert roles.read(on.state)["a"] == FIRST


def test_a_reload_that_was_given_up_replaces_nothing(make: Callable[..., Bench]) -> None:
    on, gate = make(), threading.Event()
    serving = on.workers.slots["a@1"].model
    on.changes._change_seconds = 0.2
    on.prepare.append(lambda model: gate.wait(PATIENCE_SECONDS) and None)

    with pytest.raises(ChangeRefusedError, match="reload a was given up"):
        on.ask("reload")
    gate.set()
    eventually(lambda: not on.changes._left["a"].is_left)

    assert on.workers.slots["a@1"].model is serving


def test_nothing_can_be_given_up_while_nothing_is_under_way(make: Callable[..., Bench]) -> None:
    with pytest.raises(ChangeRefusedError, match="No change of versions is under way"):
        make().changes.apply(Change("give-up", ""))


# ── what nobody needs ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_previous_version_is_kept_for_its_time_and_then_unloaded(make: Callable[..., Bench]) -> None:
    on = make(keep_seconds=60)
    on.ask("promote", "2")
    on.changes.unload()
    on.clock.now += 59
    assert on.changes.unload() == pytest.approx(1)
    assert on.held() == {"a@1", "a@2"}

    on.clock.now += 1

    assert on.changes.unload() is None
    assert on.held() == {"a@2"}
    assert on.ask("rollback").active == "1"
    assert len(on.loaded) == 3


def test_version_that_a_job_still_uses_is_kept(make: Callable[..., Bench]) -> None:
    on = make(keep_seconds=60)
    on.ask("promote", "2")
    on.changes.unload()
    for _ in range(3):
        on.clock.now += 60
        replies = on.work("a@1")
        eventually(lambda replies=replies: bool(replies), "the answer")
        assert on.changes.unload() == pytest.approx(60)
        assert on.held() == {"a@1", "a@2"}

    on.clock.now += 60

    assert on.changes.unload() is None
    assert on.held() == {"a@2"}


def test_version_that_still_has_work_is_not_unloaded(make: Callable[..., Bench]) -> None:
    on = make(keep_seconds=0)
    first = on.loaded[0]
    first.gate.clear()
    replies = on.work("a@1")
    first.wait_until_busy()
    waiting = on.work("a@1")
    on.ask("promote", "2")

    assert on.changes.unload() is not None
    assert "a@1" in on.held()

    first.gate.set()
    eventually(lambda: on.held() == {"a@2"}, "the unloading")
    assert replies[0].error is None and waiting[0].error is None
    with pytest.raises(ModelNotFoundError):
        on.work("a@1")


def test_canary_and_shadow_stay_loaded_until_they_are_ended(make: Callable[..., Bench]) -> None:
    on = make(keep_seconds=0)
    on.ask("canary", "2", 10)
    on.ask("shadow", "3")
    assert on.changes.unload() is None
    assert on.held() == {"a@1", "a@2", "a@3"}

    on.ask("canary")
    on.ask("shadow")

    eventually(lambda: on.held() == {"a@1"}, "the unloading")


def test_version_replaced_in_the_store_is_loaded_by_its_promotion(make: Callable[..., Bench]) -> None:
    on = make()
    before = on.workers.slots["a@1"].manifest.digest
    fakes.write_model(on.store, "a", "1", description="another")

    on.ask("promote", "1")

    assert on.workers.slots["a@1"].manifest.digest != before
    with pytest.raises(ModelNotFoundError, match="with another digest"):
        on.work("a@1", digest=before)


def test_version_loaded_again_replaces_itself(make: Callable[..., Bench]) -> None:
    on = make()

    on.ask("reload")

    assert on.workers.slots["a@1"].model is on.loaded[1]


def test_version_that_fails_to_load_again_goes_on_as_it_was(make: Callable[..., Bench]) -> None:
    on = make()
    on.prepare.append(lambda model: setattr(model, "golden_error", GoldenCheckError("It differs.")))

    with pytest.raises(ModelLoadError):
        on.ask("reload")

    assert on.workers.slots["a@1"].model is on.loaded[0]
    assert on.held() == {"a@1"}


def test_a_model_that_cannot_be_read_does_not_stop_the_start(make: Callable[..., Bench], tmp_path: Path) -> None:
    store = tmp_path / "models"
    for name in ("a", "b"):
        fakes.write_model(store, name, "1")
    (tmp_path / "state").mkdir()
    (store / "a" / "1" / "manifest.toml").write_text("= no")

    on = make(selection=())

    assert on.held() == {"b@1"}
    assert "manifest.toml cannot be read" in on.changes.status()["unreadable"]["a@1"]
    # Mended, it is loaded by its promotion.
    fakes.write_model(store, "a", "1")
    done = on.changes.apply(Change("promote", "a", "1"), on.said.append)
    assert on.said[0] == "loading a@1"
    assert done["was_away"]
    assert on.held() == {"a@1", "b@1"}
    assert on.changes.status()["unreadable"] == {}


def test_a_store_in_which_nothing_can_be_read_stops_the_start(make: Callable[..., Bench], tmp_path: Path) -> None:
    fakes.write_model(tmp_path / "models", "a", "1")
    (tmp_path / "state").mkdir()
    (tmp_path / "models" / "a" / "1" / "manifest.toml").write_text("= no")

    with pytest.raises(ManifestError, match="cannot be read"):
        make()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 takes 45 ms, all others 4."""

    def slower(new: FakeModel, old: FakeModel) -> tuple[float, float] | None:
        return (0.045, 0.004) if (new.manifest.version, old.manifest.version) == ("2", "1") else None

    monkeypatch.setattr(pace, "slower", slower)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(("action", "share", "given"), [("promote", 0.0, ""), ("canary", 10.0, " SHARE=10")])
def test_a_slower_version_is_refused_before_anything_changes(
    make: Callable[..., Bench], action: str, share: float, given: str
) -> None:
    on = make()

    with pytest.raises(ChangeRefusedError) as caught:
        on.ask(action, "2", share)

    assert caught.value.message == (
        "a@2 is slower here: 45.0 ms an image (fake fp32); a@1 takes 4.0 ms (fake fp32). Nothing has changed."
    )
    assert f"make model-{action} MODEL=a VERSION=2{given} BUILD=yes" in caught.value.hint
    assert "ANYWAY=yes" in caught.value.hint
    assert roles.read(on.state)["a"] == Roles("1") == on.changes.roles["a"]


@pytest.mark.usefixtures("slow")
def test_a_slower_version_answers_where_that_is_wished_and_it_is_said(make: Callable[..., Bench]) -> None:
    on = make()

    assert on.ask("promote", "2", is_anyway=True).active == "2"
    assert any(line.startswith("a@2 is slower here: 45.0 ms") for line in on.said)


@pytest.mark.usefixtures("slow")
def test_neither_a_shadow_nor_the_way_back_is_refused_for_its_pace(make: Callable[..., Bench]) -> None:
    on = make()

    assert on.ask("shadow", "2").shadow == "2"
    assert on.ask("promote", "3").active == "3"
    assert on.ask("promote", "1").active == "1"
    assert on.ask("promote", "2", is_anyway=True).active == "2"
    assert on.ask("rollback").active == "1"


@pytest.mark.usefixtures("slow")
def test_a_slower_version_that_was_built_says_that_building_does_not_help(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    on = make()
    monkeypatch.setattr(builds, "read", lambda *_: object())

    with pytest.raises(ChangeRefusedError) as caught:
        on.ask("promote", "2")

    assert caught.value.hint.startswith("It is built for this machine already; ")
    assert "BUILD=yes" not in caught.value.hint


def wrong(model: FakeModel) -> None:
    model.prove_error = GoldenCheckError("only 0 of 8 samples right")


def test_neither_a_start_nor_the_way_back_waits_for_right_answers(make: Callable[..., Bench]) -> None:
    on = make(known=Roles("2", previous="1"), prepare=[wrong])

    assert on.workers.slots["a@2"].state == "ready"
    assert on.ask("rollback").active == "1"
    with pytest.raises(ModelLoadError, match="only 0 of 8 samples right"):
        on.ask("promote", "3")


def test_what_waits_for_weights_that_were_replaced_is_not_answered_by_others(make: Callable[..., Bench]) -> None:
    on = make()
    digest, first = on.workers.slots["a@1"].manifest.digest, on.loaded[0]
    first.gate.clear()
    running = on.work("a@1", digest)
    first.wait_until_busy()
    waiting = on.work("a@1", digest)
    fakes.write_model(on.store, "a", "1", description="another")

    on.ask("promote", "1")
    first.gate.set()

    eventually(lambda: bool(running and waiting), "both replies")
    assert running[0].answer is not None
    assert isinstance(waiting[0].error, ModelNotFoundError)
    assert on.loaded[1].seen == []


def test_what_waits_for_a_version_that_is_loaded_again_is_answered(make: Callable[..., Bench]) -> None:
    on = make()
    digest, first = on.workers.slots["a@1"].manifest.digest, on.loaded[0]
    first.gate.clear()
    running = on.work("a@1", digest)
    first.wait_until_busy()
    waiting = on.work("a@1", digest)

    on.ask("reload")
    first.gate.set()

    eventually(lambda: bool(running and waiting), "both replies")
    assert running[0].answer and waiting[0].answer
    assert len(on.loaded[1].seen) == 1


def test_model_that_models_leaves_out_for_one_start_keeps_its_roles(make: Callable[..., Bench]) -> None:
    known = Roles("1", previous="2", shadow="3")
    on = make(known=known)
    fakes.write_model(on.store, "b", "1")

    without = make(("b",))

    assert set(without.changes.roles) == {"b"}
    assert roles.read(on.state)["a"] == known
    without.ask("shadow", model="b")
    assert make(("a", "b")).changes.roles["a"] == known


def test_manifest_that_was_edited_in_place_is_said_so_loaded_and_checked(make: Callable[..., Bench]) -> None:
    on = make()
    fakes.write_model(on.store, "a", "1", description="another", serve={"top_k": 2})

    done = on.changes.apply(Change("promote", "a", "1"), on.said.append)

    digest = on.workers.slots["a@1"].manifest.digest
    assert done["before"] == done["after"]
    assert done["edited"] == f"changed: serve, description; its digest is {digest} now"
    assert on.said[0] == f"a@1 was edited in place: {done['edited']}"
    assert "comparing with its stored answers" in on.said
    assert on.changes.apply(Change("promote", "a", "1"))["edited"] == ""


def test_edited_manifest_that_fails_its_checks_leaves_what_serves(make: Callable[..., Bench]) -> None:
    on = make()
    before = on.workers.slots["a@1"].manifest.digest
    fakes.write_model(on.store, "a", "1", description="another")
    on.prepare.append(lambda model: setattr(model, "golden_error", GoldenCheckError("other answers")))

    with pytest.raises(ModelLoadError, match="other answers"):
        on.ask("promote", "1")

    assert on.workers.slots["a@1"].manifest.digest == before


def test_new_name_is_taken_into_the_running_engine(make: Callable[..., Bench]) -> None:
    on = make(selection=())
    fakes.write_model(on.store, "new", "1")
    fakes.write_model(on.store, "new", "2")

    after = on.ask("promote", "1", model="new")
    on.changes.unload()

    assert after == Roles("1")
    assert on.held() == {"a@1", "new@1"}
    assert list(roles.read(on.state)) == ["a", "new"]
    assert on.ask("canary", "2", 10, model="new") == Roles("1", canary="2", canary_share=10)


def test_new_name_that_does_not_load_serves_nobody_and_goes(make: Callable[..., Bench]) -> None:
    on = make(selection=(), keep_seconds=0)
    fakes.write_model(on.store, "new", "1")
    on.prepare.append(lambda model: setattr(model, "golden_error", GoldenCheckError("other answers")))

    with pytest.raises(ModelLoadError):
        on.ask("promote", "1", model="new")
    on.changes.unload()

    assert "new@1" not in on.workers.slots
    assert roles.read(on.state) == {"a": FIRST}


@pytest.mark.parametrize(
    ("selection", "action", "said"),
    [
        ((), "canary", "new is not served yet"),
        ((), "rollback", "new is not served yet"),
        (("a",), "promote", "MODELS does not name new"),
    ],
)
def test_new_name_is_refused_with_what_to_do(
    make: Callable[..., Bench], selection: tuple[str, ...], action: str, said: str
) -> None:
    on = make(selection=selection)
    fakes.write_model(on.store, "new", "1")

    with pytest.raises(ChangeRefusedError, match=said):
        on.ask(action, "1", 10, model="new")
