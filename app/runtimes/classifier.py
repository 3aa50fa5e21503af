"""Name what is in an image. Knows labels and probabilities, not what computes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import ExplanationUnsupportedError
from app.inference.results import Answer, ClassifyOptions, ExplainOptions, Explanation, Options, Prediction
from app.models.manifests import InputSpec, Manifest
from app.runtimes.build import agreement
from app.runtimes.build.agreement import Agreement, Detections
from app.runtimes.model import Arrays, Images, Run, TaskModel, run_of_file

if TYPE_CHECKING:
    from torch import nn

    from app.inference.images import Picture
    from app.models.builds import Candidate
    from app.runtimes.architectures import Architecture
    from app.runtimes.importing.network_heads import Head
    from app.runtimes.importing.network_wanted import Wanted
    from app.runtimes.importing.published import Published

# A share in a score is worth so many digits.
SHARE_DIGITS = 4

# uint8 [H, W, 3] and the place of a label, the best one's when None, to that place, its probability and the map of what
# spoke for it, float32 [h, w]. Must be safe to call from threads.
Explainer = Callable[[np.ndarray, int | None], tuple[int, float, np.ndarray]]


@dataclass(frozen=True)
class Explaining:
    """How a classifier is explained: the method's name, and what makes it ready the first time somebody asks."""

    method: str
    make: Callable[[], Explainer]


class Classifier(TaskModel):
    """A model that gives every label a probability."""

    can_be_recorded = True
    is_one_row = True
    is_compared_with_torchvision = True

    def __init__(self, manifest: Manifest, run: Run, explaining: Explaining | None = None) -> None:
        """``run`` has one output, probabilities, float32 [B, labels]; each row sums to 1."""
        super().__init__(manifest)
        self._run = run
        self._explaining = explaining
        self._explainer: Explainer | None = None
        self._explainer_lock = threading.Lock()

    @classmethod
    def load(
        cls, manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32"
    ) -> Classifier:
        from app.runtimes import grad_cam, torch_runtime

        run = torch_runtime.load(manifest, device, torch_runtime.form(runtime, precision))
        return cls(manifest, run, Explaining(grad_cam.METHOD, partial(grad_cam.explainer, manifest)))

    @classmethod
    def load_file(cls, manifest: Manifest, candidate: Candidate, path: Path, workers: int) -> Classifier:
        from app.runtimes import cam

        can_explain = candidate.runtime == "openvino"
        explaining = Explaining(cam.METHOD, partial(cam.explainer, path)) if can_explain else None
        return cls(manifest, run_of_file(candidate, path, workers), explaining)

    @classmethod
    def file_head(cls, network: Any, wanted: Wanted, side: int) -> Head:
        from app.runtimes.importing import network_heads

        return network_heads.scores(network, wanted)

    @classmethod
    def network_class(cls) -> type[nn.Module]:
        from app.runtimes import torch_runtime

        return torch_runtime.ClassifierNetwork

    @classmethod
    def architectures(cls, task: str) -> Iterator[Architecture]:
        from app.runtimes import demo_networks
        from app.runtimes.architectures import Architecture
        from app.runtimes.operators import torchvision

        models = torchvision.models
        for name in models.list_models(module=models):
            defaults: dict[str, Any] = {"weights": None}
            if name in ("googlenet", "inception_v3"):
                # Minutes of truncated normal values that loading overwrites at once.
                defaults["init_weights"] = False
            yield Architecture(name, task, models.get_model_builder(name), defaults=defaults)
        for name, own in demo_networks.CLASSIFIERS.items():
            yield Architecture(name, task, own, is_own=True)

    @classmethod
    def usual_input(cls, architecture: Architecture, known: Published | None) -> InputSpec:
        if architecture.is_own:
            return InputSpec("crop", size=128, resize_size=128)
        return (known and known.input) or InputSpec("crop", size=224, resize_size=256)

    @classmethod
    def published_input(cls, transform: Any) -> InputSpec:
        return InputSpec(
            kind="crop",
            size=transform.crop_size[0],
            resize_size=transform.resize_size[0],
            mean=tuple(transform.mean),
            std=tuple(transform.std),
        )

    def stored_answers(self, pictures: Sequence[np.ndarray]) -> Arrays:
        return {"probabilities": np.concatenate([self.probabilities(picture[None]) for picture in pictures])}

    def stored_fault(self, stored: Arrays, now: Arrays, tolerance: float, iou_at_least: float) -> str:
        """Every probability is within the tolerance."""
        from app.runtimes.checks import golden_answers

        return golden_answers.scores_fault(stored["probabilities"], now["probabilities"], "probabilities", tolerance)

    @classmethod
    def truth(cls, row: dict[str, Any], label: Callable[[Any], str]) -> str:
        return label(row["label"])

    def fault(self, picture: Picture, answer: Answer, truth: str) -> str:
        best = answer[0].label if answer else "nothing"
        return "" if best == truth else f"{best} instead of {truth}"

    def outcome(self, pictures: Sequence[np.ndarray]) -> list[Any]:
        """The probabilities of each picture."""
        rows = (self.probabilities(picture[None])[0] for picture in pictures)
        return [[round(float(share), 7) for share in row] for row in rows]

    @classmethod
    def compared(
        cls, reference: list[Any], other: list[Any], manifest: Manifest, truth: Detections | None
    ) -> Agreement:
        return agreement.of_probabilities(np.array(reference), np.array(other))

    def explain(self, image: np.ndarray, options: ExplainOptions) -> Explanation:
        """Where the model looked. What it takes is made when the first one asks, and kept."""
        if self._explaining is None:
            raise ExplanationUnsupportedError(
                f"{self.manifest.key} is computed by {self.computed_by}, which cannot be explained.",
                hint="Leave explain out, or ask the operator of this service for a model that can be explained.",
            )
        with self._explainer_lock:
            if self._explainer is None:
                self._explainer = self._explaining.make()
        requested = self.manifest.labels.index(options.label) if options.label else None
        place, score, found = self._explainer(image, requested)
        return Explanation(self.manifest.labels[place], score, self._explaining.method, _shares(found))

    def probabilities(self, images: Images) -> np.ndarray:
        """Probability of each label, float32 [B, labels], for images of one shape."""
        return self._run(images)[0]

    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        rows = self.probabilities(images)
        return [self._best(row, image_options) for row, image_options in zip(rows, options, strict=True)]

    def _best(self, row: np.ndarray, options: Options) -> list[Prediction]:
        assert isinstance(options, ClassifyOptions)
        order = np.argsort(-row, kind="stable")[: max(0, options.top_k)]
        return [Prediction(self.manifest.labels[i], float(row[i])) for i in order]


def _shares(found: np.ndarray) -> list[list[float]]:
    """What spoke for the label, as shares of the most; what spoke against it is 0."""
    positive = np.maximum(found, 0)
    most = float(positive.max(initial=0))
    shares = positive / most if most > 0 and np.isfinite(most) else np.zeros_like(positive)
    return [[round(float(value), SHARE_DIGITS) for value in row] for row in shares]
