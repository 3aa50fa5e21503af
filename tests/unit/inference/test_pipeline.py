"""The predictor: which model, what the engine is sent, and what of its answer is brought back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app import config
from app.cache.disk import DiskStore
from app.cache.guarded_store import GuardedStore
from app.cache.predictions import PredictionCache
from app.decoding.decoder import QUICK_A_DECODER
from app.engine.client import EngineAnswer
from app.errors import (
    CaskError,
    DeadlineExceededError,
    EngineAwayError,
    EngineBusyError,
    ImageEmptyError,
    ImageMissingError,
    ModelNotFoundError,
    ModelNotReadyError,
    OptionError,
    TooManyImagesError,
)
from app.host import sizing
from app.inference import images
from app.inference.pipeline import Predictor
from app.inference.results import Box, ClassifyOptions, Detection, DetectOptions
from app.models import roles, runtime_variant
from app.models.manifests import Manifest
from app.models.roles import Roles
from app.storage.circuit_breaker import CircuitBreaker
from tests import fakes
from tests.fakes import Asked, FakeEngine, picture

Make = Callable[..., Predictor]


@pytest.fixture
def make(tmp_path: Path, engine: FakeEngine) -> Make:
    """Builds a predictor over the models written so far; a classifier and a detector where there are none."""

    def build(**settings: Any) -> Predictor:
        models_dir = tmp_path / "models"
        if not models_dir.exists():
            fakes.write_model(models_dir, "classifier", task="classify")
            fakes.write_model(models_dir, "detector", task="detect")
        predictor = Predictor(fakes.make_settings(tmp_path / "state", models_dir, **settings), engine)
        engine.manifests = predictor.manifests
        return predictor

    return build


def test_every_image_is_answered_in_order(make: Make, engine: FakeEngine) -> None:
    data = [picture(colour=(0, 0, number), kind="PNG") for number in range(5)]

    outcome = make().predict("classify", data, {})

    assert [result.answer[0].label for result in outcome.results] == [str(number) for number in range(5)]
    assert [(result.width, result.height) for result in outcome.results] == [(64, 48)] * 5
    assert set(outcome.timings) == {"decode", "queue", "predict", "engine"}


def test_box_comes_back_in_pixels_of_the_upright_original(make: Make) -> None:
    outcome = make().predict("detect", [picture(128, 64, "PNG", (0, 0, 7))], {})

    # The FakeModel's box is its whole input, 32 × 32, of which the picture is the upper half.
    assert outcome.results[0].answer == [Detection("7", 1.0, Box(0.0, 0.0, 128, 64))]


def test_least_size_is_scaled_to_the_models_input(make: Make, engine: FakeEngine) -> None:
    make().predict("detect", [picture(128, 64), picture(16, 16)], {"min_width": 8, "min_height": "4"})

    sent = [
        (requested.min_width, requested.min_height)
        for requested in engine.asked[0].options
        if isinstance(requested, DetectOptions)
    ]
    assert sent == [(2.0, 1.0), (16.0, 8.0)]


def test_options_left_out_come_from_the_manifest_and_zero_is_kept(make: Make, engine: FakeEngine) -> None:
    predictor = make()
    predictor.predict("classify", [picture()], {})
    predictor.predict("classify", [picture()], {"top_k": 0})

    assert [each.options for each in engine.asked] == [[ClassifyOptions(5)], [ClassifyOptions(0)]]


def test_first_model_of_the_task_is_taken_where_none_is_named(make: Make) -> None:
    predictor = make(models=("detector", "classifier"))

    assert [predictor.find(task).key for task in ("classify", "detect")] == ["classifier@1", "detector@1"]  # type: ignore[arg-type]


def test_newest_version_is_taken_where_only_the_name_is_given(make: Make, tmp_path: Path) -> None:
    for version in ("9", "10", "2"):
        fakes.write_model(tmp_path / "models", "demo", version)
    predictor = make(models=("demo@9", "demo@10", "demo@2"))

    assert predictor.find("classify", "demo").version == "10"
    assert predictor.find("classify", "demo", "2").version == "2"


@pytest.mark.parametrize(
    ("task", "requested", "words"),
    [
        ("classify", {"model": "nobody"}, "There is no model nobody for classify here."),
        ("classify", {"model": "detector"}, "There is no model detector for classify here."),
        (
            "classify",
            {"model": "classifier", "version": "7"},
            "There is no model classifier of version 7 for classify here.",
        ),
        ("detect", {"version": "7"}, "There is no model of version 7 for detect here."),
    ],
)
def test_model_that_is_not_there_is_refused_with_those_that_are(
    make: Make, task: Any, requested: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        make().predict(task, [picture()], requested)

    assert caught.value.message.startswith(words)
    assert caught.value.hint == "There are: classifier@1 (classify), detector@1 (detect)."


def test_named_model_may_also_be_an_argument(make: Make, engine: FakeEngine) -> None:
    make().predict("detect", [picture()], {}, model="detector", version="1")

    assert engine.asked[0].manifest.key == "detector@1"


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class MovingEngine(FakeEngine):
    """Holds only some versions; does something each time that it is asked for another one."""

    def __init__(self, held: set[str], otherwise: Callable[[], None], error: CaskError) -> None:
        super().__init__()
        self.held, self.otherwise, self.refusal = held, otherwise, error

    def predict(self, manifest: Manifest, *rest: Any) -> list[EngineAnswer]:
        if manifest.key not in self.held:
            self.asked.append(Asked(manifest, [], [], 0.0))
            self.otherwise()
            raise self.refusal
        return super().predict(manifest, *rest)


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """The state folder of a service with a classifier in two versions that need different sizes."""
    fakes.write_model(tmp_path / "models", "demo", "1")
    fakes.write_model(tmp_path / "models", "demo", "2", input={"kind": "crop", "size": 16, "resize_size": 16})
    (tmp_path / "state").mkdir()
    roles.write(tmp_path / "state", {"demo": Roles("1")})
    return tmp_path / "state"


GONE = ModelNotFoundError("The engine does not hold it.")
LOADING = ModelNotReadyError("It is loading.")


@pytest.mark.parametrize("error", [GONE, LOADING])
def test_request_whose_version_went_away_meanwhile_is_wholly_answered_by_the_next(
    make: Make, versions: Path, error: CaskError
) -> None:
    predictor = make()
    predictor.engine = engine = MovingEngine({"demo@2"}, lambda: roles.write(versions, {"demo": Roles("2")}), error)

    outcome = predictor.predict("classify", [picture(), picture()], {})

    assert outcome.manifest.version == "2"
    assert [image.shape for image in engine.asked[-1].images] == [(16, 16, 3)] * 2


def test_canary_that_is_not_ready_is_no_reason_to_refuse(make: Make, versions: Path) -> None:
    roles.write(versions, {"demo": Roles("1", canary="2", canary_share=100)})
    predictor = make()
    predictor.engine = MovingEngine({"demo@1"}, lambda: None, LOADING)

    assert predictor.predict("classify", [picture()], {}).manifest.version == "1"


@pytest.mark.parametrize(("error", "asked"), [(GONE, 3), (LOADING, 1)])
def test_version_that_stays_away_is_refused_after_a_few_tries(
    make: Make, versions: Path, error: CaskError, asked: int
) -> None:
    predictor = make()
    predictor.engine = engine = MovingEngine(set(), lambda: None, error)

    with pytest.raises(type(error)):
        predictor.predict("classify", [picture()], {})

    assert len(engine.asked) == asked


def test_wished_version_that_is_not_ready_is_not_replaced_by_another(make: Make, versions: Path) -> None:
    roles.write(versions, {"demo": Roles("1", canary="2", canary_share=100)})
    predictor = make()
    predictor.engine = MovingEngine({"demo@1"}, lambda: None, LOADING)

    with pytest.raises(ModelNotReadyError):
        predictor.predict("classify", [picture()], {}, model="demo", version="2")


def test_models_have_role_share_and_state_for_every_version(make: Make, versions: Path, tmp_path: Path) -> None:
    held = fakes.make_manifest(tmp_path / "models", "demo", "3")
    roles.write(versions, {"demo": Roles("2", previous="1", canary="3", canary_share=10)})
    predictor = make()
    predictor.engine = FakeEngine([*predictor.manifests, held], states={"demo@3": "loading"})

    rows = [(each.manifest.version, each.role, each.share, each.state) for each in predictor.models()]

    assert rows == [("2", "active", 90.0, "ready"), ("3", "canary", 10, "loading"), ("1", "previous", 0, "unloaded")]


def test_shadow_is_asked_with_a_picture_of_its_own_size_and_what_was_answered(
    make: Make, engine: FakeEngine, versions: Path
) -> None:
    roles.write(versions, {"demo": Roles("1", shadow="2")})

    outcome = make().predict("classify", [picture(colour=(0, 0, 9), kind="PNG")], {"top_k": 2})

    fakes.eventually(lambda: len(engine.shadowed) == 1, "the copy")
    manifest, image, requested, about = engine.shadowed[0]
    assert outcome.manifest.version == "1"
    assert (manifest.version, image.shape, requested) == ("2", (16, 16, 3), ClassifyOptions(2))
    assert (about["answered_by"], about["answer"]) == ("1", [{"label": "9", "score": 1.0}])


@pytest.fixture
def kept(tmp_path: Path) -> PredictionCache:
    """Answers that are kept on disk."""
    disk = DiskStore(tmp_path / "answers.sqlite3", 1 << 20, 60)
    return PredictionCache(GuardedStore(disk, CircuitBreaker("store", disk.probe)), 60)


def test_kept_answer_is_in_pixels_of_the_original_and_needs_no_engine(
    make: Make, engine: FakeEngine, kept: PredictionCache
) -> None:
    predictor = make()
    predictor.kept = kept
    image = picture(128, 64, "PNG", (0, 0, 7))

    first, second = (predictor.predict("detect", [image], {"min_width": 2}) for _ in range(2))

    assert second.results == first.results
    assert set(first.timings) == {"cache", "decode", "queue", "predict", "engine"}
    assert set(second.timings) == {"cache"}
    assert len(engine.asked) == 1


def test_promoted_version_does_not_answer_from_the_old_one(
    make: Make, engine: FakeEngine, versions: Path, kept: PredictionCache
) -> None:
    predictor = make()
    predictor.kept = kept
    found = []
    for version in "1", "2", "1":
        roles.write(versions, {"demo": Roles(version)})
        found.append(predictor.predict("classify", [picture()], {}).manifest.version)

    assert found == ["1", "2", "1"]
    assert [asked.manifest.version for asked in engine.asked] == ["1", "2"]


def test_model_that_is_computed_otherwise_does_not_answer_from_before(
    make: Make, engine: FakeEngine, versions: Path, kept: PredictionCache
) -> None:
    predictor = make()
    predictor.kept = kept
    for form in "fp32", "int8", "int8", "fp32":
        engine.form = form
        runtime_variant.write(versions, {predictor.manifests[0].digest: form})
        predictor.predict("classify", [picture()], {})

    assert len(engine.asked) == 2


def test_shadow_is_not_asked_for_what_was_kept(
    make: Make, engine: FakeEngine, versions: Path, kept: PredictionCache
) -> None:
    roles.write(versions, {"demo": Roles("1", shadow="2")})
    predictor = make()
    predictor.kept = kept
    for _ in range(3):
        predictor.predict("classify", [picture()], {})

    fakes.eventually(lambda: len(engine.shadowed) == 1, "the copy")
    assert predictor._shadowing._dropped.total() == 0


def test_request_without_an_image_is_refused(make: Make) -> None:
    with pytest.raises(ImageMissingError):
        make().predict("classify", [], {})


def test_request_with_too_many_images_is_refused_before_any_is_decoded(make: Make) -> None:
    with pytest.raises(TooManyImagesError, match="holds 4 images; at most 3"):
        make(request_max_images=3).predict("classify", [b"not an image"] * 4, {})


def test_option_is_refused_before_any_image_is_decoded(make: Make) -> None:
    with pytest.raises(OptionError):
        make().predict("classify", [b"not an image"], {"top_k": -1})


def test_image_that_is_refused_is_named_by_its_number(make: Make) -> None:
    with pytest.raises(ImageEmptyError) as caught:
        make().predict("classify", [picture(), b"", picture()], {})

    assert caught.value.message == "Image 2 of 3: The image has 0 bytes."


def test_only_image_needs_no_number(make: Make) -> None:
    with pytest.raises(ImageEmptyError) as caught:
        make().predict("classify", [b""], {})

    assert caught.value.message == "The image has 0 bytes."


def test_error_of_the_engine_reaches_the_caller(make: Make, engine: FakeEngine) -> None:
    engine.error = EngineBusyError("64 wait.")

    with pytest.raises(EngineBusyError):
        make().predict("classify", [picture()], {})


def test_deadline_is_handed_on_and_has_a_default(make: Make, engine: FakeEngine) -> None:
    predictor = make(request_timeout_seconds=30)
    later = time.monotonic() + 1000
    predictor.predict("classify", [picture()], {}, deadline=later)
    predictor.predict("classify", [picture()], {})

    assert engine.asked[0].deadline == later
    assert 20 < engine.asked[1].deadline - time.monotonic() <= 30


@pytest.mark.parametrize("deadline", [0.0, -1.0])
def test_deadline_that_has_passed_stops_the_decoding(make: Make, engine: FakeEngine, deadline: float) -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        make().predict("classify", [picture()] * 2, {}, deadline=deadline)

    assert caught.value.message == "Image 1 of 2: The deadline passed before the image was decoded."
    assert engine.asked == []


def quick_slots() -> int:
    """How many small images are decoded at once here."""
    decoders: int = sizing.choose(config.load({"ENV": "test"})).web_decoders.value
    return QUICK_A_DECODER * decoders


def test_deadline_passes_while_others_decode(make: Make, engine: FakeEngine) -> None:
    predictor, places = make(), quick_slots()
    with ExitStack() as stack:
        for _ in range(places):
            stack.enter_context(predictor.decoder.quick.slot(time.monotonic() + fakes.PATIENCE_SECONDS))

        with pytest.raises(DeadlineExceededError, match="before the image was decoded"):
            predictor.predict("classify", [picture()], {}, deadline=time.monotonic() + 0.02)

    assert engine.asked == []


def test_no_more_images_are_decoded_at_once_than_there_are_slots(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make()
    places = quick_slots()
    decode, go_on, counting = images.decode, threading.Event(), threading.Lock()
    inside, most = 0, 0

    def slow_decode(*arguments: Any) -> images.Picture:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        assert go_on.wait(fakes.PATIENCE_SECONDS)
        with counting:
            inside -= 1
        return decode(*arguments)

    monkeypatch.setattr(images, "decode", slow_decode)
    with ThreadPoolExecutor(places + 2) as pool:
        asked = [pool.submit(predictor.predict, "classify", [picture()], {}) for _ in range(places + 2)]
        fakes.eventually(lambda: inside == places, "all slots to be taken")
        go_on.set()

    assert all(len(each.result().results) == 1 for each in asked)
    assert most == places


def test_damaged_image_gives_its_decoder_back(make: Make) -> None:
    predictor = make()

    for _ in range(20):
        with pytest.raises(ImageEmptyError):
            predictor.predict("classify", [b""], {}, deadline=time.monotonic() + 5)


def test_models_have_the_state_that_the_engine_says(make: Make, engine: FakeEngine) -> None:
    engine.states = {"classifier@1": "failed", "detector@1": "loading"}

    rows = [(each.manifest.name, each.state, each.error) for each in make().models()]

    assert rows == [("classifier", "failed", "its weights are missing"), ("detector", "loading", "")]


def test_models_are_unavailable_while_the_engine_is_away(make: Make, engine: FakeEngine) -> None:
    engine.error = EngineAwayError("It has not started.")

    assert {(each.state, each.error) for each in make().models()} == {("unavailable", "It has not started.")}


def test_model_of_another_digest_is_unavailable(make: Make, engine: FakeEngine, tmp_path: Path) -> None:
    predictor = make()
    other = fakes.make_manifest(tmp_path / "other", "classifier", description="altered")
    engine.manifests = [other]

    states = {each.manifest.name: (each.state, each.error) for each in predictor.models()}

    assert states["classifier"] == ("unavailable", f"The engine holds another digest: {other.digest}.")
    assert states["detector"] == ("unavailable", "The engine does not hold it.")


def test_status_is_asked_once_for_many_who_want_it(make: Make, engine: FakeEngine) -> None:
    predictor = make()

    for _ in range(10):
        predictor.models()

    assert engine.status_count == 1


@pytest.mark.parametrize("error", [EngineAwayError("It hangs."), CaskError("It is odd.")])
def test_callers_who_waited_for_a_slow_status_share_it(
    make: Make, engine: FakeEngine, error: CaskError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hung engine takes a second to say nothing; sixteen threads must not wait one after the other."""
    asked, gate = threading.Event(), threading.Event()

    class SlowEngine(FakeEngine):
        def status(self) -> dict[str, Any]:
            asked.set()
            assert gate.wait(fakes.PATIENCE_SECONDS)
            clock.now += 1.0
            return super().status()

    predictor = make()
    predictor.engine = slow = SlowEngine(error=error)
    clock = fakes.FakeClock()
    monkeypatch.setattr("app.inference.pipeline.time", clock_module(clock))
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(predictor.models) for _ in range(8)]
        assert asked.wait(fakes.PATIENCE_SECONDS)
        gate.set()

        assert {each.state for one in found for each in one.result(fakes.PATIENCE_SECONDS)} == {"unavailable"}

    assert slow.status_count == 1


def clock_module(clock: fakes.FakeClock) -> Any:
    """What ``predictions`` uses of the module ``time``."""
    return type("FakeTime", (), {"monotonic": staticmethod(clock), "perf_counter": staticmethod(clock)})
