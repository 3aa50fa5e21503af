"""What a caller may ask for, checked: the typed form of query, form fields and JSON keys. A leaf."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app import tasks
from app.errors import OptionError
from app.inference.results import Options
from app.models.manifests import Manifest, Task
from app.tasks import option_promises
from app.tasks.params import TaskParams
from app.texts import Text, gettext_noop

PARAMS_OF_TASK: dict[Task, type[TaskParams]] = option_promises.checked(tasks.ALL)
# What pydantic may find wrong with what callers send, by its type; see ``fault``.
FAULTS = {
    "greater_than_equal": gettext_noop("input should be greater than or equal to %(ge)s"),
    "less_than_equal": gettext_noop("input should be less than or equal to %(le)s"),
    "greater_than": gettext_noop("input should be greater than %(gt)s"),
    "less_than": gettext_noop("input should be less than %(lt)s"),
    "float_type": gettext_noop("input should be a valid number"),
    "float_parsing": gettext_noop("input should be a valid number, unable to parse string as a number"),
    "int_type": gettext_noop("input should be a valid integer"),
    "int_parsing": gettext_noop("input should be a valid integer, unable to parse string as an integer"),
    "int_from_float": gettext_noop("input should be a valid integer, got a number with a fractional part"),
    "finite_number": gettext_noop("input should be a finite number"),
    "bool_type": gettext_noop("input should be a valid boolean"),
    "bool_parsing": gettext_noop("input should be a valid boolean, unable to interpret input"),
    "string_type": gettext_noop("input should be a valid string"),
    "string_pattern_mismatch": gettext_noop("string should match pattern '%(pattern)s'"),
    "string_too_short": gettext_noop("string should have at least 1 character"),
    "string_too_long": gettext_noop("string should have at most %(max_length)s characters"),
    "list_type": gettext_noop("input should be a valid list"),
    "dict_type": gettext_noop("input should be a valid dictionary"),
    "model_type": gettext_noop("input should be a valid dictionary or instance of %(class_name)s"),
    "literal_error": gettext_noop("input should be %(expected)s"),
    "missing": gettext_noop("field required"),
    "extra_forbidden": gettext_noop("extra inputs are not permitted"),
}

MAX_LABELS_SHOWN = 20


def _takes_text(kind: Any) -> bool:
    """Whether a type, an alternative of it or one of its literals is a text."""
    return kind is str or isinstance(kind, str) or any(_takes_text(part) for part in get_args(kind))


# Options that are numbers, or yes and no, in every task that has them.
_OPTIONS = [(name, field.annotation) for kind in PARAMS_OF_TASK.values() for name, field in kind.model_fields.items()]
NUMBERS = {name for name, _ in _OPTIONS} - {name for name, kind in _OPTIONS if _takes_text(kind)}


def parse(task: Task, raw: Mapping[str, Any], besides: Sequence[str] = (), without: Sequence[str] = ()) -> TaskParams:
    """Check raw params; an empty text counts as left out, a 0 is a 0. Raises OptionError naming value and range.

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
        return PARAMS_OF_TASK[task].model_validate(given)
    except ValidationError as error:
        raise _option_error(task, error) from None


# Params and a manifest, by where they are in memory, to both and what they make together: nearly all requests bring
# params that were read from the same words before (app/web/api/fast_path.py).
_completed: dict[tuple[int, int], tuple[TaskParams, Manifest, Options]] = {}
MAX_COMPLETED = 64


def complete(params: TaskParams, manifest: Manifest) -> Options:
    """Fill what the caller left out from the model's manifest. Raises OptionError for a label that it does not know."""
    # Those in the table are held by it, so that nothing else can have come to their places.
    known = _completed.get((id(params), id(manifest)))
    if known is not None:
        return known[2]
    found = _complete(params, manifest)
    if len(_completed) >= MAX_COMPLETED:
        _completed.clear()
    _completed[id(params), id(manifest)] = params, manifest, found
    return found


def _complete(params: TaskParams, manifest: Manifest) -> Options:
    given = params.model_dump(exclude={"model", "version"}, exclude_none=True)
    task = tasks.BY_NAME[manifest.task]
    defaults, kind, name = task.default_options(manifest.serve), task.options, task.label_option
    if name in given and name in kind.__dataclass_fields__:
        given[name] = label(manifest, name, given[name])
    found: Options = kind(**{name: given.get(name, getattr(defaults, name)) for name in kind.__dataclass_fields__})
    return found


def label(manifest: Manifest, option: str, text: str) -> str:
    """The label that is meant by an option's text. Raises OptionError where the model does not know it."""
    found = manifest.label_of(text)
    if not found:
        known = ", ".join([*manifest.labels, *manifest.aliases][:MAX_LABELS_SHOWN])
        raise OptionError(
            "%(option)s is %(text)s, which %(key)s does not know.",
            hint="It knows: %(names)s.",
            option=option,
            text=repr(text[:80]),
            key=manifest.key,
            names=known,
        )
    return found


def _refuse_unknown(task: Task, name: str, besides: Sequence[str], without: Sequence[str]) -> None:
    # Before pydantic sees it, which cannot report a name that is no valid text.
    if name not in PARAMS_OF_TASK[task].model_fields:
        taken = [*besides, *(field for field in PARAMS_OF_TASK[task].model_fields if field not in without)]
        close = difflib.get_close_matches(name[:80], taken, n=1)
        hint = (
            Text("Did you mean %(name)s?", name=close[0])
            if close
            else Text("Known options: %(names)s.", names=", ".join(taken))
        )
        raise OptionError("%(name)s is not an option of %(task)s.", hint=hint, name=repr(name[:80]), task=task)


def _option_error(task: Task, error: ValidationError) -> OptionError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    return OptionError(
        "%(name)s is %(value)s: %(reason)s.",
        hint=PARAMS_OF_TASK[task].model_fields[name].description or "",
        name=name,
        value=repr(str(first["input"])[:80]),
        reason=fault(first),
    )


def fault(details: ErrorDetails) -> Text:
    """What is wrong with a value, in pydantic's words and beginning small, as a text."""
    said = details["msg"][:1].lower() + details["msg"][1:]
    context = {name: _plain(value) for name, value in details.get("ctx", {}).items()}
    text = Text(FAULTS.get(details["type"], ""), **context)
    # Some fill their words otherwise, and own checks have words of their own.
    return text if text == said else Text(said)


def _plain(value: Any) -> Any:
    # Pydantic writes a limit of 1000.0 as 1000.
    return int(value) if isinstance(value, float) and value.is_integer() else value
