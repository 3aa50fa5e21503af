"""What a model.py promises: its class, read and checked. Runs in the model's own process and when a model is added."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Union

import cask
from app.model_code import kinds, schema_marks
from app.model_code.kinds import Kind, UnsupportedError
from cask.model import BATCHING

FILE_NAME = "model.py"
MODULE_NAME = "model"
DOC_CHARACTERS = 2000
# Beside the parameters in a request.
RESERVED = ("model", "version", "inputs", "options", "items", "task", "webhook_url")


class SignatureError(Exception):
    """The model cannot be served as it is written. The text names file and line, what is wrong and what to write."""


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


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compiles anew: what lies in ``__pycache__`` may be of another time, or of somebody else."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _hook(folder: Path) -> Callable[[str], Any]:
    loaders: list[tuple[type[importlib.abc.Loader], list[str]]] = [
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (_FromSource, importlib.machinery.SOURCE_SUFFIXES),
    ]
    found = importlib.machinery.FileFinder.path_hook(*loaders)

    def hook(path: str) -> Any:
        if not Path(path).is_relative_to(folder) or Path(path).is_relative_to(folder / "environment"):
            raise ImportError(path)
        return found(path)

    return hook


def model_class(folder: Path) -> type[cask.Model]:
    """Run model.py and return the one class in it that derives from ``cask.Model``. Raises SignatureError."""
    path = folder / FILE_NAME
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path, loader=_FromSource(MODULE_NAME, str(path)))
    if not path.is_file() or spec is None or spec.loader is None:
        raise SignatureError(f"{path} is missing: a model with code is a class in a file of that name")
    # Modules beside it are found first, and compiled from what the digest covers.
    sys.path.insert(0, str(folder))
    sys.path_hooks.insert(0, _hook(folder))
    sys.path_importer_cache.clear()
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up.
    sys.modules[MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise SignatureError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise SignatureError(f"{_place_of(error, path)}: {type(error).__name__}: {error}") from error
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, cask.Model) and each.__module__ == MODULE_NAME
    ]
    # A class that others here derive from is their base, and no model of its own.
    found = [each for each in found if not any(issubclass(other, each) for other in found if other is not each)]
    if len(found) != 1:
        names = ", ".join(each.__name__ for each in found) or "none"
        raise SignatureError(f"{path}: one class must derive from cask.Model; there is: {names}")
    return found[0]


def _place_of(error: BaseException, path: Path) -> str:
    """The last line of the model's own files that had a part in it."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).parent == path.parent:
            lines.append(f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}")
        trace = trace.tb_next
    return lines[-1] if lines else str(path)


def read(found: type[cask.Model], folder: Path) -> Signature:
    """Check ``predict`` of a class. Raises SignatureError."""
    path = folder / FILE_NAME
    written = inspect.getattr_static(found, "predict", None)
    predict = getattr(found, "predict", None)
    if not callable(predict):
        raise SignatureError(f"{path}: {found.__name__} has no method predict")
    lines = _lines(path, found.__name__)
    at = _Places(path, lines)
    if isinstance(written, staticmethod | classmethod):
        raise at.error("predict", f"predict is a {type(written).__name__}; write def predict(self, …) without it")
    hints = _hints(predict, at)
    inputs: dict[str, Kind] = {}
    options: dict[str, tuple[Kind, Any]] = {}
    for parameter in list(inspect.signature(predict).parameters.values())[1:]:
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
            inputs[name] = _input(name, hints[name], folder, at)
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


def _lines(path: Path, class_name: str) -> dict[str, int]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.name == "predict":
                    given = method.args
                    named = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
                    lines = {each.arg: each.lineno for each in named if each is not None}
                    return {**lines, "predict": method.lineno, "return": (method.returns or method).lineno}
    return {}


def _hints(predict: Callable[..., Any], at: _Places) -> dict[str, Any]:
    if inspect.iscoroutinefunction(predict):
        raise at.error("predict", "predict is async; write def predict")
    if inspect.isgeneratorfunction(predict):
        raise at.error("predict", "predict has a yield; return a list with one answer for each item")
    try:
        return typing.get_type_hints(predict, include_extras=True)
    except Exception as error:
        raise at.error("predict", f"a type of predict cannot be read: {type(error).__name__}: {error}") from error


def _input(name: str, hint: Any, folder: Path, at: _Places) -> Kind:
    if typing.get_origin(hint) is not list or not typing.get_args(hint):
        shown = getattr(hint, "__name__", str(hint))
        text = f"the parameter {name!r} is {shown}; positional parameters are lists with one item for each caller: "
        raise at.error(name, f"{text}write {name}: list[{shown}], or put it behind * as an option")
    return _kind(name, typing.get_args(hint)[0], folder, at)


def _option(parameter: inspect.Parameter, hint: Any, folder: Path, at: _Places) -> tuple[Kind, Any]:
    name = parameter.name
    kind = _kind(name, hint, folder, at)
    if kind.schema.get(schema_marks.KIND) == "image":
        raise at.error(name, f"the option {name!r} is an Image; an Image must stand before the *, in a list")
    if parameter.default is parameter.empty:
        raise at.error(name, f"the option {name!r} has no default; write {name}: … = …")
    try:
        kind.write(parameter.default)
    except (TypeError, ValueError) as error:
        raise at.error(name, f"the default of {name!r} does not fit its type: {error}") from None
    return kind, parameter.default


def _answer(hints: dict[str, Any], folder: Path, at: _Places) -> Kind:
    hint = hints.get("return")
    if typing.get_origin(hint) is not list or not typing.get_args(hint):
        raise at.error(
            "return", "predict must say that it returns a list with one answer for each item: -> list[Label]"
        )
    inner = typing.get_args(hint)[0]
    if cask.Refused in typing.get_args(inner):
        inner = Union[tuple(each for each in typing.get_args(inner) if each is not cask.Refused)]  # noqa: UP007
    return _kind("return", inner, folder, at)


def _kind(name: str, hint: Any, folder: Path, at: _Places) -> Kind:
    try:
        return kinds.kind_of(hint, folder)
    except UnsupportedError as error:
        what = "the answer" if name == "return" else f"the parameter {name!r}"
        raise at.error(name, f"{what}: {error}") from None
