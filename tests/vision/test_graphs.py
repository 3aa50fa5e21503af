"""A network as recordings: which are made, for whom, and what they answer. The GPU's own recording needs a GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from app.config import ROOT
from app.models import manifests
from app.models.builds import Candidate
from app.runtimes import torch_runtime
from app.runtimes.build import samples
from app.runtimes.classifier import Classifier
from app.runtimes.cuda_graphs import Network, Recorded
from app.runtimes.registry import load_candidate

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"needs a GPU; torch {torch.__version__} finds none here"
)


def mean_of_each(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean(dim=(1, 2, 3)).unsqueeze(1)


class Replayed:
    """As a recording on a GPU: reads one place, writes one place, whatever it is given."""

    def __init__(self, network: Network, images: torch.Tensor) -> None:
        self._network, self._images = network, images.clone()
        self._results = network(self._images)

    def replay(self, images: torch.Tensor) -> torch.Tensor:
        self._images[: len(images)].copy_(images)
        self._results.copy_(self._network(self._images))
        return self._results


@pytest.fixture
def made() -> list[tuple[int, ...]]:
    return []


@pytest.fixture
def record(made: list[tuple[int, ...]]) -> Callable[[Network, torch.Tensor], Replayed]:
    def recorded(network: Network, images: torch.Tensor) -> Replayed:
        made.append(tuple(images.shape))
        return Replayed(network, images)

    return recorded


def pictures(count: int, height: int = 4) -> torch.Tensor:
    """Each of one value that no other has, in the order in which pictures lie in memory."""
    values = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1)
    return values.expand(count, height, 6, 3).contiguous().permute(0, 3, 1, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_each_picture_has_its_own_result_however_many_there_are(
    count: int, record: Callable[[Network, torch.Tensor], Replayed]
) -> None:
    recorded = Recorded(mean_of_each, record)
    recorded(pictures(16).flip(0))

    assert recorded(pictures(count)).flatten().tolist() == list(range(count))


def test_a_recording_is_made_for_each_power_of_two_and_kept(
    record: Callable[[Network, torch.Tensor], Replayed], made: list[tuple[int, ...]]
) -> None:
    recorded = Recorded(mean_of_each, record)

    for count in (1, 2, 3, 4, 3, 8, 5, 7, 1):
        recorded(pictures(count))

    assert [shape[0] for shape in made] == [1, 2, 4, 8]


def test_pictures_of_another_size_have_a_recording_of_their_own(
    record: Callable[[Network, torch.Tensor], Replayed], made: list[tuple[int, ...]]
) -> None:
    recorded = Recorded(mean_of_each, record)

    recorded(pictures(2, height=4))
    recorded(pictures(2, height=8))

    assert made == [(2, 3, 4, 6), (2, 3, 8, 6)]


def test_no_thread_uses_another_ones_recording(
    record: Callable[[Network, torch.Tensor], Replayed], made: list[tuple[int, ...]]
) -> None:
    recorded = Recorded(mean_of_each, record)
    recorded(pictures(2))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(recorded, pictures(2)).result()

    assert len(made) == 2


def test_what_is_recorded_is_the_fused_network(
    record: Callable[[Network, torch.Tensor], Replayed],
) -> None:
    manifest = manifests.find(ROOT / "models", ("site-safety-classifier",))[0]
    form = torch_runtime.form("torch-graphs", "fp32")
    network = torch_runtime.wrapped(manifest, form)
    batch = torch.from_numpy(np.stack(samples.read(manifest).comparison[:3])).permute(0, 3, 1, 2)

    with torch.inference_mode():
        found, expected = Recorded(network, record)(batch), network(batch)

    assert (form.is_channels_last, form.is_fused, form.is_recorded) == (True, True, True)
    assert torch.allclose(found, expected, atol=1e-5)


@needs_gpu
def test_recordings_on_a_gpu_answer_as_torch_does_from_several_threads() -> None:
    manifest = manifests.find(ROOT / "models", ("site-safety-classifier",))[0]
    batch = np.stack(samples.read(manifest).comparison[:9])
    reference, recorded = (
        load_candidate(manifest, Candidate(runtime, "fp32"), Path(), 2, "cuda:0")
        for runtime in ("torch", "torch-graphs")
    )
    assert isinstance(reference, Classifier)
    assert isinstance(recorded, Classifier)
    expected = reference.probabilities(batch)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda count: recorded.probabilities(batch[:count]), [*range(1, 10)] * 4))

    for rows in found:
        assert np.abs(rows - expected[: len(rows)]).max() < 0.01
