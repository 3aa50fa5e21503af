"""A GPU whose memory does not suffice: smaller batches, remembered; one image alone is refused, the others answered."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import CaskError, GpuOutOfMemoryError, ModelLoadError
from app.inference.results import Answer, ClassifyOptions, Options, Prediction
from app.models.manifests import Manifest
from app.runtimes.device_memory import BoundedModel
from app.runtimes.model import Images, Model
from tests import fakes

HUGE = 0xFFFFFF


class OutOfMemoryError(Exception):
    """As torch.OutOfMemoryError."""


class Tensor:
    """Memory that is taken until nobody refers to it."""


class SmallModel(Model):
    """Names each image by its number. Has room for so many images at once; one with a number of HUGE takes it all."""

    def __init__(self, manifest: Manifest, room: int) -> None:
        super().__init__(manifest)
        self.device = "cuda:0"
        self.room = room
        self.tried: list[int] = []
        self.taken: list[weakref.ref[Tensor]] = []
        self.emptied: list[int] = []

    def empty_cache(self) -> None:
        assert all(each() is None for each in self.taken), "what the failed attempt took is still referred to"
        self.emptied.append(len(self.tried))

    def golden_check(self) -> None:
        """It has no stored answers."""

    def prove(self, say: Callable[[str], None]) -> None:
        """It has no pictures whose right answer is known."""

    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        self.tried.append(len(images))
        tensor = Tensor()
        self.taken.append(weakref.ref(tensor))
        names = [fakes.name_of(image) for image in images]
        if sum(self.room if int(name) == HUGE else 1 for name in names) > self.room or self.room == 0:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nmore words")
        return [[Prediction(name, 1.0)] for name in names]


def bounded(model: SmallModel) -> BoundedModel:
    return BoundedModel(model, (OutOfMemoryError,), model.empty_cache)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return fakes.make_manifest(tmp_path / "models")


@pytest.fixture(scope="module")
def one_manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return fakes.make_manifest(tmp_path_factory.mktemp("store") / "models")


def predict(model: BoundedModel, *numbers: int) -> list[str]:
    """The names that came back; for an error its code."""
    answers = model.predict([fakes.pixels(number) for number in numbers], [ClassifyOptions()] * len(numbers))
    return [answer.code if isinstance(answer, CaskError) else _name(answer) for answer in answers]


def _name(answer: Answer) -> str:
    return answer[0].label


def test_what_fits_is_computed_at_once(manifest: Manifest) -> None:
    model = SmallModel(manifest, room=8)

    assert predict(bounded(model), *range(8)) == [str(number) for number in range(8)]
    assert model.tried == [8]
    assert model.emptied == []


def test_a_batch_without_room_is_halved_until_it_fits(manifest: Manifest) -> None:
    model = SmallModel(manifest, room=3)

    assert predict(bounded(model), *range(8)) == [str(number) for number in range(8)]
    # The second half is not tried whole: the first one has shown that four do not fit.
    assert model.tried == [8, 4, 2, 2, 2, 2]
    assert model.emptied == [1, 2]


def test_the_smaller_size_is_remembered_and_logged_once_each(
    manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    model = SmallModel(manifest, room=2)
    frugal = bounded(model)
    with caplog.at_level(logging.WARNING):
        predict(frugal, *range(4))
        model.tried.clear()

        assert predict(frugal, *range(5)) == ["0", "1", "2", "3", "4"]

    assert model.tried == [2, 2, 1]
    assert caplog.messages == [
        f"model {manifest.key}: cuda:0 has no memory for 4 images at once; at most 2 from now on"
    ]


def test_one_image_that_does_not_fit_is_refused_alone(manifest: Manifest) -> None:
    model = SmallModel(manifest, room=4)
    # With a neighbour it takes more than there is; it alone fits.
    assert predict(bounded(model), 0, HUGE, 2) == ["0", str(HUGE), "2"]

    refusing = SmallModel(manifest, room=0)
    answers = bounded(refusing).predict([fakes.pixels(0, 3, 5)], [ClassifyOptions()])

    assert isinstance(answers[0], GpuOutOfMemoryError)
    assert answers[0].message == "cuda:0 has no memory left for one image of 5×3 pixels."
    assert (answers[0].status, answers[0].retry_after_seconds) == (503, 5.0)


def test_it_lives_on_when_memory_is_there_again(manifest: Manifest) -> None:
    model = SmallModel(manifest, room=0)
    frugal = bounded(model)
    assert predict(frugal, 1, 2) == ["gpu_out_of_memory"] * 2

    model.room = 8

    assert predict(frugal, 1, 2) == ["1", "2"]


def test_other_failures_pass(manifest: Manifest) -> None:
    model = SmallModel(manifest, room=8)

    with pytest.raises(ValueError, match="2 images and 1 options"):
        bounded(model).predict([fakes.pixels(0)] * 2, [ClassifyOptions()])
    with pytest.raises(ValueError, match="uint8 array"):
        bounded(model).predict([np.zeros((4, 4, 3), np.float32)], [ClassifyOptions()])


def test_a_model_without_room_for_one_image_is_not_served(manifest: Manifest) -> None:
    with pytest.raises(ModelLoadError, match=r"does not fit into the memory of cuda:0: CUDA out of memory.*20 MiB\.$"):
        bounded(SmallModel(manifest, room=0)).warm_up()


def test_warming_up_learns_how_many_fit(manifest: Manifest) -> None:
    model = SmallModel(manifest, room=20)
    model.best_batch_size = 64
    frugal = bounded(model)

    frugal.warm_up()

    assert model.tried == [1, 64, 32, *[16] * 4]
    assert frugal.max_batch_size == 16


def test_it_says_what_the_model_says(manifest: Manifest) -> None:
    model = SmallModel(manifest, room=1)
    model.computed_by, model.processor, model.best_batch_size = "torch-fused fp16", "A GPU", 32

    frugal = bounded(model)

    assert (frugal.computed_by, frugal.device, frugal.processor) == ("torch-fused fp16", "cuda:0", "A GPU")
    assert frugal.best_batch_size == 32


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=5), room=st.integers(1, 40))
def test_every_image_gets_its_own_answer_and_no_lesson_is_forgotten(
    one_manifest: Manifest, counts: list[int], room: int
) -> None:
    model = SmallModel(one_manifest, room)
    frugal = bounded(model)

    for count in counts:
        assert predict(frugal, *range(count)) == [str(number) for number in range(count)]

    smallest_failed = min((size for size in model.tried if size > room), default=41)
    after_that = model.tried[model.tried.index(smallest_failed) + 1 :] if smallest_failed < 41 else []
    assert all(size < smallest_failed for size in after_that)
    # Each size that failed was tried once.
    assert len([size for size in model.tried if size > room]) == len({size for size in model.tried if size > room})
