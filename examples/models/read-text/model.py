from dataclasses import dataclass
from pathlib import Path

from rapidocr_onnxruntime import RapidOCR

from cask import Box, Image, Model, Refused


@dataclass
class Line:
    text: str
    score: float
    box: Box


class ReadText(Model):
    """Reads the text in a photograph: finds the lines, turns and reads them."""

    def load(self, folder: Path) -> None:
        self.read = RapidOCR(intra_op_num_threads=2)

    def predict(self, photo: list[Image]) -> list[list[Line] | Refused]:
        return [self.lines(x) if 1 / 8 <= x.width / x.height <= 30 else Refused("too narrow") for x in photo]

    def lines(self, photo: Image) -> list[Line]:
        return [line(*row) for row in self.read(photo.pixels[:, :, ::-1])[0] or []]


def line(corners: list[tuple[float, float]], text: str, score: str) -> Line:
    x, y = zip(*corners, strict=True)
    return Line(text, float(score), Box(min(x), min(y), max(x), max(y)))
