"""What a caller may wish for, checked: the typed form of query, form fields and JSON keys. A leaf."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from app import tasks
from app.errors import OptionError
from app.manifests import Manifest, Task
from app.results import Options
from app.tasks.base import Wishes

WISHES: dict[Task, type[Wishes]] = {task.name: task.wishes for task in tasks.ALL}

# Wishes that are texts; the others are numbers, or yes and no.
TEXTS = {*Wishes.model_fields, *(task.label_option for task in tasks.ALL)}
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
    task = tasks.BY_NAME[manifest.task]
    defaults, kind = task.default_options(manifest.serve), task.options
    found: Options = kind(**{name: given.get(name, getattr(defaults, name)) for name in kind.__dataclass_fields__})
    return found


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
