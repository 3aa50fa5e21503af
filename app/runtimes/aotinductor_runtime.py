"""A third runtime: AOTInductor packages, machine code that torch made ahead of time. Loading needs no compiler.

``torch._C._aoti`` is what torch's own ``aoti_load_package`` calls; that one would import the compiler's side too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from app.errors import ModelLoadError
from app.runtimes import selection
from app.runtimes.classifier import ClassifierRuntime
from app.runtimes.detector import DetectorRuntime
from app.runtimes.model import Images
from app.runtimes.selection import Candidates

# The only network in a package; torch's name for it when none was given.
NETWORK_NAME = "model"
Run = Callable[[Images], list[np.ndarray]]


def classifier_runtime(path: Path, threads: int) -> ClassifierRuntime:
    """Probabilities by a package. ``threads``: how many predict at once. Raises ModelLoadError."""
    run = _load(path, threads)
    return lambda images: run(images)[0]


def detector_runtime(path: Path, threads: int) -> DetectorRuntime:
    """Candidates by a package. ``threads``: how many predict at once. Raises ModelLoadError."""
    run = _load(path, threads)

    def candidates(images: Images, score_threshold: float) -> Sequence[Candidates]:
        boxes, scores = run(images)
        return [selection.flatten(b, s, score_threshold) for b, s in zip(boxes, scores, strict=True)]

    return candidates


def _load(path: Path, threads: int) -> Run:
    try:
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), NETWORK_NAME, False, threads, -1)
    except RuntimeError as error:
        raise ModelLoadError(
            f"{path} cannot be loaded: {str(error).splitlines()[0]}",
            hint="It is unpacked below the temporary folder, where programs must be allowed; or set RUNTIME=torch.",
        ) from None

    def run(images: Images) -> list[np.ndarray]:
        with torch.inference_mode():
            given = torch.from_numpy(np.require(images, requirements=["C", "W"]))
            return [output.numpy() for output in loader.run([given])]

    return run
