"""Are a classifier's labels those that torchvision's own scaling gives? For published weights alone.

The web tier scales with Pillow's antialiased bilinear filter and cuts before it scales; torchvision scales first, some
weights bicubic. Small differences of scores are usual. Another size, mean, std or order of labels is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.errors import GoldenCheckError
from app.inference import images
from app.models.manifests import Manifest
from app.runtimes import torch_runtime
from app.runtimes.checks import geometry
from app.runtimes.classifier import Classifier
from app.runtimes.model import Model

# A label that differs counts as wrong where torchvision is so sure of its own.
SURE = 0.5

Transform = Callable[[Any], torch.Tensor]


def compare(model: Model, transform: Transform, labels: Sequence[str], pictures: Sequence[np.ndarray]) -> str:
    """Compare a classifier with its network behind ``transform``, which is torchvision's; what was found, in words.

    ``labels``: torchvision's, in their order. ``pictures``: upright, uint8 [H, W, 3]. Raises GoldenCheckError where
    most labels differ from those of which it is sure.
    """
    assert isinstance(model, Classifier)
    expected = _expected(model.manifest, transform, pictures)
    inputs = [images.from_pixels(picture, model.manifest.input, geometry.LIMITS).pixels for picture in pictures]
    found = np.concatenate([model.probabilities(input_[None]) for input_ in inputs])
    is_same = [labels[a] == model.manifest.labels[b] for a, b in zip(_best(expected), _best(found), strict=True)]
    same = sum(is_same)
    wrong = sum(not each and row.max() >= SURE for each, row in zip(is_same, expected, strict=True))
    apart = np.abs(expected - found).max(axis=1)
    words = f"torchvision's own scaling gives the same label in {same} of {len(pictures)} pictures"
    if wrong * 2 > len(pictures):
        raise GoldenCheckError(
            f"{model.manifest.key}: {words}; probabilities differ by up to {apart.max():.2f}.",
            hint="Are size, mean, std and labels those of these weights? Leave them out to take the published ones.",
        )
    return f"{words}; probabilities differ by {apart.max():.3f} at most"


def _expected(manifest: Manifest, transform: Transform, pictures: Sequence[np.ndarray]) -> np.ndarray:
    network = torch_runtime.network(manifest)
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
        return torch.softmax(network(batch), dim=1).numpy()


def _best(probabilities: np.ndarray) -> list[int]:
    return [int(place) for place in probabilities.argmax(axis=1)]
