from pathlib import Path
from typing import Annotated

from facenet_pytorch import MTCNN

from cask import Box, Detection, Image, Model, Range


class Faces(Model):
    """Finds faces in a photograph."""

    def load(self, folder: Path) -> None:
        self.network = MTCNN(keep_all=True, select_largest=False)

    def predict(self, photo: list[Image], *, threshold: Annotated[float, Range(0, 1)] = 0.9) -> list[list[Detection]]:
        return [self.find(each, threshold) for each in photo]

    def find(self, photo: Image, threshold: float) -> list[Detection]:
        side = min(photo.width, photo.height)
        if side < 20:
            return []
        self.network.min_face_size = max(20, side // 20)
        boxes, scores = self.network.detect(photo.pixels)
        found = zip(boxes, scores, strict=True) if boxes is not None else ()
        return [Detection("face", float(score), Box(*map(float, box))) for box, score in found if score >= threshold]
