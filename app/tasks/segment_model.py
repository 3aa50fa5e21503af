"""The engine's half of ``segment``: torchvision's networks for semantic segmentation, loaded, checked and compared."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import ModelLoadError
from app.inference.results import Answer, Options
from app.models.manifests import InputSpec, Manifest
from app.runtimes.build.agreement import Agreement
from app.runtimes.model import Arrays, Images, Run, TaskModel, run_of_file
from app.tasks.segment import NO_CLASS, ClassMap, SegmentOptions

if TYPE_CHECKING:
    from torch import nn

    from app.inference.images import Picture
    from app.models.builds import Candidate
    from app.runtimes.architectures import Architecture
    from app.runtimes.importing.network_heads import Head
    from app.runtimes.importing.network_wanted import Wanted
    from app.runtimes.importing.published import Published

# As torchvision's presets scale; longer strips than twice as long as wide are scaled down further.
SIDE_PX = 520
# A class with fewer pixels than this share in both masks says nothing.
LEAST_SHARE = 0.001


class Segmenter(TaskModel):
    """A model that gives each pixel a class."""

    can_be_recorded = True
    # torchvision trains with a second head that no prediction reads.
    other_heads = r"aux_classifier\."
    file_side = 512
    file_input_kind = "letterbox"

    def __init__(self, manifest: Manifest, run: Run) -> None:
        super().__init__(manifest)
        self._run = run

    @classmethod
    def load(
        cls, manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32"
    ) -> Segmenter:
        from app.runtimes import torch_runtime

        if len(manifest.labels) > NO_CLASS:
            raise ModelLoadError(
                f"{manifest.key} has {len(manifest.labels)} labels; a mask knows {NO_CLASS}.",
                hint="Leave out the classes that nobody asks for, and their outputs.",
            )
        return cls(manifest, torch_runtime.load(manifest, device, torch_runtime.form(runtime, precision)))

    @classmethod
    def load_file(cls, manifest: Manifest, candidate: Candidate, path: Path, workers: int) -> Segmenter:
        return cls(manifest, run_of_file(candidate, path, workers))

    @classmethod
    def file_head(cls, network: Any, wanted: Wanted, side: int) -> Head:
        from app.runtimes.importing import network_heads

        return network_heads.classes_of_pixels(network, wanted, side)

    @classmethod
    def network_class(cls) -> type[nn.Module]:
        from app.tasks.segment_network import SegmentNetwork

        return SegmentNetwork

    @classmethod
    def architectures(cls, task: str) -> Iterator[Architecture]:
        from app.runtimes.architectures import Architecture
        from app.runtimes.operators import torchvision

        models = torchvision.models
        for name in models.list_models(module=models.segmentation):
            defaults = {"weights": None, "weights_backbone": None}
            yield Architecture(name, task, models.get_model_builder(name), defaults=defaults)

    @classmethod
    def usual_input(cls, architecture: Architecture, known: Published | None) -> InputSpec:
        return (known and known.input) or InputSpec("fit", min_size=SIDE_PX, max_size=2 * SIDE_PX)

    @classmethod
    def published_input(cls, transform: Any) -> InputSpec:
        side = transform.resize_size[0]
        return InputSpec("fit", min_size=side, max_size=2 * side, mean=tuple(transform.mean), std=tuple(transform.std))

    def classes(self, images: Images) -> np.ndarray:
        """The number of each pixel's best class, uint8 [B, H, W], for images of one shape."""
        return self._run(images)[0]

    def stored_answers(self, pictures: Sequence[np.ndarray]) -> Arrays:
        return {f"mask_{number}": self.classes(picture[None])[0] for number, picture in enumerate(pictures)}

    def stored_fault(self, stored: Arrays, now: Arrays, tolerance: float, iou_at_least: float) -> str:
        """The mean IoU of each mask with the stored one is at least ``iou_at_least``."""
        for name, mask in now.items():
            if stored[name].shape != mask.shape:
                return f"a mask of {list(mask.shape)} pixels instead of {list(stored[name].shape)}."
            if (found := mean_iou(stored[name], mask)) < iou_at_least:
                return f"a mask has a mean IoU of {found:.3f} with the stored one; at least {iou_at_least} is needed."
        return ""

    @classmethod
    def truth(cls, row: dict[str, Any], label: Callable[[Any], str]) -> str:
        """The class that takes the most of the picture."""
        return label(row["label"])

    def fault(self, picture: Picture, answer: Answer, truth: str) -> str:
        counts = np.bincount(answer[0].numbers.ravel(), minlength=NO_CLASS + 1)
        best = self.manifest.labels[int(counts[:NO_CLASS].argmax())]
        return "" if best == truth else f"{best} instead of {truth}"

    def outcome(self, pictures: Sequence[np.ndarray]) -> list[Any]:
        masks = [self.classes(picture[None])[0] for picture in pictures]
        return [[list(mask.shape), base64.b64encode(zlib.compress(mask.tobytes())).decode()] for mask in masks]

    @classmethod
    def compared(cls, reference: list[Any], other: list[Any], manifest: Manifest, truth: Any) -> Agreement:
        """``agreement`` is the mean IoU, over the pictures; ``largest_difference`` what the worst one lacks."""
        found = [mean_iou(*(_mask(each) for each in pair)) for pair in zip(reference, other, strict=True)]
        return Agreement(float(np.mean(found)), 1 - min(found))

    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        return [
            [self._wanted(mask, image_options)]
            for mask, image_options in zip(self.classes(images), options, strict=True)
        ]

    def _wanted(self, mask: np.ndarray, image_options: Options) -> ClassMap:
        assert isinstance(image_options, SegmentOptions)
        counts = np.bincount(mask.ravel(), minlength=NO_CLASS + 1)
        order = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
        labels = self.manifest.labels
        kept = [number for number in order if image_options.only_label in ("", labels[number])][
            : image_options.max_classes
        ]
        if len(kept) < len(order):
            mask = np.where(np.isin(mask, kept), mask, np.uint8(NO_CLASS))
        return ClassMap(mask, {number: labels[number] for number in kept})


def mean_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over the classes of two masks of intersection over union, 0 … 1; 1 for masks of no pixels."""
    pairs = np.bincount(first.ravel().astype(np.int64) * (NO_CLASS + 1) + second.ravel(), minlength=(NO_CLASS + 1) ** 2)
    table = pairs.reshape(NO_CLASS + 1, NO_CLASS + 1)
    shared, unions = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    counted = unions > LEAST_SHARE * first.size
    return float((shared[counted] / unions[counted]).mean()) if counted.any() else 1.0


def _mask(outcome: Any) -> np.ndarray:
    shape, data = outcome
    return np.frombuffer(zlib.decompress(base64.b64decode(data)), np.uint8).reshape(shape)
