"""Find objects in an image. Knows labels, thresholds and boxes, not what computes the candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.manifests import Manifest
from app.results import Answer, DetectOptions, Options
from app.vision import selection
from app.vision.model import Images, Model
from app.vision.selection import Candidates

# uint8 [B, H, W, 3] and the lowest score that anybody asks for, to candidates of each image. It may return more than
# those; it must not suppress overlaps, for each image has its own threshold. Must be safe to call from threads.
DetectorRuntime = Callable[[Images, float], Sequence[Candidates]]


class Detector(Model):
    """A model that gives boxes with labels and scores."""

    def __init__(self, manifest: Manifest, runtime: DetectorRuntime) -> None:
        super().__init__(manifest)
        self._runtime = runtime

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


def load(manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32") -> Detector:
    """Build the network, check and load its weights; ``runtime`` is one of torch's forms. Raises ModelLoadError."""
    from app.vision import eager

    return Detector(manifest, eager.detector_runtime(manifest, device, eager.form(runtime, precision)))
