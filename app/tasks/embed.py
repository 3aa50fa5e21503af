"""Give an image a vector: images that look alike to the model get vectors with a small angle between them."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typing_extensions import TypedDict

from app.inference.results import Answer, Options
from app.tasks.base import IDENTITY, Difference, Keywords, Side, Task, check_number
from app.texts import gettext_noop

if TYPE_CHECKING:
    import numpy as np

    from app.models.manifests import ServeSpec
    from app.runtimes.model import TaskModel
    from app.tasks.embed_params import EmbedParams

MOST_DIMENSIONS = 65536
# fp32 holds no more.
DIGITS = 7
# Vectors at least so alike are the same answer: int8 and bf16 move each number a little.
SAME_COSINE = 0.99
NOTED_NUMBERS = 5


@dataclass(frozen=True, slots=True)
class EmbedOptions(Options):
    """``dimensions``: how many numbers the caller wants; 0 is all."""

    dimensions: int = 0


class EmbeddedImage(TypedDict):
    """One image and its vector."""

    width: Side
    height: Side
    embedding: Annotated[list[float], Keywords(description="The vector. Compare two by their cosine.")]


@dataclass(frozen=True, slots=True)
class Embedding:
    """The one row of an answer."""

    vector: list[float]


class Embed(Task):
    """See the module."""

    name = "embed"
    rows = "embedding"
    options = EmbedOptions
    label_option = ""
    count_option = "dimensions"
    tensors = ({"name": "embeddings", "datatype": "FP32", "shape": [-1, -1]},)
    summary = "Give images vectors"
    sentence = "Give each image a vector, to find images that look alike: compare two vectors by their cosine."
    example: ClassVar = {
        "model": {**IDENTITY, "name": "parts-embedder"},
        "results": [{"width": 480, "height": 400, "embedding": [0.6, 0.0, -0.8]}],
        "request_id": "awCUYJm_o1U9NTrRRxcP7wAAAB4",
    }
    image = EmbeddedImage
    row = float
    rpc_sentence = gettext_noop("Gives images vectors.")
    rpc_option = "dimensions"
    is_merged = False
    purpose = gettext_noop("Give the picture a vector")
    agreement = gettext_noop("Cosine")
    drawing = "vector"
    controls = ()

    @property
    def params(self) -> type[EmbedParams]:
        from app.tasks.embed_params import EmbedParams

        return EmbedParams

    @property
    def model_class(self) -> type[TaskModel]:
        from app.tasks.embed_model import Embedder

        return Embedder

    def default_options(self, serve: ServeSpec) -> EmbedOptions:
        return EmbedOptions()

    def row_from_json(self, row: dict[str, Any]) -> Embedding:
        return Embedding(row["vector"])

    def check(self, row: Embedding) -> None:
        for value in row.vector:
            check_number(value)

    def result(self, answer: Answer) -> dict[str, Any]:
        (row,) = answer
        return {self.rows: row.vector}

    def answer_of(self, result: Mapping[str, Any]) -> Answer:
        return [Embedding(list(result[self.rows]))]

    def to_wire(self, answer: Answer) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray | bytes]]:
        import numpy as np

        (row,) = answer
        return [{}], {"vector": np.asarray(row.vector, np.float32)}

    def from_wire(self, rows: Sequence[dict[str, Any]], arrays: Mapping[str, Any]) -> Answer:
        return [Embedding([round_to_digits(value) for value in arrays["vector"].tolist()])]

    def difference(self, answered: Answer, other: Answer) -> Difference:
        """By the cosine of the angle between the vectors."""
        apart = 1 - cosine(answered[0].vector, other[0].vector)
        return Difference(apart <= 1 - SAME_COSINE, apart)

    def seen(self, answer: Answer) -> tuple[Sequence[str], float]:
        return (), 0.0

    def noted(self, answer: Answer) -> list[dict[str, Any]]:
        return [{"vector": [round(value, 5) for value in answer[0].vector[:NOTED_NUMBERS]]}]

    def to_tensors(self, answers: Sequence[Answer]) -> dict[str, np.ndarray]:
        """The vectors, image × number."""
        import numpy as np

        return {"embeddings": np.array([answer[0].vector for answer in answers], np.float32)}


def round_to_digits(value: float) -> float:
    """As many digits as fp32 has."""
    return float(f"{value:.{DIGITS}g}")


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """Of the angle between two vectors, -1 … 1; 0 where they have no angle."""
    if len(first) != len(second):
        return 0.0
    lengths = math.hypot(*first) * math.hypot(*second)
    return sum(map(operator.mul, first, second)) / lengths if lengths else 0.0
