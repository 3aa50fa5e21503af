"""Networks for segmentation whose masks hold several classes: random ones, levelled so that no class has them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.models.manifests import InputSpec, Manifest
from app.runtimes.importing.add import NewModel, add_model
from app.runtimes.operators import torchvision

NAME = "lraspp_mobilenet_v3_large"
LABELS = ("background", "road", "sky", "tree")
SIDE_PX = 96
SPEC = InputSpec("fit", min_size=SIDE_PX, max_size=2 * SIDE_PX)


def add(store: Path, spec: InputSpec = SPEC, name: str = "streets") -> Manifest:
    """A segmenter in this store, version 1."""
    path = store / f"{name}.pth"
    torch.save(levelled(), path)
    return add_model(NewModel(NAME, str(path), LABELS, name, "1", input_spec=spec), store)


def levelled() -> dict[str, Any]:
    """Weights with which each class is best somewhere: its score has the same mean and spread as the others'."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(7)
        network = torchvision.models.get_model(NAME, weights=None, weights_backbone=None, num_classes=len(LABELS))
        network.eval()
        noise = np.random.default_rng(3).integers(0, 256, (4, 3, 6, 8), np.uint8)
        pixels = torch.from_numpy(noise.repeat(16, 2).repeat(16, 3)).float() / 255
        scores = network((pixels - 0.45) / 0.23)["out"]
        mean, spread = scores.mean((0, 2, 3)), scores.std((0, 2, 3))
        heads = network.classifier.low_classifier, network.classifier.high_classifier
        for head in heads:
            head.weight /= spread.view(-1, 1, 1, 1)
            head.bias /= spread
        heads[0].bias -= mean / spread
        return network.state_dict()
