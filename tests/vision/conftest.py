"""Real models, real weights, real pictures. torch is allowed here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference import images
from app.models import manifests
from app.models.manifests import InputSpec, Manifest
from app.runtimes.importing.add import NewModel, add_model
from app.runtimes.model import Model
from app.runtimes.registry import load_model

STORE = Path(__file__).parents[2] / "models"
SAMPLES = STORE / "samples"
LIMITS = images.Limits(max_bytes=1_000_000, max_pixels=4_000_000, formats=("JPEG",))


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """As the engine runs it; and tests run beside each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def detector() -> Model:
    return load_model(manifests.read(STORE / "site-safety-detector" / "1"))


@pytest.fixture(scope="session")
def classifier() -> Model:
    return load_model(manifests.read(STORE / "site-safety-classifier" / "1"))


@pytest.fixture(scope="session")
def read_sample() -> Callable[[str, InputSpec], images.Picture]:
    """A sample image the way the web tier reads it."""
    return lambda file, spec: images.read((SAMPLES / file).read_bytes(), spec, LIMITS)


@pytest.fixture(scope="session")
def pictures(samples, read_sample, detector) -> list[np.ndarray]:
    """The detector's inputs: letterboxed samples."""
    return [read_sample(entry["file"], detector.manifest.input).pixels for entry in samples]


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Manifest]:
    """Add a small classifier with random weights to a store of its own."""
    return lambda *, force=False, **changes: add_model(
        NewModel("narrow_resnet10", "random", ("a", "b", "c"), "small", "1", **changes),
        tmp_path / "models",
        force=force,
    )
