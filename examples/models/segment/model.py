from pathlib import Path
from typing import Annotated

import torch
from safetensors.torch import load_file
from torch import nn

from cask import Image, Mask, Model, Shape, batch


class Segment(Model):
    """Says which pixels of a picture belong to which shape."""

    def load(self, folder: Path) -> None:
        self.labels = (folder / "labels.txt").read_text().split()
        body = [nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 7, 1, 3)]
        self.network = nn.Sequential(*body, nn.ReLU(), nn.Conv2d(16, 4, 1), nn.Upsample(None, 4, "bilinear"))
        self.network.load_state_dict(load_file(folder / "weights.safetensors"))

    @batch(max_size=8)
    def predict(self, photo: list[Annotated[Image, Shape(96, 96, 3)]]) -> list[Mask]:
        pixels = torch.stack([torch.tensor(each.pixels) for each in photo]).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            return [Mask(row.argmax(0).byte().numpy(), self.labels) for row in self.network(pixels)]
