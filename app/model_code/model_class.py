"""Run a model.py and find its class. What a newcomer gets wrong there is said with file, line, and what to write."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import sys
from pathlib import Path

import cask
from app.model_code.sources import FromSource, hook_of

FILE_NAME = "model.py"
MODULE_NAME = "model"


class SignatureError(Exception):
    """The model cannot be served as it is written. The text names file and line, what is wrong and what to write."""


def find(folder: Path) -> type[cask.Model]:
    """Run model.py and return the one class in it that derives from ``cask.Model``. Raises SignatureError."""
    path = folder / FILE_NAME
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path, loader=FromSource(MODULE_NAME, str(path)))
    if not path.is_file() or spec is None or spec.loader is None:
        raise SignatureError(f"{path} is missing: a model with code is a class in a file of that name")
    # Modules beside it are found first, and compiled from what the digest covers.
    sys.path.insert(0, str(folder))
    sys.path_hooks.insert(0, hook_of(folder))
    sys.path_importer_cache.clear()
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up.
    sys.modules[MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise SignatureError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except BaseException as error:
        hint = _advice(error, folder)
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise SignatureError(f"{place_of(error, folder) or path}: {said}{hint}") from error
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, cask.Model) and each.__module__ == MODULE_NAME
    ]
    # A class that others here derive from is their base, and no model of its own.
    found = [each for each in found if not any(issubclass(other, each) for other in found if other is not each)]
    if len(found) != 1:
        raise _no_class(path, [each.__name__ for each in found])
    _check_load(found[0], path)
    return found[0]


def place_of(error: BaseException, folder: Path) -> str:
    """The last line of the model's own files that had a part in it; empty where none had."""
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if Path(name).is_relative_to(folder):
            place = f"{name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place


def lines(path: Path, class_name: str) -> dict[str, int]:
    """The line of a class, of ``load``, ``predict``, its parameters and what it returns; as far as they are there."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            found = {"class": node.lineno}
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.setdefault(method.name, method.lineno)
                    found |= _of_predict(method) if method.name == "predict" else {}
            return found
    return {}


def _of_predict(method: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, int]:
    given = method.args
    named = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
    found = {each.arg: each.lineno for each in named if each is not None}
    return {**found, "predict": method.lineno, "return": (method.returns or method).lineno}


def _no_class(path: Path, names: list[str]) -> SignatureError:
    """None derives from cask.Model, or several do."""
    if names:
        places = ", ".join(f"{name} in line {lines(path, name).get('class', '?')}" for name in names)
        return SignatureError(f"{path}: one class must derive from cask.Model; there is: {places}. Leave one here")
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ClassDef) and "predict" in lines(path, node.name):
            text = f"{node.name} does not derive from cask.Model; write class {node.name}(Model):"
            return SignatureError(f"{path}, line {node.lineno}: {text}")
    said = "one class must derive from cask.Model; there is: none. Write class Mine(Model): with a method predict"
    return SignatureError(f"{path}, line 1: {said}")


def _check_load(found: type[cask.Model], path: Path) -> None:
    """``load`` is called with the folder, and the class with nothing. Raises SignatureError."""
    known = lines(path, found.__name__)
    if inspect.iscoroutinefunction(found.load):
        raise SignatureError(f"{path}, line {known.get('load', 1)}: load is async; write def load")
    for name, values, wanted in (
        ("load", (None, None), "def load(self, folder: Path) -> None"),
        ("__init__", (None,), "def __init__(self) -> None, and read files in load"),
    ):
        function = getattr(found, name)
        try:
            inspect.signature(function).bind(*values)
        except (TypeError, ValueError):
            place = f"{path}, line {known[name]}" if name in known else str(path)
            text = f"{name} takes {inspect.signature(function)}; write {wanted}"
            raise SignatureError(f"{place}: {text}") from None


def _advice(error: BaseException, folder: Path) -> str:
    """What to write instead, where that is known; begins with a semicolon."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        beside = difflib.get_close_matches(str(error.name), [path.stem for path in folder.glob("*.py")], 1)
        return (
            f"; is it {beside[0]}?" if beside else "; name its package in requirements.txt, or put it beside model.py"
        )
    if "relative import" in text:
        return "; files beside model.py are imported without the dot"
    if isinstance(error, ImportError) and error.name == "cask":
        wrong = text.partition("name '")[2].partition("'")[0]
        near = difflib.get_close_matches(wrong, cask.__all__, 1)
        return f"; is it {near[0]}?" if near else f"; it has {', '.join(cask.__all__)}"
    if text.startswith("batch()"):
        return "; write @batch(max_size=8) above predict"
    if "null bytes" in text:
        return "; save the file as UTF-8"
    return ""
