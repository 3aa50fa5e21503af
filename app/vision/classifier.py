"""Name what is in an image. Knows labels and probabilities, not what computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from app.manifests import Manifest
from app.results import Answer, ClassifyOptions, Options, Prediction
from app.vision.model import Images, Model

# uint8 [B, H, W, 3] to probabilities, float32 [B, labels]; each row sums to 1. Must be safe to call from threads.
ClassifierRuntime = Callable[[Images], np.ndarray]


class Classifier(Model):
    """A model that gives every label a probability."""

    def __init__(self, manifest: Manifest, runtime: ClassifierRuntime) -> None:
        super().__init__(manifest)
        self._runtime = runtime

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


def load(manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32") -> Classifier:
    """Build the network, check and load its weights; ``runtime`` is one of torch's forms. Raises ModelLoadError."""
    from app.vision import eager

    return Classifier(manifest, eager.classifier_runtime(manifest, device, eager.form(runtime, precision)))
