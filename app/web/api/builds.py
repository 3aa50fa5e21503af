"""What was built from a model, as the API tells it."""

from __future__ import annotations

from typing import Annotated, Literal

from flask import current_app
from pydantic import Field
from typing_extensions import TypedDict

from app.inference.pipeline import ModelStatus
from app.models import builds
from app.models.builds import Candidate, Report


class BuildCandidate(TypedDict):
    """One way to compute the model; figures are null where it could not be computed."""

    runtime: str
    precision: str
    images_per_second: Annotated[float | None, Field(description="For a second of one core; of the clock on a GPU.")]
    best_batch_size: int | None
    agreement: Annotated[float | None, Field(description="With eager fp32: share of labels, or of boxes found again.")]
    largest_difference: Annotated[float | None, Field(description="Of any score.")]
    map_loss: Annotated[float | None, Field(description="Mean average precision lost; detectors only.")]
    map_50: Annotated[float | None, Field(description="Against the true boxes, where they are known.")]
    is_chosen: bool
    verdict: Annotated[str, Field(description="Why it was chosen, or why not.")]


class BuildReport(TypedDict):
    """All candidates, and what they were compared on."""

    processor: Annotated[str, Field(description="Processor or GPU that it was measured on.")]
    device: str
    versions: dict[str, str]
    built_at: str
    build_seconds: float
    images: int
    calibration_images: int
    candidates: list[BuildCandidate]


class Build(TypedDict):
    """How it stands with the model's build; ``report`` is null where there is none."""

    state: Annotated[
        Literal["none", "running", "failed", "current", "elsewhere"],
        Field(description="`elsewhere`: made on another processor or with other libraries."),
    ]
    step: Annotated[str, Field(description="What a running build is at.")]
    error: Annotated[str, Field(description="Why the last build failed; else empty.")]
    report: BuildReport | None


def build(status: ModelStatus) -> Build:
    """What is known of a model's builds on this machine."""
    state_dir = current_app.extensions["settings"].state_dir
    found = builds.standing(state_dir, status.manifest, status.processor)
    return {
        "state": found.state,  # type: ignore[typeddict-item]
        "step": found.progress.step if found.progress and found.state == "running" else "",
        "error": found.progress.error if found.progress and found.state == "failed" else "",
        "report": _report(found.report) if found.report else None,
    }


def _report(report: Report) -> BuildReport:
    return {
        "processor": report.processor,
        "device": report.device,
        "versions": report.versions,
        "built_at": report.built_at,
        "build_seconds": report.build_seconds,
        "images": report.images,
        "calibration_images": report.calibration_images,
        "candidates": [_candidate(candidate, is_detector=bool(report.truth)) for candidate in report.candidates],
    }


def _candidate(each: Candidate, *, is_detector: bool) -> BuildCandidate:
    is_measured = each.is_measured
    return {
        "runtime": each.runtime,
        "precision": each.precision,
        "images_per_second": each.images_per_second if is_measured else None,
        "best_batch_size": each.best_batch_size if is_measured else None,
        "agreement": round(each.agreement, 5) if is_measured else None,
        "largest_difference": round(each.largest_difference, 5) if is_measured else None,
        "map_loss": round(each.map_loss, 5) if is_measured and is_detector else None,
        "map_50": None if each.map_50 is None else round(each.map_50, 5),
        "is_chosen": each.is_chosen,
        "verdict": each.verdict,
    }
