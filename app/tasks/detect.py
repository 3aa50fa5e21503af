"""Find objects in an image: boxes with labels and scores, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import TypedDict

from app.inference.results import USUAL_RESULTS, Answer, Box, Detection, DetectOptions
from app.tasks.base import (
    IDENTITY,
    Control,
    Difference,
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
    from app.tasks.detect_params import DetectParams

# Boxes of one label that overlap at least so much are the same object.
MATCHING_IOU = 0.5
# Of one image with very many objects, so many labels count in the statistics.
MOST_LABELS = 20


class DetectedImage(TypedDict):
    """What was found in one image, best first."""

    width: Side
    height: Side
    detections: list[Detection]


BOX = {"x_min": 767.26, "y_min": 536.26, "x_max": 847.71, "y_max": 675.8}


class Detect(Task):
    """See the module."""

    name = "detect"
    rows = "detections"
    options = DetectOptions
    label_option = "label"
    count_option = "max_results"
    summary = "Find objects in images"
    sentence = "Find objects in one or many images; boxes are pixels of the upright image."
    example: ClassVar = {
        "model": {**IDENTITY, "name": "site-safety-detector"},
        "results": [{"width": 1280, "height": 853, "detections": [{"label": "cone", "score": 0.86402, "box": BOX}]}],
        "request_id": "awCUYJm_o1U9NTrRRxcP7wAAAB4",
    }
    image: ClassVar[type[Any]] = DetectedImage
    row: ClassVar[type[Any]] = Detection
    purpose = gettext_noop("Find objects")
    agreement = gettext_noop("Boxes found again")
    drawing = "boxes"
    controls = (
        Control("score_threshold", gettext_noop("Score threshold"), 0.01, is_slider=True),
        Control(
            "iou_threshold", gettext_noop("Overlap (IoU) that makes one object"), 0.01, is_slider=True, is_folded=True
        ),
        Control("max_results", gettext_noop("Most objects"), is_folded=True),
        Control("min_width", gettext_noop("Least width, px"), is_folded=True),
        Control("min_height", gettext_noop("Least height, px"), is_folded=True),
    )
    rpc_sentence = gettext_noop("Finds objects in images.")
    rpc_option = "score_threshold"
    tensors: ClassVar[Sequence[dict[str, Any]]] = (
        {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
        {"name": "counts", "datatype": "INT32", "shape": [-1]},
    )

    @property
    def params(self) -> type[DetectParams]:
        from app.tasks.detect_params import DetectParams

        return DetectParams

    @property
    def model_class(self) -> type[TaskModel]:
        from app.runtimes.detector import Detector

        return Detector

    def default_options(self, serve: ServeSpec) -> DetectOptions:
        return DetectOptions(
            score_threshold=serve.score_threshold,
            iou_threshold=serve.iou_threshold,
            max_results=serve.max_results,
        )

    def row_from_json(self, row: dict[str, Any]) -> Detection:
        return Detection(row["label"], row["score"], Box(**row["box"]))

    def check(self, row: Detection) -> None:
        check_text(row.label)
        for number in (row.score, row.box.x_min, row.box.y_min, row.box.x_max, row.box.y_max):
            check_number(number)

    def placed(self, answer: Answer, where: Placing) -> Answer:
        return [Detection(row.label, row.score, where.to_original(row.box)) for row in answer]

    def difference(self, answered: Answer, other: Answer) -> Difference:
        free, pairs = list(other), []
        for one in answered:
            overlaps = [(one.box.iou(each.box), at) for at, each in enumerate(free) if each.label == one.label]
            overlap, at = max(overlaps, default=(0.0, 0))
            if overlap >= MATCHING_IOU:
                pairs.append((one, free.pop(at)))
        alone = len(answered) - len(pairs)
        largest = max((abs(first.score - second.score) for first, second in pairs), default=0.0)
        return Difference(not alone and not free, largest, len(pairs), alone, len(free))

    def seen(self, answer: Answer) -> tuple[Sequence[str], float]:
        return [row.label for row in answer[:MOST_LABELS]], answer[0].score if answer else 0.0

    def to_tensors(self, answers: Sequence[Answer]) -> dict[str, np.ndarray]:
        """Image × rank; images with fewer detections are filled up with empty labels and zeros, see ``counts``."""
        from app.tasks import arrays

        return {**arrays.labels_and_scores(answers), "boxes": arrays.boxes(answers), "counts": arrays.counts(answers)}

    def member_params(self, params: DetectParams) -> dict[str, Any]:
        given = params.model_dump(exclude_none=True)
        if params.max_results is not None:
            # Cut off after merging: what a member has behind its best may be what the others saw.
            given["max_results"] = max(params.max_results, USUAL_RESULTS)
        return given

    def merged(self, answers: Sequence[Any], params: DetectParams, method: str, iou_threshold: float) -> Sequence[Any]:
        from app.ensembles import fusion

        merge = fusion.fuse_boxes if method == "fusion" else fusion.suppress_boxes
        return merge(answers, iou_threshold)[: params.max_results]
