"""Written for cask 1.0, when that was all there was. A test holds it as it is: see tests/contract/test_cask_1.py."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from cask import (
    Box,
    Choice,
    Detection,
    Embedding,
    Image,
    Label,
    Labels,
    Mask,
    Model,
    Range,
    Refused,
    Shape,
    Text,
    batch,
)


class Tone(enum.Enum):
    LOW = "low"
    HIGH = "high"


@dataclass
class Row:
    name: Annotated[str, Text(min_length=1, max_length=20, pattern="[a-z]+")]
    count: Annotated[int, Range(0, 9)] = 1
    note: str | None = None


@dataclass
class Answer:
    label: Label
    found: list[Detection]
    mask: Mask
    vector: Embedding
    row: Row
    counts: dict[str, int]


class Keepsake(Model):
    """Takes and gives one of each kind."""

    cache = True
    timeout_seconds = 20
    memory_mb = 2000

    def load(self, folder: Path) -> None:
        self.queues = (folder / "queues.txt").read_text().split()

    @batch(max_size=4, max_wait_ms=1, threads=2)
    def predict(
        self,
        photo: list[Annotated[Image, Shape(8, 8, 3)]],
        row: list[Row],
        vector: list[Annotated[np.ndarray, Shape(2, dtype="float32")]],
        raw: list[bytes],
        flags: list[list[bool]],
        *,
        queue: Annotated[str, Labels("queues.txt")] = "billing",
        side: Annotated[str, Choice("left", "right")] = "left",
        tone: Tone = Tone.LOW,
        size: Literal["small", "large"] = "small",
        share: Annotated[float, Range(low=0, high=1)] = 0.5,
    ) -> list[Answer | Refused]:
        return [
            Refused("no flag is set")
            if not any(flag)
            else Answer(
                label=Label(f"{queue} {side} {tone.value} {size}", share),
                found=[Detection(label=one.name, score=0.5, box=Box(x_min=0, y_min=0, x_max=picture.width, y_max=1))],
                mask=Mask(np.zeros((2, 2), "uint8"), labels=["road"]),
                vector=Embedding(numbers * 2),
                row=one,
                counts={"bytes": len(data), "queues": len(self.queues)},
            )
            for picture, one, numbers, data, flag in zip(photo, row, vector, raw, flags, strict=True)
        ]
