"""The page of all models: what each is for, how it is, and in which forms it was tried on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import current_app, render_template, request

from app.inference.pipeline import predictor
from app.inference.served_models import ModelStatus
from app.models import builds
from app.models.builds import Candidate, Report, Standing
from app.models.manifests import CODE
from app.texts import gettext_noop
from app.web.openapi.operations import a_page, describe
from app.web.pages import languages, pages, stored_texts, try_image

# What a state of a build means, in a person's words.
BUILDS = {
    "none": gettext_noop("Not built on this machine: it computes in the form it came in."),
    "running": gettext_noop("A build is running. The model answers meanwhile as it did."),
    "failed": gettext_noop("The last build failed. The model answers as it did before."),
    "elsewhere": gettext_noop("Measured on another machine, or with other libraries."),
}
FIGURES = {
    "brightness": gettext_noop("Brightness"),
    "size": gettext_noop("Size, megapixels"),
    "labels": gettext_noop("Mix of labels"),
    "score": gettext_noop("Score of the best"),
}
# Columns of the drift, in reading order.
COLUMNS = {
    "mean": gettext_noop("Mean now"),
    "reference_mean": gettext_noop("Of the samples"),
    "psi": gettext_noop("PSI"),
    "by_chance": gettext_noop("By chance"),
}
STATES = {
    "ready": gettext_noop("Ready"),
    "loading": gettext_noop("Loading"),
    "failed": gettext_noop("Failed"),
    "unloaded": gettext_noop("Unloaded"),
    "unavailable": gettext_noop("Unavailable"),
}


@dataclass(frozen=True)
class Row:
    """One candidate in the table. ``share``: of the fastest one's speed; ``times``: of the reference's."""

    candidate: Candidate
    share: float
    times: float


@dataclass(frozen=True)
class Section:
    """One model on the page."""

    status: ModelStatus
    standing: Standing
    rows: list[Row]

    @property
    def words(self) -> str:
        """What a person must know of the build, in English; empty when there is nothing."""
        return "" if self.status.manifest.task == CODE else BUILDS.get(self.standing.state, "")

    @property
    def takes(self) -> str:
        """The parameters of a model with code; empty for another."""
        return ", ".join(self.status.manifest.signature.get("inputs", ()))

    @property
    def figures(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The figures of the drift with their English names; none before there was an image."""
        drift = self.status.drift
        known = drift.get("figures", {}) if drift.get("images") else {}
        return [(FIGURES[name], known[name]) for name in FIGURES if known.get(name, {}).get("mean") is not None]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The columns that hold a value in some row, with their English names."""
        rows = [row for _, row in self.figures]
        return [(key, words) for key, words in COLUMNS.items() if any(row[key] is not None for row in rows)]

    @property
    def tested_at(self) -> datetime | None:
        """When the stored answers were compared last."""
        at = self.status.golden.get("at")
        return None if at is None else datetime.fromtimestamp(at, UTC)

    @property
    def state_words(self) -> str:
        """The model's state, in English."""
        return STATES.get(self.status.state, self.status.state.capitalize())


@pages.get("/models")
@describe("The page of all models", a_page("The models and how each was built."))
def models() -> str:
    """All models with their builds."""
    state_dir = current_app.extensions["settings"].state_dir
    statuses = predictor().models()
    standings = [builds.standing(state_dir, status.manifest, status.processor) for status in statuses]
    return render_template(
        "models.html",
        sections=[Section(*pair, _rows(pair[1].report)) for pair in zip(statuses, standings, strict=True)],
        engine_state=try_image.engine_state(statuses),
        api_url=request.script_root + try_image.API_PATH,
    )


@pages.app_template_filter()
def day_and_time(moment: str | datetime) -> str:
    """``Nov 20, 2026, 20:42 UTC``, from ISO 8601; what is none stays as it is."""
    if isinstance(moment, datetime):
        return languages.moment(moment)
    try:
        return languages.moment(datetime.fromisoformat(moment))
    except ValueError:
        return moment


@pages.app_template_filter()
def rate(value: float) -> str:
    """Three digits are as much as a measurement is worth: ``1,230``, ``340``, ``88.7``."""
    if value < 100:
        return languages.number(value, 1)
    digits = max(0, len(str(int(value))) - 3)
    return languages.number(round(value, -digits))


@pages.app_template_filter()
def recorded(words: str) -> str:
    """What a build wrote down, in the language of the answer."""
    return languages.told(stored_texts.text(words))


@pages.app_template_filter()
def capitalize_first(words: str) -> str:
    """Only the first letter: names keep theirs."""
    return words[:1].upper() + words[1:]


def _rows(report: Report | None) -> list[Row]:
    """All candidates, the fastest first; those that could not be computed last."""
    if report is None:
        return []
    best = max(each.images_per_second for each in report.candidates) or 1.0
    reference = report.candidates[0].images_per_second or best
    order = sorted(report.candidates, key=lambda each: -each.images_per_second)
    return [Row(each, each.images_per_second / best, each.images_per_second / reference) for each in order]
