"""A store with models with code that between them take and give every kind of value, for tests of derived routes."""

from __future__ import annotations

import shutil
from pathlib import Path

from app.model_code import adding
from app.model_code.adding import NewCode
from tests.servers import ROOT

EXAMPLES = ROOT / "examples" / "models"

# Every kind of parameter, and an answer that says what arrived.
KINDS = '''
import enum
import os
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from cask import Choice, Image, Model, Range, Refused, Shape, Text, batch


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Side:
    length: float
    unit: Literal["cm", "inch"] = "cm"


@dataclass
class Part:
    name: Annotated[str, Text(max_length=20)]
    count: Annotated[int, Range(0, 9)]
    sides: list[Side]
    note: str | None = None


@dataclass
class Answer:
    name: str
    total: int
    share: float
    is_whole: bool
    colour: Colour
    mean: Annotated[np.ndarray, Shape(2)]
    notes: list[str]
    raw: bytes


class Kinds(Model):
    """Takes one of everything.

    Its second paragraph has <b>marks</b> & signs.
    """

    cache = True

    @batch(max_size=4)
    def predict(
        self,
        part: list[Part],
        number: list[Annotated[float, Range(-1, 1)]],
        is_whole: list[bool],
        colour: list[Colour],
        matrix: list[Annotated[np.ndarray, Shape(None, 2, dtype="float32")]],
        file: list[bytes],
        words: list[list[str]],
        picture: list[Image | None],
        limit: list[int | None],
        *,
        scale: Annotated[float, Range(0, 10)] = 1.0,
        language: Annotated[str, Choice("de", "en")] = "en",
        is_loud: bool = False,
        hint: str | None = None,
    ) -> list[Answer | Refused]:
        rows = zip(part, number, is_whole, colour, matrix, file, words, limit, strict=True)
        return [self.one(*row, scale, is_loud) for row in rows]

    def one(self, part, number, is_whole, colour, matrix, file, words, limit, scale, is_loud):
        if part.name == "refused":
            return Refused("that name is refused")
        if part.name == "crash":
            os._exit(3)
        if part.name == "slow":
            time.sleep(0.2)
        if part.name == "fault":
            raise RuntimeError("planted")
        name = part.name.upper() if is_loud else part.name
        mean = matrix.mean(axis=0, dtype=float) if len(matrix) else np.zeros(2)
        total = part.count + len(part.sides) + (limit or 0)
        return Answer(name, total, number * scale, is_whole, colour, mean, words, file)
'''
FACTS = {
    "part": {"name": "bolt", "count": 2, "sides": [{"length": 1.5}]},
    "number": 0.5,
    "is_whole": True,
    "colour": "blue",
    "matrix": [[1.0, 2.0], [3.0, 6.0]],
    "file": "QUJD",
    "words": ["a", "b"],
}


def store(place: Path, *names: str) -> Path:
    """Put examples, and the model ``kinds``, beside the demonstration models into a new store."""
    shutil.copytree(ROOT / "models", place)
    for name in names:
        adding.add(NewCode(EXAMPLES / name, name, "1"), place)
    folder = place.parent / "kinds"
    folder.mkdir()
    (folder / "model.py").write_text(KINDS)
    adding.add(NewCode(folder, "kinds", "1"), place)
    return place
