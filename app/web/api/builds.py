"""What was built from a model, as the API tells it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flask import current_app
from pydantic import Field
from typing_extensions import TypedDict

from app.inference.served_models import ModelStatus
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


# Null where it could not be computed.
MEASURED = ("images_per_second", "best_batch_size", "agreement", "largest_difference", "map_loss")


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


def like(kind: type, *sources: object) -> dict[str, Any]:
    """The members of a type, in its order, each from the first source that has one of the name."""
    found = {name: next((each for each in sources if hasattr(each, name)), None) for name in kind.__annotations__}
    return {name: getattr(source, name) for name, source in found.items() if source is not None}


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
    candidates = [_candidate(each, is_detector=bool(report.truth)) for each in report.candidates]
    return {**like(BuildReport, report), "candidates": candidates}  # type: ignore[typeddict-item]


def _candidate(each: Candidate, *, is_detector: bool) -> BuildCandidate:
    found = like(BuildCandidate, each)
    for name in ("agreement", "largest_difference", "map_loss", "map_50"):
        found[name] = None if found[name] is None else round(found[name], 5)
    unknown = MEASURED if not each.is_measured else () if is_detector else ("map_loss",)
    return {**found, **dict.fromkeys(unknown)}  # type: ignore[typeddict-item]
