"""Find objects in an image. Knows labels, thresholds and boxes, not what computes the candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from app.manifests import Manifest
from app.results import Answer, DetectOptions, Options, to_dict
from app.tasks import answer_from_json
from app.vision import agreement, selection
from app.vision.agreement import Agreement, Detections
from app.vision.model import Images, TaskModel
from app.vision.selection import Candidates

if TYPE_CHECKING:
    from torch import nn

    from app.builds import Candidate

# Low, for average precision looks at the whole curve.
LOWEST_COMPARED_SCORE = 0.05

# uint8 [B, H, W, 3] and the lowest score that anybody asks for, to candidates of each image. It may return more than
# those; it must not suppress overlaps, for each image has its own threshold. Must be safe to call from threads.
DetectorRuntime = Callable[[Images, float], Sequence[Candidates]]


class Detector(TaskModel):
    """A model that gives boxes with labels and scores."""

    def __init__(self, manifest: Manifest, runtime: DetectorRuntime) -> None:
        super().__init__(manifest)
        self._runtime = runtime

    @classmethod
    def load(cls, manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32") -> Detector:
        from app.vision import eager

        return cls(manifest, eager.detector_runtime(manifest, device, eager.form(runtime, precision)))

    @classmethod
    def load_file(cls, manifest: Manifest, candidate: Candidate, path: Path, workers: int) -> Detector:
        if candidate.runtime == "aotinductor":
            from app.vision import aotinductor

            return cls(manifest, aotinductor.detector_runtime(path, workers))
        from app.vision import openvino_runtime

        return cls(manifest, openvino_runtime.detector_runtime(path, candidate.precision, workers))

    @classmethod
    def network_class(cls) -> type[nn.Module]:
        from app.vision import eager

        return eager.DenseDetectorNetwork

    @classmethod
    def is_dense(cls, architecture: str) -> bool:
        """``eager.is_dense`` without torch."""
        return "fcos" in architecture

    def outcome(self, pictures: Sequence[np.ndarray]) -> list[Any]:
        """The detections of every score that counts in each picture."""
        served = self.manifest.serve
        lowest = min(LOWEST_COMPARED_SCORE, served.score_threshold)
        options = DetectOptions(lowest, served.iou_threshold, served.max_results)
        return [[to_dict(one) for one in self.predict([picture], [options])[0]] for picture in pictures]

    @classmethod
    def compared(
        cls, reference: list[Any], other: list[Any], manifest: Manifest, truth: Detections | None
    ) -> Agreement:
        first, second = (
            cast(Detections, [answer_from_json(manifest.task, rows) for rows in each]) for each in (reference, other)
        )
        return agreement.of_detections(first, second, threshold=manifest.serve.score_threshold, truth=truth)

    def candidates(self, images: Images, score_threshold: float) -> Sequence[Candidates]:
        """Candidates of each image before suppression, for images of one shape."""
        return self._runtime(images, score_threshold)

    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        wishes = [wish for wish in options if isinstance(wish, DetectOptions)]
        found = self.candidates(images, min(wish.score_threshold for wish in wishes))
        return [
            selection.select(candidates, self.manifest.labels, wish)
            for candidates, wish in zip(found, wishes, strict=True)
        ]
