"""Say to which class each pixel of an image belongs (semantic segmentation): a mask, and the share of each class."""

from __future__ import annotations

import base64
import colorsys
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typing_extensions import TypedDict

from app.inference.results import Answer, Options, Prediction
from app.tasks.base import (
    IDENTITY,
    Control,
    Difference,
    Keywords,
    Placing,
    Side,
    Task,
    check_number,
    check_text,
)
from app.texts import gettext_noop

if TYPE_CHECKING:
    import numpy as np

    from app.models.manifests import ServeSpec
    from app.runtimes.model import TaskModel
    from app.tasks.segment_params import SegmentParams

# The number of a pixel that no class was asked for, or that the model did not see; 0 … 254 are classes.
NO_CLASS = 255
AREA_DIGITS = 5
DATA = "data:image/png;base64,"
# A mask of 8 × 8 pixels, all of the first class.
EXAMPLE_MASK = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAMAAADz0U65AAAAA1BMVEUAAACnej3aAAAADElEQVR4nGNgoA4AAABIAAEuuDx+AAAAAElFTkSuQmCC"
)
PNG = b"\x89PNG\r\n\x1a\n"
# The least that zlib can do: rows that repeat become nothing already.
COMPRESSION = 1


@dataclass(frozen=True, slots=True)
class SegmentOptions(Options):
    """Which classes the caller wants. ``only_label``: the only one; empty for all."""

    max_classes: int = NO_CLASS
    only_label: str = ""


Mask = Annotated[str, Keywords(description="A PNG with a palette, as large as the image, as a `data:` address.")]


class Segment(TypedDict):
    """One class that is in the image. ``area``: its share of the image's pixels, 0 … 1; ``colour``: in the mask."""

    label: str
    area: float
    colour: str


class SegmentedImage(TypedDict):
    """One image: its classes, largest first, and the mask."""

    width: Side
    height: Side
    segments: list[Segment]
    mask: Mask


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The engine's answer: the number of each pixel's class, uint8 height × width of the input; and their labels."""

    numbers: np.ndarray
    labels: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The one row of an answer. ``mask``: a PNG with a palette as large as the upright image, in base64."""

    segments: list[Segment]
    mask: str


class SegmentTask(Task):
    """See the module."""

    name = "segment"
    rows = "segments"
    options = SegmentOptions
    label_option = "only_label"
    count_option = "max_classes"
    tensors = (
        {"name": "masks", "datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "base64"}},
        {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "areas", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "counts", "datatype": "INT32", "shape": [-1]},
    )
    summary = "Divide images into classes"
    sentence = "Say to which class each pixel belongs: a mask of each upright image, and the share of each class."
    example: ClassVar = {
        "model": {**IDENTITY, "name": "street-segmenter"},
        "results": [
            {
                "width": 8,
                "height": 8,
                "segments": [{"label": "background", "area": 1.0, "colour": "#000000"}],
                "mask": f"{DATA}{EXAMPLE_MASK}",
            }
        ],
        "request_id": "awCUYJm_o1U9NTrRRxcP7wAAAB4",
    }
    image = SegmentedImage
    row = Segment
    beside: ClassVar = {"mask": Mask}
    rpc_sentence = gettext_noop("Divides images into classes.")
    rpc_option = "max_classes"
    is_merged = False
    purpose = gettext_noop("Divide the picture")
    agreement = gettext_noop("Mean IoU")
    drawing = "mask"
    controls = (
        Control("max_classes", gettext_noop("Classes shown"), is_slider=True, is_of_labels=True, range=(1, 20)),
    )

    @property
    def params(self) -> type[SegmentParams]:
        from app.tasks.segment_params import SegmentParams

        return SegmentParams

    @property
    def model_class(self) -> type[TaskModel]:
        from app.tasks.segment_model import Segmenter

        return Segmenter

    def default_options(self, serve: ServeSpec) -> SegmentOptions:
        return SegmentOptions()

    def row_from_json(self, row: dict[str, Any]) -> Segmentation:
        segments = [Segment(label=each["label"], area=each["area"], colour=each["colour"]) for each in row["segments"]]
        return Segmentation(segments, row["mask"])

    def check(self, row: Segmentation) -> None:
        check_text(row.mask)
        for segment in row.segments:
            check_text(segment["label"])
            check_text(segment["colour"])
            check_number(segment["area"])

    def result(self, answer: Answer) -> dict[str, Any]:
        (row,) = answer
        return {self.rows: row.segments, "mask": f"{DATA}{row.mask}"}

    def answer_of(self, result: Mapping[str, Any]) -> Answer:
        return [Segmentation(list(result[self.rows]), result["mask"].partition(",")[2])]

    def to_wire(self, answer: Answer) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray | bytes]]:
        (row,) = answer
        return [{"labels": list(row.labels.items())}], {"classes": row.numbers}

    def from_wire(self, rows: Sequence[dict[str, Any]], arrays: Mapping[str, Any]) -> Answer:
        (row,) = rows
        return [ClassMap(arrays["classes"], dict(row["labels"]))]

    def lean(self, answer: Answer) -> Answer:
        return [replace(row, mask="") for row in answer]

    def scored(self, result: Mapping[str, Any]) -> Sequence[Any]:
        """Each class; its score is its share of the image."""
        return [{"label": segment["label"], "score": segment["area"]} for segment in result[self.rows]]

    def overlay(self, answer: Answer) -> str:
        return f"{DATA}{answer[0].mask}"

    def placed(self, answer: Answer, where: Placing) -> Answer:
        """The mask of the upright image: each of its pixels has the class of the input's pixel that shows it."""
        import numpy as np

        (found,) = answer
        if isinstance(found, Segmentation):
            return answer
        rows = _shown(where.height, where.top, where.scale_y, found.numbers.shape[0])
        columns = _shown(where.width, where.left, where.scale_x, found.numbers.shape[1])
        # A border of no class, for what lies outside of the input.
        numbers = np.pad(found.numbers, ((0, 1), (0, 1)), constant_values=NO_CLASS)
        weights = np.outer(
            np.bincount(rows, minlength=numbers.shape[0]), np.bincount(columns, minlength=numbers.shape[1])
        )
        areas = np.bincount(numbers.ravel(), weights.ravel(), NO_CLASS + 1) / (where.width * where.height)
        ordered = sorted(found.labels.items(), key=lambda each: -areas[each[0]])
        segments = [
            Segment(label=label, area=_share(areas[number]), colour=f"#{bytes(colour(number)).hex()}")
            for number, label in ordered
            if areas[number] > 0
        ]
        return [Segmentation(segments, base64.b64encode(png(numbers, rows, columns)).decode("ascii"))]

    def difference(self, answered: Answer, other: Answer) -> Difference:
        """Of areas: the same largest class, and the largest difference of a class's share."""
        first, second = (
            {segment["label"]: segment["area"] for segment in rows[0].segments} for rows in (answered, other)
        )
        apart = [abs(first.get(label, 0.0) - second.get(label, 0.0)) for label in first.keys() | second.keys()]
        return Difference(next(iter(first), "") == next(iter(second), ""), max(apart, default=0.0))

    def seen(self, answer: Answer) -> tuple[Sequence[str], float]:
        """The labels that are there, and the share of the largest."""
        import numpy as np

        (row,) = answer
        counts = np.bincount(row.numbers.ravel(), minlength=NO_CLASS + 1)
        there = [label for number, label in row.labels.items() if counts[number]]
        return there, float(counts[:NO_CLASS].max() / row.numbers.size)

    def noted(self, answer: Answer) -> list[dict[str, Any]]:
        return [{"label": segment["label"], "score": segment["area"]} for segment in answer[0].segments]

    def to_tensors(self, answers: Sequence[Answer]) -> dict[str, np.ndarray]:
        """The masks as PNG, an element an image; labels and areas, image × rank, and how many of them are classes."""
        import numpy as np

        from app.tasks import arrays

        found = [[Prediction(row["label"], row["area"]) for row in answer[0].segments] for answer in answers]
        tensors = arrays.labels_and_scores(found)
        return {
            "masks": np.array([base64.b64decode(answer[0].mask) for answer in answers], object),
            "labels": tensors["labels"],
            "areas": tensors["scores"],
            "counts": arrays.counts(found),
        }


def _share(area: Any) -> float:
    return round(float(area), AREA_DIGITS)


def colour(number: int) -> tuple[int, int, int]:
    """Red, green and blue of a class, 0 … 255; the first one, mostly the background, is black."""
    if number in (0, NO_CLASS):
        return 0, 0, 0
    # Hues a golden angle apart: labels that follow each other in the list get colours that differ most.
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, 0.95 - 0.25 * (number % 3) / 2)
    return round(red * 255), round(green * 255), round(blue * 255)


def png(numbers: np.ndarray, rows: np.ndarray, columns: np.ndarray, first: int = 0) -> bytes:
    """A PNG with a palette whose pixel at row y and column x is ``numbers[rows[y], columns[x]]``.

    The number 0 has the colour ``first``.

    Written row by row: a mask of 50 megapixels is never whole in memory.
    """
    packer, last, body = zlib.compressobj(COMPRESSION), -1, b""
    again = b"\x02" + bytes(len(columns))
    for row in rows.tolist():
        # Filter 2: the difference to the row above, which is nothing where it is the same.
        body += packer.compress(again if row == last else b"\x00" + numbers[row][columns].tobytes())
        last = row
    palette = b"".join(bytes(colour(number + first)) for number in range(NO_CLASS + 1))
    # What has no class is clear.
    parts = (
        (b"IHDR", struct.pack("!IIBBBBB", len(columns), len(rows), 8, 3, 0, 0, 0)),
        (b"PLTE", palette),
        (b"tRNS", b"\xff" * NO_CLASS + b"\x00"),
        (b"IDAT", body + packer.flush()),
        (b"IEND", b""),
    )
    return PNG + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def _shown(pixels: int, begin: float, scale: float, inputs: int) -> np.ndarray:
    """For each pixel of one side of the original, which one of the input shows it; ``inputs`` where none does."""
    import numpy as np

    places = np.floor((np.arange(pixels) + 0.5 - begin) * scale).astype(np.int64)
    return np.where((places >= 0) & (places < inputs), places, inputs)
