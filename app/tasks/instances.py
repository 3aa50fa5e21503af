"""Find objects and the pixels of each (instance segmentation): boxes with labels and scores, and a mask for each."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typing_extensions import TypedDict

from app.inference import rle
from app.inference.mask_patches import Patch
from app.inference.results import Answer, Box, Detection, rounded, to_dict
from app.inference.rle import Rle
from app.tasks.base import IDENTITY, NOTED_ROWS, Difference, Keywords, Placing, Side, check_text
from app.tasks.detect import Detect
from app.tasks.segment import DATA, NO_CLASS, png
from app.texts import gettext_noop

if TYPE_CHECKING:
    import numpy as np

    from app.runtimes.model import TaskModel

# COCO's example of a mask: 8 × 8 pixels, of which the left half is of the object.
EXAMPLE_RLE = "0P1P1"
Map = Annotated[
    str | None,
    Keywords(
        description="All masks as one PNG with a palette, as large as the image, as a `data:` address: the number of "
        "the best instance of each pixel, from 0 in the order of the list; 255 is none. Null where there is none."
    ),
]


@dataclass(frozen=True, slots=True)
class Instance(Detection):
    """One object: its box, and its pixels in the upright image as COCO's run-length encoding."""

    mask: Rle


@dataclass(frozen=True, slots=True)
class FoundInstance(Detection):
    """The engine's answer: ``patch`` is the mask as the network gives it, in pixels of the input."""

    patch: Patch


class InstancesImage(TypedDict):
    """One image: its objects, best first, and all masks in one picture."""

    width: Side
    height: Side
    instances: list[Instance]
    mask: Map


class Overlap:
    """In the place of a box where two objects are compared: their masks count."""

    def __init__(self, row: Instance) -> None:
        self.box, self.mask = row.box, row.mask

    def iou(self, other: Overlap) -> float:
        """Intersection over union of the masks; 0 where the boxes are apart."""
        return rle.iou(self.mask, other.mask) if self.box.iou(other.box) > 0 else 0.0


def by_mask(rows: Sequence[Any]) -> list[Detection]:
    """Objects that are compared by the overlap of their masks."""
    return [Detection(row.label, row.score, Overlap(row)) for row in rows]  # type: ignore[arg-type]


class Instances(Detect):
    """See the module. Options, thresholds and boxes are those of ``detect``."""

    name = "instances"
    rows = "instances"
    summary = "Find objects and their pixels in images"
    sentence = (
        "Find objects in one or many images, with a mask for each: COCO's run-length encoding of the upright image's "
        "pixels."
    )
    example: ClassVar = {
        "model": {**IDENTITY, "name": "parts-masks"},
        "results": [
            {
                "width": 8,
                "height": 8,
                "instances": [
                    {
                        "label": "bolt",
                        "score": 0.86402,
                        "box": {"x_min": 0.0, "y_min": 0.0, "x_max": 4.0, "y_max": 8.0},
                        "mask": {"size": [8, 8], "counts": EXAMPLE_RLE},
                    }
                ],
                "mask": f"{DATA}iVBORw0KGgoAAAANSUhEUgAAAAgAAAAI…",
            }
        ],
        "request_id": "awCUYJm_o1U9NTrRRxcP7wAAAB4",
    }
    image = InstancesImage
    row = Instance
    beside: ClassVar = {"mask": Map}
    rpc_sentence = gettext_noop("Finds objects and their pixels in images.")
    is_merged = False
    purpose = gettext_noop("Outline objects")
    agreement = gettext_noop("Masks found again")
    tensors = (*Detect.tensors, {"name": "masks", "datatype": "BYTES", "shape": [-1, -1]})

    @property
    def model_class(self) -> type[TaskModel]:
        from app.tasks.instances_model import InstanceDetector

        return InstanceDetector

    def row_from_json(self, row: dict[str, Any]) -> Instance:
        mask = row["mask"]
        return Instance(row["label"], row["score"], Box(**row["box"]), Rle(size=mask["size"], counts=mask["counts"]))

    def check(self, row: Any) -> None:
        super().check(row)
        check_text(row.mask["counts"])
        try:
            rle.edges(row.mask)
        except ValueError as error:
            raise TypeError(str(error)) from None

    def placed(self, answer: Answer, where: Placing) -> Answer:
        return [row if isinstance(row, Instance) else _placed(row, where) for row in answer]

    def result(self, answer: Answer) -> dict[str, Any]:
        return {self.rows: [rounded(row) for row in answer], "mask": self.overlay(answer) or None}

    def overlay(self, answer: Answer) -> str:
        """The number of each pixel's best instance, as a PNG."""
        import numpy as np

        if not answer:
            return ""
        height, width = answer[0].mask["size"]
        numbers = np.full(height * width, NO_CLASS, np.uint8)
        for number in range(min(len(answer), NO_CLASS) - 1, -1, -1):
            numbers[rle.pixels(answer[number].mask)] = number
        map_of_all = np.ascontiguousarray(numbers.reshape(width, height).T)
        content = png(map_of_all, np.arange(height), np.arange(width), first=1)
        return f"{DATA}{base64.b64encode(content).decode('ascii')}"

    def to_wire(self, answer: Answer) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray | bytes]]:
        import numpy as np

        rows = [
            {**to_dict(Detection(row.label, row.score, row.box)), "sides": row.patch.shares.shape, "area": _sides(row)}
            for row in answer
        ]
        flat = [row.patch.shares.ravel() for row in answer]
        return rows, {"shares": np.concatenate(flat) if flat else np.zeros(0, np.uint8)}

    def from_wire(self, rows: Sequence[dict[str, Any]], arrays: Mapping[str, Any]) -> Answer:
        found, begin = [], 0
        for row in rows:
            height, width = row["sides"]
            shares = arrays["shares"][begin : begin + height * width].reshape(height, width)
            box, begin = Box(**row["box"]), begin + height * width
            found.append(FoundInstance(row["label"], row["score"], box, Patch(shares, Box(*row["area"]), box)))
        return found

    def difference(self, answered: Answer, other: Answer) -> Difference:
        """As for boxes; the same object is where the masks overlap."""
        return super().difference(by_mask(answered), by_mask(other))

    def noted(self, answer: Answer) -> list[dict[str, Any]]:
        return [
            {**to_dict(Detection(row.label, round(row.score, 5), row.box)), "pixels": rle.area(row.mask)}
            for row in answer[:NOTED_ROWS]
        ]

    def to_tensors(self, answers: Sequence[Answer]) -> dict[str, np.ndarray]:
        """As for boxes, and the counts of each mask's encoding; its size is that of the image."""
        import numpy as np

        found = super().to_tensors(answers)
        masks = np.full(found["labels"].shape, "", object)
        for image, answer in enumerate(answers):
            for rank, row in enumerate(answer):
                masks[image, rank] = row.mask["counts"]
        return {**found, "masks": masks}


def _sides(row: FoundInstance) -> list[float]:
    area = row.patch.area
    return [area.x_min, area.y_min, area.x_max, area.y_max]


def _placed(row: FoundInstance, where: Placing) -> Instance:
    box = where.to_original(row.box)
    patch = row.patch.moved(_unbounded(row.patch.area, where), box)
    return Instance(row.label, row.score, box, patch.to_rle(where.width, where.height))


def _unbounded(area: Box, where: Placing) -> Box:
    """As ``Placing.to_original``, and not cut at the edges of the image: the cells keep their places."""
    return Box(
        area.x_min / where.scale_x + where.left,
        area.y_min / where.scale_y + where.top,
        area.x_max / where.scale_x + where.left,
        area.y_max / where.scale_y + where.top,
    )
