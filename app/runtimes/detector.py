"""Find objects in an image. Knows labels, thresholds and boxes, not what computes the candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from app.inference import images
from app.inference.results import Answer, Box, Detection, DetectOptions, Options, to_dict
from app.models.manifests import InputSpec, Manifest
from app.runtimes import selection
from app.runtimes.build import agreement
from app.runtimes.build.agreement import Agreement, Detections
from app.runtimes.model import Arrays, Images, Run, TaskModel, run_of_file
from app.runtimes.selection import Candidates
from app.tasks import answer_from_json

if TYPE_CHECKING:
    from torch import nn

    from app.inference.images import Picture
    from app.models.builds import Candidate
    from app.runtimes.architectures import Architecture
    from app.runtimes.importing.network_heads import Head
    from app.runtimes.importing.network_wanted import Wanted
    from app.runtimes.importing.published import Published

# Low, for average precision looks at the whole curve.
LOWEST_COMPARED_SCORE = 0.05
# Below this score, which of many near-equal boxes survives is chance and differs between processors.
LOWEST_STORED_SCORE = 0.05
MAX_STORED = 20
# A box at the place of an object is that object.
SAME_PLACE_IOU = 0.5
# Of an object, so much must lie within what the model sees of the picture, or nobody expects it to be found.
LEAST_VISIBLE = 0.5
# Their labels count from 1 and 0 is the background; FCOS and RetinaNet count from 0.
WITH_BACKGROUND = ("fasterrcnn", "maskrcnn", "keypointrcnn", "ssd")

# uint8 [B, H, W, 3] and the lowest score that anybody asks for, to candidates of each image. It may return more than
# those; it must not suppress overlaps, for each image has its own threshold. Must be safe to call from threads.
DetectorRuntime = Callable[[Images, float], Sequence[Candidates]]


class Detector(TaskModel):
    """A model that gives boxes with labels and scores."""

    # Heads for masks and keypoints; they are not loaded.
    other_heads = r"roi_heads\.(mask|keypoint)_"
    file_side = 640
    file_input_kind = "letterbox"
    is_file_of_imagenet = False

    def __init__(self, manifest: Manifest, runtime: DetectorRuntime) -> None:
        super().__init__(manifest)
        self._runtime = runtime

    @classmethod
    def load(cls, manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32") -> Detector:
        from app.runtimes import torch_runtime

        if not cls.is_dense(manifest.architecture):
            return cls(manifest, torch_runtime.load_listing(manifest, device))
        return cls(manifest, dense(torch_runtime.load(manifest, device, torch_runtime.form(runtime, precision))))

    @classmethod
    def load_file(cls, manifest: Manifest, candidate: Candidate, path: Path, workers: int) -> Detector:
        run = run_of_file(candidate, path, workers)
        if manifest.is_network:
            from app.runtimes import detection_heads

            return cls(manifest, detection_heads.runtime(run, manifest))
        return cls(manifest, dense(run))

    @classmethod
    def file_head(cls, network: Any, wanted: Wanted, side: int) -> Head:
        from app.runtimes.importing import detection_outputs

        return detection_outputs.find(network, wanted)

    @classmethod
    def network_class(cls) -> type[nn.Module]:
        from app.runtimes import torch_runtime

        return torch_runtime.DenseDetectorNetwork

    @classmethod
    def is_dense(cls, architecture: str) -> bool:
        """Whether it is built of the parts of torchvision's FCOS or SSD."""
        return "fcos" in architecture or architecture.startswith("ssd")

    @classmethod
    def architectures(cls, task: str) -> Iterator[Architecture]:
        from app.runtimes import demo_networks
        from app.runtimes.architectures import Architecture
        from app.runtimes.operators import torchvision

        models = torchvision.models
        # The builders' default is to download a backbone.
        defaults = {"weights": None, "weights_backbone": None}
        for name in models.list_models(module=models.detection):
            builder, has_background = models.get_model_builder(name), name.startswith(WITH_BACKGROUND)
            yield Architecture(name, task, builder, has_background=has_background, defaults=defaults)
        for name, own in demo_networks.DETECTORS.items():
            yield Architecture(name, task, own, is_own=True)

    @classmethod
    def usual_input(cls, architecture: Architecture, known: Published | None) -> InputSpec:
        if architecture.is_own:
            return InputSpec("letterbox", size=320)
        # torchvision's detectors carry their scaling and their mean and std inside; ask one of them.
        transform: Any = architecture.builder(weights=None, weights_backbone=None).transform
        mean, std = tuple(transform.image_mean), tuple(transform.image_std)
        if transform.fixed_size:
            return InputSpec("letterbox", size=transform.fixed_size[0], mean=mean, std=std)
        return InputSpec("fit", min_size=transform.min_size[-1], max_size=transform.max_size, mean=mean, std=std)

    @classmethod
    def prepare(cls, network: nn.Module, spec: InputSpec) -> None:
        """It normalises as the manifest says, scales nothing, and applies no threshold; that is done outside."""
        from app.runtimes import opened

        opened.open_up(network, spec)

    def stored_answers(self, pictures: Sequence[np.ndarray]) -> Arrays:
        options = DetectOptions(score_threshold=0.0, max_results=MAX_STORED)
        found = [self.predict([picture], [options])[0] for picture in pictures]
        best = [max((one.score for one in each), default=0.0) for each in found]
        # With random weights all scores are nearly equal, and which box survives is chance.
        is_kept = not self.manifest.random_weights
        strong = [
            (i, one) for i, each in enumerate(found) for one in each if is_kept and one.score >= LOWEST_STORED_SCORE
        ]
        corners = [(one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max) for _, one in strong]
        return {
            "best_scores": np.array(best, dtype=np.float32),
            "belongs_to": np.array([i for i, _ in strong], dtype=np.int64),
            "boxes": np.array(corners, dtype=np.float32).reshape(-1, 4),
            "scores": np.array([one.score for _, one in strong], dtype=np.float32),
            "classes": np.array([self.manifest.labels.index(one.label) for _, one in strong], dtype=np.int64),
            **self.more_stored([one for _, one in strong]),
        }

    def more_stored(self, rows: Sequence[Any]) -> Arrays:
        """What a golden file keeps of these rows besides."""
        return {}

    def stored_fault(self, stored: Arrays, now: Arrays, tolerance: float, iou_at_least: float) -> str:
        """The best score is within the tolerance, and each stored box is found with its label, a score within the
        tolerance and an IoU of at least ``iou_at_least``; nor are there others. Random weights: the best score only.
        """
        from app.runtimes.checks import golden_answers

        fault = golden_answers.scores_fault(stored["best_scores"], now["best_scores"], "best_scores", tolerance)
        return fault or _boxes_fault(stored, now, tolerance, iou_at_least)

    @classmethod
    def truth(cls, row: dict[str, Any], label: Callable[[Any], str]) -> list[Detection]:
        return [Detection(label(each["label"]), 1.0, Box(**each["box"])) for each in row["objects"]]

    def fault(self, picture: Picture, answer: Answer, truth: Sequence[Detection]) -> str:
        found = [Detection(each.label, each.score, picture.to_original(each.box)) for each in answer]
        return _objects_fault(_visible(truth, self.manifest, picture), found)

    def outcome(self, pictures: Sequence[np.ndarray]) -> list[Any]:
        """The detections of every score that counts in each picture."""
        return [[to_dict(one) for one in self._compared(picture)] for picture in pictures]

    def _compared(self, picture: np.ndarray) -> Answer:
        served = self.manifest.serve
        lowest = min(LOWEST_COMPARED_SCORE, served.score_threshold)
        return self.predict([picture], [DetectOptions(lowest, served.iou_threshold, served.max_results)])[0]

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
        params = [image_options for image_options in options if isinstance(image_options, DetectOptions)]
        found = self.candidates(images, min(image_options.score_threshold for image_options in params))
        return [
            selection.select(candidates, self.manifest.labels, image_options)
            for candidates, image_options in zip(found, params, strict=True)
        ]


def dense(run: Run) -> DetectorRuntime:
    """Candidates of a network that scores every label at every place: boxes [B, A, 4] and scores [B, A, labels]."""

    def candidates(images: Images, score_threshold: float) -> Sequence[Candidates]:
        boxes, scores = run(images)
        return [selection.flatten(b, s, score_threshold) for b, s in zip(boxes, scores, strict=True)]

    return candidates


def _boxes_fault(stored: Arrays, now: Arrays, tolerance: float, iou_at_least: float) -> str:
    for first, second, what in ((stored, now, "is not found any more"), (now, stored, "was not there before")):
        # Near the lowest score, and where the list was cut, a box may be in one list alone.
        is_cut = np.bincount(second["belongs_to"], minlength=1).max() >= MAX_STORED
        surely = tolerance + (second["scores"].min() if is_cut else LOWEST_STORED_SCORE)
        for i in np.flatnonzero(first["scores"] >= surely):
            if not _is_among(first, int(i), second, tolerance, iou_at_least):
                return f"an object of class {first['classes'][i]} with score {first['scores'][i]:.3f} {what}."
    return ""


def _is_among(first: Arrays, i: int, second: Arrays, tolerance: float, iou_at_least: float) -> bool:
    for j in range(len(second["scores"])):
        is_same = first["belongs_to"][i] == second["belongs_to"][j] and first["classes"][i] == second["classes"][j]
        is_near = abs(float(first["scores"][i] - second["scores"][j])) <= tolerance
        if is_same and is_near and Box(*first["boxes"][i]).iou(Box(*second["boxes"][j])) >= iou_at_least:
            return True
    return False


def _objects_fault(objects: Sequence[Detection], found: Sequence[Detection]) -> str:
    """Right is where most objects are found at their places, and most boxes are objects."""
    hits = sum(any(_is_same(one, each) for each in found) for one in objects)
    false = sum(not any(_is_same(one, each) for one in objects) for each in found)
    if hits * 2 < len(objects) or (objects and not hits):
        return f"{hits} of {len(objects)} objects found"
    return f"{false} of {len(found)} boxes are no objects" if false * 2 > len(found) else ""


def _is_same(one: Detection, other: Detection) -> bool:
    return one.label == other.label and one.box.iou(other.box) >= SAME_PLACE_IOU


def _visible(objects: Sequence[Detection], manifest: Manifest, picture: images.Picture) -> list[Detection]:
    """The objects that the input shows, cut at its edges."""
    seen = images.seen(manifest.input, picture.width, picture.height)
    cut = [(one, _shared(one.box, seen)) for one in objects]
    return [
        Detection(one.label, one.score, box) for one, box in cut if _area(box) >= LEAST_VISIBLE * max(_area(one.box), 1)
    ]


def _shared(box: Box, other: Box) -> Box:
    return Box(
        max(box.x_min, other.x_min),
        max(box.y_min, other.y_min),
        min(box.x_max, other.x_max),
        min(box.y_max, other.y_max),
    )


def _area(box: Box) -> float:
    return max(0.0, box.x_max - box.x_min) * max(0.0, box.y_max - box.y_min)
