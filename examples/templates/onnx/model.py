from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime

from cask import Label, Model, Range, Shape, batch


class Template(Model):
    """Classifies a row of numbers with an ONNX file."""

    def load(self, folder: Path) -> None:
        self.names = (folder / "labels.txt").read_text().split()
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    @batch(max_size=64)
    def predict(
        self, row: list[Annotated[np.ndarray, Shape(4)]], *, top: Annotated[int, Range(1, 3)] = 1
    ) -> list[list[Label]]:
        (scores,) = self.session.run(None, {self.input: np.stack(row)})
        best = [sorted(zip(self.names, each, strict=True), key=lambda pair: -pair[1])[:top] for each in scores]
        return [[Label(name, float(score)) for name, score in each] for each in best]
