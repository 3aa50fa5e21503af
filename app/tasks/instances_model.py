"""The engine's half of ``instances``: detectors that also give each object a mask, loaded, checked and compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.inference.mask_patches import Patch
from app.inference.results import Answer, Box, Detection, DetectOptions, Options, to_dict
from app.models.manifests import InputSpec, Manifest
from app.runtimes import selection
from app.runtimes.build import agreement
from app.runtimes.build.agreement import Agreement, Detections
from app.runtimes.detector import Detector
from app.runtimes.mask_heads import FindInstances
from app.runtimes.model import Arrays, Images, run_of_file
from app.tasks.detect import Detect
from app.tasks.instances import FoundInstance, Instance, Instances, by_mask

if TYPE_CHECKING:
    from torch import nn

    from app.models.builds import Candidate
    from app.runtimes.architectures import Architecture
    from app.runtimes.importing.network_heads import Head
    from app.runtimes.importing.network_wanted import Wanted

NAMES = ("maskrcnn",)
# Cells a side in which golden files keep a mask, over its box.
STORED_CELLS = 28


class InstanceDetector(Detector):
    """A model that gives boxes with labels, scores and masks."""

    other_heads = ""

    def __init__(self, manifest: Manifest, find: FindInstances) -> None:
        super().__init__(manifest, lambda images, lowest: [each.candidates for each in find(images, lowest)])
        self._find = find

    @classmethod
    def load(
        cls, manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32"
    ) -> InstanceDetector:
        from app.tasks import instances_network

        return cls(manifest, instances_network.load(manifest, device))

    @classmethod
    def load_file(cls, manifest: Manifest, candidate: Candidate, path: Path, workers: int) -> InstanceDetector:
        from app.runtimes import mask_heads

        return cls(manifest, mask_heads.runtime(run_of_file(candidate, path, workers), manifest))

    @classmethod
    def file_head(cls, network: Any, wanted: Wanted, side: int) -> Head:
        from app.runtimes.importing import detection_outputs

        return detection_outputs.find_with_masks(network, wanted)

    @classmethod
    def is_dense(cls, architecture: str) -> bool:
        return False

    @classmethod
    def architectures(cls, task: str) -> Iterator[Architecture]:
        """Those of ``detect`` that have masks; asked for boxes they answer boxes."""
        for each in Detector.architectures(task):
            if each.name.startswith(NAMES):
                yield replace(each, other_tasks=(Detect.name,))

    @classmethod
    def prepare(cls, network: nn.Module, spec: InputSpec) -> None:
        from app.runtimes import opened

        opened.open_up(network, spec, keeps_masks=True)

    def more_stored(self, rows: Sequence[Any]) -> Arrays:
        masks = [_cells(row) for row in rows]
        return {"masks": np.stack(masks) if masks else np.zeros((0, STORED_CELLS, STORED_CELLS), np.uint8)}

    def stored_fault(self, stored: Arrays, now: Arrays, tolerance: float, iou_at_least: float) -> str:
        """As for boxes; and the mask of each stored object has an IoU of at least ``iou_at_least`` with one found."""
        return super().stored_fault(stored, now, tolerance, iou_at_least) or _masks_fault(stored, now, iou_at_least)

    def outcome(self, pictures: Sequence[np.ndarray]) -> list[Any]:
        return [[_in_input(row, *picture.shape[:2]) for row in self._compared(picture)] for picture in pictures]

    @classmethod
    def compared(
        cls, reference: list[Any], other: list[Any], manifest: Manifest, truth: Detections | None
    ) -> Agreement:
        """As for boxes; an object counts as found again where its mask has half of the union with the reference's."""
        read = Instances().answer_from_json
        pair: list[list[Sequence[Instance]]] = [[read(rows) for rows in each] for each in (reference, other)]
        threshold = manifest.serve.score_threshold
        boxes = agreement.of_detections(pair[0], pair[1], threshold=threshold, truth=truth)
        masks = [[by_mask(rows) for rows in each] for each in pair]
        found = agreement.of_detections(masks[0], masks[1], threshold=threshold)
        return replace(boxes, agreement=found.agreement)

    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        params = [each for each in options if isinstance(each, DetectOptions)]
        found = self._find(images, min(each.score_threshold for each in params))
        return [self._chosen(*pair) for pair in zip(found, params, strict=True)]

    def _chosen(self, found: Any, options: DetectOptions) -> Answer:
        kept = selection.chosen(found.candidates, self.manifest.labels, options)
        rows = selection.detections(found.candidates, kept, self.manifest.labels)
        return [
            FoundInstance(row.label, row.score, row.box, patch)
            for row, patch in zip(rows, found.patches(kept), strict=True)
        ]


def _in_input(row: FoundInstance, height: int, width: int) -> dict[str, Any]:
    """One object as JSON types, its mask in pixels of the input."""
    return {**to_dict(Detection(row.label, row.score, row.box)), "mask": row.patch.to_rle(width, height)}


def _cells(row: FoundInstance) -> np.ndarray:
    """The mask over its own box, uint8 [STORED_CELLS, STORED_CELLS]."""
    from app.inference import rle

    area, box = row.patch.area, row.box
    scale_x, scale_y = (STORED_CELLS / max(each, 1e-6) for each in (box.x_max - box.x_min, box.y_max - box.y_min))
    moved = Box(
        (area.x_min - box.x_min) * scale_x,
        (area.y_min - box.y_min) * scale_y,
        (area.x_max - box.x_min) * scale_x,
        (area.y_max - box.y_min) * scale_y,
    )
    mask = Patch(row.patch.shares, moved, Box(0, 0, STORED_CELLS, STORED_CELLS)).to_rle(STORED_CELLS, STORED_CELLS)
    cells = np.zeros(STORED_CELLS**2, np.uint8)
    cells[rle.pixels(mask)] = 1
    return cells.reshape(STORED_CELLS, STORED_CELLS)


def _masks_fault(stored: Arrays, now: Arrays, iou_at_least: float) -> str:
    for number, mask in enumerate(stored["masks"]):
        same = (now["belongs_to"] == stored["belongs_to"][number]) & (now["classes"] == stored["classes"][number])
        overlaps = [_iou(mask, other) for other in now["masks"][same]]
        # Near the lowest score an object may be in one list alone, which the boxes allow.
        if overlaps and max(overlaps) < iou_at_least:
            found = max(overlaps)
            return f"a mask has an IoU of {found:.3f} with the stored one; at least {iou_at_least} is needed."
    return ""


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0
