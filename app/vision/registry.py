"""From a manifest to a model that predicts: the door of this package. Loads torch only where torch computes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import ModelLoadError
from app.manifests import Manifest
from app.vision import built, classifier, detector, openvino_runtime
from app.vision.built import Candidate, Report
from app.vision.model import Model

__all__ = ["Model", "Plan", "load_built", "load_model"]

log = logging.getLogger("cask.engine")

AUTO = "auto"
_LOAD: dict[str, Callable[[Manifest, str], Model]] = {"classify": classifier.load, "detect": detector.load}


@dataclass(frozen=True)
class Plan:
    """How models are to be computed here.

    ``state_dir``: where built files lie. ``workers``: how many threads predict at once. ``torch_threads``: threads
    inside one prediction of torch. ``runtime`` and ``precision``: a wish, or auto for what the build chose.
    """

    state_dir: Path | None = None
    workers: int = 1
    torch_threads: int = 1
    runtime: str = AUTO
    precision: str = AUTO


def load_model(manifest: Manifest, device: str = "cpu", plan: Plan | None = None) -> Model:
    """Load what the build chose for this machine, else torch in fp32; not warmed up and not checked yet.

    Raises ModelLoadError when the architecture is unknown, the weights are missing, altered or do not fit, or what the
    plan wishes was not built.
    """
    plan = plan or Plan()
    report = built.read(plan.state_dir, manifest) if plan.state_dir else None
    candidate = _candidate(manifest, plan, report)
    if candidate.runtime == "torch":
        _limit_torch_threads(plan.torch_threads)
        return _LOAD[manifest.task](manifest, device)
    log.info("model %s is computed by %s", manifest.key, candidate.name)
    assert plan.state_dir is not None
    return load_built(manifest, built.folder(plan.state_dir, manifest) / candidate.file, candidate, plan.workers)


def _candidate(manifest: Manifest, plan: Plan, report: Report | None) -> Candidate:
    """The one that serves: the wished one, or the chosen one, or torch in fp32 where nothing was built."""
    known = report.candidates if report else (Candidate("torch", "fp32", is_chosen=True),)
    fitting = [
        each for each in known if plan.runtime in (AUTO, each.runtime) and plan.precision in (AUTO, each.precision)
    ]
    usable = [each for each in fitting if not each.verdict.startswith("failed")]
    if not usable:
        wish = f"RUNTIME={plan.runtime}, PRECISION={plan.precision}"
        there = ", ".join(each.name for each in known)
        raise ModelLoadError(
            f"{manifest.key} cannot be computed as wished ({wish}); there is: {there}.",
            hint=f"Build it with make model-build MODEL={manifest.key}, or leave both at auto.",
        )
    chosen = [each for each in usable if each.is_chosen]
    return chosen[0] if chosen else max(usable, key=lambda each: each.images_per_second)


def load_built(manifest: Manifest, path: Path, candidate: Candidate, workers: int) -> Model:
    """A model on a built file. ``workers``: how many threads predict at once. Raises ModelLoadError."""
    _check_digest(path, candidate)
    model: Model
    if manifest.task == "classify":
        model = classifier.Classifier(manifest, openvino_runtime.classifier_runtime(path, candidate.precision, workers))
    else:
        model = detector.Detector(manifest, openvino_runtime.detector_runtime(path, candidate.precision, workers))
    model.golden_path = built.golden_path(path, candidate)
    model.computed_by = candidate.name
    return model


def _check_digest(path: Path, candidate: Candidate) -> None:
    """What lies outside of the store may have been touched, and a network hides small damage well."""
    try:
        found = built.digest(path)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error}.", hint="Build it again: make model-build.") from None
    if found != candidate.sha256:
        raise ModelLoadError(
            f"{path} was altered after it was built: its SHA-256 is {found[:16]}…, the report says "
            f"{candidate.sha256[:16]}….",
            hint="Build it again: make model-build.",
        )


def _limit_torch_threads(count: int) -> None:
    # Threads inside one prediction wait for each other whenever the machine does something else.
    import torch

    torch.set_num_threads(count)
