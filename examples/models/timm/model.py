from pathlib import Path
from typing import Annotated

import timm
import torch

from cask import Image, Label, Model, Range, Shape, batch


class Timm(Model):
    """Says which shape is in a picture."""

    def load(self, folder: Path) -> None:
        self.labels = (folder / "labels.txt").read_text().split()
        sizes = {"num_classes": 3, "channels": (8, 8, 16, 16), "stem_width": 8}  # as it was trained
        self.network = timm.create_model("test_resnet", checkpoint_path=folder / "weights.safetensors", **sizes).eval()

    @batch(max_size=16)
    def predict(
        self, photo: list[Annotated[Image, Shape(96, 96, 3)]], *, top: Annotated[int, Range(1, 3)] = 1
    ) -> list[list[Label]]:
        pixels = torch.stack([torch.tensor(each.pixels) for each in photo]).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            scores, classes = self.network(pixels).softmax(1).topk(top)
        rows = zip(scores.tolist(), classes.tolist(), strict=True)
        return [[Label(self.labels[i], score) for score, i in zip(*row, strict=True)] for row in rows]
