"""Name what is in an image. Knows labels and probabilities, not what computes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from app.errors import ExplanationUnsupportedError
from app.manifests import Manifest
from app.results import Answer, ClassifyOptions, ExplainOptions, Explanation, Options, Prediction
from app.vision.model import Images, Model

# A share in a score is worth so many digits.
SHARE_DIGITS = 4

# uint8 [B, H, W, 3] to probabilities, float32 [B, labels]; each row sums to 1. Must be safe to call from threads.
ClassifierRuntime = Callable[[Images], np.ndarray]


# uint8 [H, W, 3] and the place of a label, the best one's when None, to that place, its probability and the map of what
# spoke for it, float32 [h, w]. Must be safe to call from threads.
Explainer = Callable[[np.ndarray, int | None], tuple[int, float, np.ndarray]]


@dataclass(frozen=True)
class Explaining:
    """How a classifier is explained: the method's name, and what makes it ready the first time somebody asks."""

    method: str
    make: Callable[[], Explainer]


class Classifier(Model):
    """A model that gives every label a probability."""

    def __init__(self, manifest: Manifest, runtime: ClassifierRuntime, explaining: Explaining | None = None) -> None:
        super().__init__(manifest)
        self._runtime = runtime
        self._explaining = explaining
        self._explainer: Explainer | None = None
        self._explainer_lock = threading.Lock()

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
        wished = self.manifest.labels.index(options.label) if options.label else None
        place, score, found = self._explainer(image, wished)
        return Explanation(self.manifest.labels[place], score, self._explaining.method, _shares(found))

    def probabilities(self, images: Images) -> np.ndarray:
        """Probability of each label, float32 [B, labels], for images of one shape."""
        return self._runtime(images)

    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        rows = self.probabilities(images)
        return [self._best(row, wish) for row, wish in zip(rows, options, strict=True)]

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


def load(manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32") -> Classifier:
    """Build the network, check and load its weights; ``runtime`` is one of torch's forms. Raises ModelLoadError."""
    from app.vision import eager, grad_cam

    computed = eager.classifier_runtime(manifest, device, eager.form(runtime, precision))
    return Classifier(manifest, computed, Explaining(grad_cam.METHOD, partial(grad_cam.explainer, manifest)))
