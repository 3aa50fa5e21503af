from pathlib import Path
from typing import Annotated

import openvino
import torch
from torchvision.ops import batched_nms, box_convert

from cask import Box, Detection, Image, Model, Shape, batch


class Yolo(Model):
    """Finds discs, squares and triangles."""

    def load(self, folder: Path) -> None:
        self.labels = (folder / "labels.txt").read_text().split()
        self.network = openvino.compile_model(folder / "yolo.onnx", "CPU")

    @batch(max_size=8)
    def predict(self, photo: list[Annotated[Image, Shape(96, 96, 3)]], *, least: float = 0.2) -> list[list[Detection]]:
        pixels = (torch.stack([torch.tensor(each.pixels) for each in photo]).permute(0, 3, 1, 2) / 255).numpy()
        return [self.decode(*each, least) for each in zip(torch.tensor(self.network(pixels)[0]), photo, strict=True)]

    def decode(self, rows: torch.Tensor, photo: Image, least: float) -> list[Detection]:
        scores, classes = rows[4:].max(0)
        boxes = box_convert(rows[:4].T, "cxcywh", "xyxy") * torch.tensor([photo.width, photo.height] * 2) / 96
        kept = [i for i in batched_nms(boxes, scores, classes, 0.5) if scores[i] >= least]
        return [Detection(self.labels[classes[i]], float(scores[i]), Box(*boxes[i].tolist())) for i in kept]
