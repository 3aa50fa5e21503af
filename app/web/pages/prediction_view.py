"""Pictures with their answers, as the template shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app import errors, tasks
from app.errors import CaskError
from app.inference import overlays
from app.inference.pipeline import CanaryPreference, ImageResult, Outcome, predictor
from app.inference.results import Detection
from app.models.manifests import Manifest
from app.texts import gettext_noop
from app.web.middleware import deadlines
from app.web.pages import curl, drawing
from app.web.pages.drawing import DrawnBox
from app.web.pages.prediction_form import PredictionForm, Upload
from app.web.pages.previews import Preview, preview

# Trouble with one picture leaves the others alone; every other failure is the whole request's.
OF_ONE_PICTURE = (
    *(
        errors.ImageEmptyError,
        errors.ImageUnsupportedError,
        errors.ImageTooLargeError,
        errors.ImageTooComplexError,
        errors.ImageUndecodableError,
    ),
)
# Which timings a person may want to know, and in which words; the rest is for the log.
STEPS = {
    "decode": gettext_noop("decode"),
    "queue": gettext_noop("queue"),
    "predict": gettext_noop("model"),
    "explain": gettext_noop("explain"),
}


@dataclass(frozen=True)
class Answered:
    """One picture on the page: it has either a result or an error."""

    name: str
    error: CaskError | None = None
    manifest: Manifest | None = None
    result: ImageResult | None = None
    preview: Preview | None = None
    drawn: list[DrawnBox] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    curl: str = ""
    overlay: str = ""


def answer(asked: PredictionForm, uploads: Sequence[Upload], api_url: str) -> list[Answered]:
    """Ask for all pictures at once, so that they share a batch; one by one where one of them is refused.

    Raises what the predictor raises, except for trouble with single pictures.
    """
    choice = predictor().settle(asked.task, asked.model or None, asked.version or None)
    # Also where they are asked for one by one, the same version answers all.
    return _answer(asked, uploads, api_url, "always" if choice.is_canary else "never")


def _answer(asked: PredictionForm, uploads: Sequence[Upload], api_url: str, canary: CanaryPreference) -> list[Answered]:
    try:
        outcome = _predict(asked, uploads, canary)
    except OF_ONE_PICTURE as error:
        if len(uploads) == 1:
            return [Answered(uploads[0].name, error=error)]
        return [each for upload in uploads for each in _answer(asked, [upload], api_url, canary)]
    pairs = zip(uploads, outcome.results, strict=True)
    return [_answered(asked, upload, result, outcome, api_url) for upload, result in pairs]


def status(answered: Sequence[Answered]) -> int:
    """200, or the status of the first refused picture."""
    return next((each.error.status for each in answered if each.error), 200)


def _predict(asked: PredictionForm, uploads: Sequence[Upload], canary: CanaryPreference) -> Outcome:
    data = [upload.data for upload in uploads]
    return predictor().predict(
        asked.task,
        data,
        asked.params,
        model=asked.model or None,
        version=asked.version or None,
        canary=canary,
        deadline=deadlines.current(),
    )


def _answered(asked: PredictionForm, upload: Upload, result: ImageResult, outcome: Outcome, api_url: str) -> Answered:
    manifest = outcome.manifest
    detections = [row for row in result.answer if isinstance(row, Detection)]
    return Answered(
        name=upload.name,
        manifest=manifest,
        result=result,
        preview=preview(predictor().decoder, upload.data, result.width, result.height, deadlines.current()),
        drawn=drawing.draw(detections, result.width, result.height, manifest.labels),
        timings={words: outcome.timings[step] for step, words in STEPS.items() if step in outcome.timings},
        overlay=_overlay(result) or tasks.BY_NAME[manifest.task].overlay(result.answer),
        curl=curl.command(f"{api_url}/{asked.task}", [upload.name], _params(asked, manifest)),
    )


def _overlay(result: ImageResult) -> str:
    """Where the model looked, to lay over the picture; empty where nobody asked."""
    placed = result.explanation
    if placed is None:
        return ""
    return overlays.data_address(placed.explanation.map, placed.region, result.width, result.height)


def _params(asked: PredictionForm, manifest: Manifest) -> dict[str, Any]:
    """Model and version by name: the same command then gives the same answer after an upgrade."""
    return {"model": manifest.name, "version": manifest.version, **asked.params}
