"""What wraps a network for segmentation, so that it takes uint8 images and answers classes. Imports torch."""

from __future__ import annotations

import torch
from torch import nn

from app.models.manifests import InputSpec
from app.runtimes.torch_runtime import Normalise


class SegmentNetwork(nn.Module):
    """uint8 [B, 3, H, W] to the number of each pixel's best class, uint8 [B, H, W]."""

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = self.normalise(images).to(next(self.network.parameters()).dtype)
        best: torch.Tensor = self.network(pixels)["out"].argmax(dim=1)
        return best.to(torch.uint8)
