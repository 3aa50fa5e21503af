from pathlib import Path
from typing import Annotated

import numpy as np
import timm
import torch

from cask import Image, Label, Model, Shape, batch


class Template(Model):
    """Classifies a photograph with a network of timm."""

    def load(self, folder: Path) -> None:
        self.names = (folder / "labels.txt").read_text().split()
        torch.manual_seed(0)  # With weights of your own: create_model(…, checkpoint_path=folder / "mine.safetensors")
        self.network = timm.create_model("test_resnet", num_classes=len(self.names)).eval()

    @batch(max_size=8)
    @torch.inference_mode()
    def predict(self, photo: list[Annotated[Image, Shape(160, 160, 3)]], *, top: int = 1) -> list[list[Label]]:
        pixels = torch.from_numpy(np.stack([each.pixels for each in photo])).permute(0, 3, 1, 2) / 127.5 - 1
        scores = self.network(pixels).softmax(1).tolist()
        found = [[Label(*pair) for pair in zip(self.names, row, strict=True)] for row in scores]
        return [sorted(each, key=lambda label: -label.score)[:top] for each in found]
