"""What a person asked with the form: task, model, limits and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from werkzeug.datastructures import FileStorage

from app import tasks
from app.errors import ImageMissingError, OptionError
from app.inference.options import PARAMS_OF_TASK
from app.inference.pipeline import predictor
from app.inference.served_models import ModelStatus
from app.models.manifests import Task
from app.web.pages import option_controls, samples

TASKS = tasks.OFFERED


@dataclass(frozen=True)
class PredictionForm:
    """The form as it was sent; ``limits`` are raw texts, checked by the predictor."""

    task: Task
    model: str = ""
    version: str = ""
    limits: Mapping[str, str] | None = None
    is_explained: bool = False

    def __getitem__(self, name: str) -> str:
        """A limit as it was typed, for the form to show again."""
        return (self.limits or {}).get(name, "")

    @property
    def key(self) -> str:
        """The chosen model as the form's list names it."""
        return f"{self.model}@{self.version}" if self.version else self.model

    @property
    def params(self) -> dict[str, str]:
        """The limits that this task knows. The plain form holds those of all tasks, and so cannot leave any out."""
        known = PARAMS_OF_TASK[self.task].model_fields
        found = {name: self[name] for name in option_controls.NAMES if name in known and self[name]}
        return {**found, "explain": "true"} if self.is_explained and "explain" in known else found

    @property
    def has_more_limits(self) -> bool:
        return any(self[name] for name in option_controls.FOLDED)


@dataclass(frozen=True, slots=True)
class Upload:
    """One picture as it came."""

    name: str
    data: bytes


def is_offered(status: ModelStatus) -> bool:
    """Whether the form offers this version: it is served, and takes pictures as the form sends them."""
    return status.role in ("active", "held") and status.manifest.task in TASKS


def offered_tasks() -> list[Task]:
    """The tasks that a model is there for; all where there is no model."""
    there = {manifest.task for manifest in predictor().manifests}
    return [task for task in TASKS if task in there] or list(TASKS)


def first() -> PredictionForm:
    """What the page starts with: the first task that a model is there for."""
    return PredictionForm(offered_tasks()[0])


def read(form: Mapping[str, str]) -> PredictionForm:
    """Read the form. A chosen model decides the task. Raises OptionError, ModelNotFoundError."""
    name, _, version = form.get("model", "").partition("@")
    version = form.get("version") or version
    limits = {limit: form.get(limit, "").strip() for limit in option_controls.NAMES}
    explains = form.get("explain") == "true"
    if name:
        # A model with code has no such form.
        found = predictor().find(None, name, version or None)
        return PredictionForm(_task(found.task), name, version, limits, explains)
    return PredictionForm(_task(form.get("task") or first().task), "", version, limits, explains)


def uploads(form: Mapping[str, str], files: list[FileStorage]) -> list[Upload]:
    """The pictures of the form, or the sample that was pressed. Raises ImageMissingError."""
    if name := form.get("sample"):
        return [Upload(name, _sample(name))]
    # A browser sends a part without name and content where nothing was chosen.
    chosen = [Upload(file.filename or "image", file.read()) for file in files if file.filename or file.content_length]
    if not chosen:
        raise ImageMissingError("No image was chosen.", hint="Go back and choose one or several images, or a sample.")
    return chosen


def _task(text: str) -> Task:
    if text not in TASKS:
        raise OptionError(
            "task is %(text)s.", hint="One of: %(values)s.", text=repr(text[:80]), values=", ".join(TASKS)
        )
    return text


def _sample(name: str) -> bytes:
    data = samples.read(name)
    if data is None:
        known = ", ".join(each.name for each in samples.find()) or "none"
        raise OptionError(
            "There is no sample %(name)s.", hint="There are: %(names)s.", name=repr(name[:80]), names=known
        )
    return data
