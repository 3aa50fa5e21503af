"""From a manifest to a model that predicts: the door of this package. Loads torch only once a model is loaded."""

from __future__ import annotations

from collections.abc import Callable

from app.manifests import Manifest
from app.vision import classifier, detector
from app.vision.model import Model

__all__ = ["Model", "load_model"]

_LOAD: dict[str, Callable[[Manifest, str], Model]] = {"classify": classifier.load, "detect": detector.load}


def load_model(manifest: Manifest, device: str = "cpu") -> Model:
    """Build the model's network and load its weights; not warmed up and not checked yet.

    Raises ModelLoadError when the architecture is unknown, or the weights are missing, altered or do not fit.
    """
    return _LOAD[manifest.task](manifest, device)
