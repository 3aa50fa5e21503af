"""What a caller may wish for, checked: the typed form of query, form fields and JSON keys. A leaf."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import OptionError
from app.manifests import Manifest, Task
from app.results import ClassifyOptions, DetectOptions, Options

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Label = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra={"format": "label"})]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Pixels = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
MAX_RESULTS = 1000


class _Wishes(BaseModel):
    """What every task understands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name | None = Field(None, description="Name of the model; the first one of the task when left out.")
    version: Name | None = Field(None, description="Version of the model; the one that answers now when left out.")


class ClassifyWishes(_Wishes):
    """Options of POST /v1/classify."""

    top_k: int | None = Field(None, ge=0, le=MAX_RESULTS, description="How many labels, best first.")
    explain: bool | None = Field(None, description="Also say where the model looked, as a map and a picture.")
    explain_label: Label | None = Field(None, description="Explain this label; the best one when left out.")


class DetectWishes(_Wishes):
    """Options of POST /v1/detect."""

    score_threshold: Share | None = Field(None, description="Detections with a lower score are left out.")
    iou_threshold: Share | None = Field(None, description="Boxes that overlap more than this are one object.")
    max_results: int | None = Field(None, ge=0, le=MAX_RESULTS, description="At most so many detections, best first.")
    min_width: Pixels | None = Field(None, description="Narrower boxes are left out; pixels of the upright image.")
    min_height: Pixels | None = Field(None, description="Lower boxes are left out; pixels of the upright image.")
    label: Label | None = Field(None, description="Only detections with this label, or an alias of it.")


Wishes = ClassifyWishes | DetectWishes
WISHES: dict[Task, type[ClassifyWishes] | type[DetectWishes]] = {"classify": ClassifyWishes, "detect": DetectWishes}

# Wishes that are texts; the others are numbers, or yes and no.
TEXTS = {*_Wishes.model_fields, "explain_label", "label"}
MAX_LABELS_SHOWN = 20
NUMBERS = {name for kind in WISHES.values() for name in kind.model_fields} - TEXTS


def parse(task: Task, raw: Mapping[str, Any], besides: Sequence[str] = (), without: Sequence[str] = ()) -> Wishes:
    """Check raw wishes; an empty text counts as left out, a 0 is a 0. Raises OptionError naming value and range.

    A name that is unknown is refused whatever its value; its hint lists what the address takes: the task's options,
    those ``besides`` them, and not those of ``without``, which the address has refused already.
    """
    # JSON's true is no number, but Python's is 1.
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in raw.items()
        if value not in ("", None)
    }
    for name in raw:
        _refuse_unknown(task, name, besides, without)
    try:
        return WISHES[task].model_validate(given)
    except ValidationError as error:
        raise _option_error(task, error) from None


def complete(wishes: Wishes, manifest: Manifest) -> Options:
    """Fill what the caller left out from the model's manifest. Raises OptionError for a label that it does not know."""
    given = wishes.model_dump(exclude={"model", "version"}, exclude_none=True)
    if "label" in given:
        given["label"] = label(manifest, "label", given["label"])
    defaults = manifest.default_options()
    kind = ClassifyOptions if manifest.task == "classify" else DetectOptions
    return kind(**{name: given.get(name, getattr(defaults, name)) for name in kind.__dataclass_fields__})


def label(manifest: Manifest, option: str, text: str) -> str:
    """The label that is meant by an option's text. Raises OptionError where the model does not know it."""
    found = manifest.label_of(text)
    if not found:
        known = ", ".join([*manifest.labels, *manifest.aliases][:MAX_LABELS_SHOWN])
        raise OptionError(f"{option} is {text[:80]!r}, which {manifest.key} does not know.", hint=f"It knows: {known}.")
    return found


def _refuse_unknown(task: Task, name: str, besides: Sequence[str], without: Sequence[str]) -> None:
    # Before pydantic sees it, which cannot report a name that is no valid text.
    if name not in WISHES[task].model_fields:
        taken = [*besides, *(each for each in WISHES[task].model_fields if each not in without)]
        close = difflib.get_close_matches(name[:80], taken, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Known options: {', '.join(taken)}."
        raise OptionError(f"{name[:80]!r} is not an option of {task}.", hint=hint)


def _option_error(task: Task, error: ValidationError) -> OptionError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    return OptionError(
        f"{name} is {str(first['input'])[:80]!r}: {first['msg'][0].lower()}{first['msg'][1:]}.",
        hint=WISHES[task].model_fields[name].description or "",
    )
