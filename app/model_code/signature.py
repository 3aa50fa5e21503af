"""What a model.py promises: its class, read and checked. Runs in the model's own process and when a model is added."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Union

import cask
from app.model_code import hint_advice, kinds, schema_marks
from app.model_code.kinds import Kind, UnsupportedError
from app.model_code.model_class import FILE_NAME, SignatureError, lines
from cask.model import BATCHING

DOC_CHARACTERS = 2000
NO_SELF = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
# Beside the parameters in a request.
RESERVED = ("model", "version", "inputs", "options", "items", "task", "webhook_url")


class Signature(NamedTuple):
    """What ``predict`` takes and gives. ``options``: kind and default."""

    inputs: dict[str, Kind]
    options: dict[str, tuple[Kind, Any]]
    answer: Kind
    max_batch_size: int
    max_wait_ms: float
    threads: int
    description: str
    is_cached: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: plain JSON types, from which requests are checked without the code."""
        return {
            "api": cask.API_VERSION,
            "inputs": {name: kind.schema for name, kind in self.inputs.items()},
            "options": {
                name: {**kind.schema, "default": kind.write(default)} for name, (kind, default) in self.options.items()
            },
            "answer": self.answer.schema,
            "max_batch_size": self.max_batch_size,
            "max_wait_ms": self.max_wait_ms,
            "threads": self.threads,
            "description": self.description,
            **({"cache": True} if self.is_cached else {}),
        }


def read(found: type[cask.Model], folder: Path) -> Signature:
    """Check ``predict`` of a class. Raises SignatureError."""
    path = folder / FILE_NAME
    written = inspect.getattr_static(found, "predict", None)
    predict = getattr(found, "predict", None)
    if not callable(predict):
        line = lines(path, found.__name__).get("class", 1)
        text = "has no method predict; write def predict(self, text: list[str]) -> list[str], for example"
        raise SignatureError(f"{path}, line {line}: {found.__name__} {text}")
    at = _Places(path, lines(path, found.__name__))
    if isinstance(written, staticmethod | classmethod):
        raise at.error("predict", f"predict is a {type(written).__name__}; write def predict(self, …) without it")
    hints = _hints(predict, at)
    inputs: dict[str, Kind] = {}
    options: dict[str, tuple[Kind, Any]] = {}
    own, *parameters = [*inspect.signature(predict).parameters.values()] or [NO_SELF]
    if own is NO_SELF or own.name in hints:
        raise at.error("predict", "predict has no self; write def predict(self, …)")
    for parameter in parameters:
        name = parameter.name
        if name in RESERVED or name.startswith("_"):
            raise at.error(name, f"the parameter {name!r} needs another name: {', '.join(RESERVED)} are Cask's own")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise at.error(name, f"{parameter} cannot be described; write every parameter with its type")
        if name not in hints:
            raise at.error(name, f"the parameter {name!r} has no type; write {name}: list[str], for example")
        if parameter.kind is parameter.KEYWORD_ONLY:
            options[name] = _option(parameter, hints[name], folder, at)
        else:
            inputs[name] = _input(parameter, hints[name], folder, at)
    if not inputs:
        raise at.error("predict", "predict takes no items; give it one list at least, such as text: list[str]")
    size, wait, threads = getattr(predict, BATCHING, (1, 0.0, 1))
    doc = (inspect.getdoc(found) if found.__doc__ else "") or ""
    return Signature(
        inputs, options, _answer(hints, folder, at), size, wait, threads, doc[:DOC_CHARACTERS], _is_cached(found, path)
    )


def _is_cached(found: type[cask.Model], path: Path) -> bool:
    if not isinstance(found.cache, bool):
        raise SignatureError(f"{path}: {found.__name__}.cache is {found.cache!r}; write cache = True, or leave it out")
    return found.cache


class _Places:
    """Where each parameter stands, for messages."""

    def __init__(self, path: Path, lines: dict[str, int]) -> None:
        self._path, self._known = path, lines

    def error(self, name: str, text: str) -> SignatureError:
        line = self._known.get(name, self._known.get("predict"))
        return SignatureError(f"{self._path}, line {line}: {text}" if line else f"{self._path}: {text}")


def _hints(predict: Callable[..., Any], at: _Places) -> dict[str, Any]:
    if inspect.iscoroutinefunction(predict):
        raise at.error("predict", "predict is async; write def predict")
    if inspect.isgeneratorfunction(predict):
        raise at.error("predict", "predict has a yield; return a list with one answer for each item")
    try:
        return typing.get_type_hints(predict, include_extras=True)
    except Exception as error:
        raise at.error("predict", f"a type of predict cannot be read: {type(error).__name__}: {error}") from error


def _input(parameter: inspect.Parameter, hint: Any, folder: Path, at: _Places) -> Kind:
    name, shown = parameter.name, kinds.shown_hint(hint)
    if parameter.default is not parameter.empty:
        option = f"{name}: {shown} = {parameter.default!r}"
        raise at.error(
            name, f"the parameter {name!r} has a default, as options have; write it behind a star: *, {option}"
        )
    if typing.get_origin(hint) is not list or not typing.get_args(hint):
        text = f"the parameter {name!r} is {shown}; positional parameters are lists with one item for each caller: "
        raise at.error(name, f"{text}write {name}: list[{_wanted(hint)}], or put it behind * as an option")
    return _kind(name, typing.get_args(hint)[0], folder, at)


def _wanted(hint: Any) -> str:
    """What can be in the list, as near to a hint as there is."""
    if (inside := hint_advice.item(hint)) is not hint:
        return _wanted(inside)
    shown = kinds.shown_hint(hint)
    known = {"list": "str", "np.ndarray": "Annotated[np.ndarray, Shape(None, 4)]"}
    return known.get(shown) or hint_advice.near(hint)[0] or shown


def _option(parameter: inspect.Parameter, hint: Any, folder: Path, at: _Places) -> tuple[Kind, Any]:
    name = parameter.name
    kind = _kind(name, hint, folder, at)
    if kind.schema.get(schema_marks.KIND) == "image":
        raise at.error(name, f"the option {name!r} is an Image; an Image must stand before the *, in a list")
    if parameter.default is parameter.empty:
        shown = kinds.shown_hint(hint)
        raise at.error(name, f"the option {name!r} has no default; write {name}: {shown} = …")
    try:
        kinds.check_limits(kind.schema, kind.write(parameter.default))
    except (TypeError, ValueError) as error:
        raise at.error(name, f"the default of {name!r} does not fit its type: {error}") from None
    return kind, parameter.default


def _answer(hints: dict[str, Any], folder: Path, at: _Places) -> Kind:
    hint = hints.get("return")
    if typing.get_origin(hint) is not list or not typing.get_args(hint):
        wanted = f"list[{'Label' if hint is None or hint is list else _wanted(hint)}]"
        found = "nothing" if hint is None else kinds.shown_hint(hint)
        text = f"it returns {found}; predict returns a list with one answer for each item: write -> {wanted}"
        raise at.error("return", text)
    inner = typing.get_args(hint)[0]
    if cask.Refused in typing.get_args(inner):
        inner = Union[tuple(each for each in typing.get_args(inner) if each is not cask.Refused)]  # noqa: UP007
    return _kind("return", inner, folder, at)


def _kind(name: str, hint: Any, folder: Path, at: _Places) -> Kind:
    try:
        return kinds.kind_of(hint, folder)
    except RecursionError:
        raise at.error(name, f"the type of {name} holds itself; write it without that") from None
    except UnsupportedError as error:
        what = "the answer" if name == "return" else f"the parameter {name!r}"
        raise at.error(name, f"{what}: {error}") from None
