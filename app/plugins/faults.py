"""What a plugin's code did wrong, in one line: file, line, reason, and what to write where that is known."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.errors import CaskError, PluginError
from app.plugins.manifest import PARENT, Manifest, sources
from app.web import policy

STANDARD_ERROR = 2
MISSING = re.compile(r"cannot import name '(\w+)'")
# By words of Flask and Python that do not say what to write.
HINTS = {
    "Working outside of": "While a plugin is imported there is no request and no app: do it in a view.",
    "outside of a request": "While a plugin is imported there is no request and no app: do it in a view.",
    "public() missing": "Write @public, without parentheses.",
    "overwriting an existing endpoint": "Two views have this name; give one of them another.",
    "init_app() takes": "Write def init_app(app).",
}


@contextlib.contextmanager
def telling(plugin: Manifest) -> Any:
    """Whatever a plugin's code raises in the block, its end of the process too, is a PluginError with file and line."""
    try:
        with _staying():
            yield
    except CaskError as error:
        raise PluginError(f"plugin {plugin.name}: {_where(plugin, error)}{error.message}", hint=error.hint) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(
            f"plugin {plugin.name}: {_where(plugin, error)}{_reason(error)}", hint=_hint(plugin, error)
        ) from error


def line(plugin: Manifest, frames: traceback.StackSummary) -> str:
    """The last line of a plugin in a trace."""
    ours = [each for each in frames if Path(each.filename).is_relative_to(plugin.folder)]
    return f"{ours[-1].filename}, line {ours[-1].lineno}: " if ours else ""


def mention(plugin: Manifest, word: str) -> str:
    """The line of a plugin that names something; its package's file where a library did it."""
    lines = [
        (path, number, text)
        for path in sources(plugin.folder)
        for number, text in enumerate(path.read_text("utf-8", "replace").splitlines(), 1)
    ]
    # Rather where it is set or called than where it is imported.
    for ending in (r"['\"\]]*\s*[=(]", r"\b"):
        pattern = re.compile(rf"\b{re.escape(word)}{ending}", re.IGNORECASE)
        for path, number, text in lines:
            if pattern.search(text):
                return f"{path}, line {number}: "
    return f"{plugin.folder / '__init__.py'}: "


def check_syntax(plugin: Manifest) -> None:
    """Raises SyntaxError for a module that nobody could import, also where a view imports it later."""
    for path in sources(plugin.folder):
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)


@contextlib.contextmanager
def _staying() -> Iterator[None]:
    """os._exit() and a crash in C end a process without a word: raise for the one, name the line of the other."""
    ended, pid, thread = os._exit, os.getpid(), threading.get_ident()

    def refuse(status: int) -> Any:
        # A child that was forked, and threads, end as they please.
        if (os.getpid(), threading.get_ident()) != (pid, thread):
            ended(status)
        raise SystemExit(f"os._exit({status})")

    if is_ours := not faulthandler.is_enabled():
        faulthandler.enable(STANDARD_ERROR)
    os._exit = refuse
    try:
        yield
    finally:
        os._exit = ended
        if is_ours:
            faulthandler.disable()


def _where(plugin: Manifest, error: BaseException) -> str:
    """``/srv/plugins/claims/views.py, line 7: ``; the package's file where no line of the plugin is to blame."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    own = line(plugin, traceback.extract_tb(error.__traceback__))
    return own or _view(error) or f"{plugin.folder / '__init__.py'}: "


def _view(error: BaseException) -> str:
    """The view that Flask was registering: it does so long after the decorator's line was run."""
    found, trace = None, error.__traceback__
    while trace is not None:
        found, trace = trace.tb_frame.f_locals.get("view_func") or found, trace.tb_next
    return policy.place(found) if callable(found) else ""


def _reason(error: BaseException) -> str:
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {words}".split())


def _hint(plugin: Manifest, error: BaseException) -> str:
    """What to write instead, where that is known."""
    name = getattr(error, "name", None) or ""
    if isinstance(error, ImportError) and (name == plugin.package or name.startswith(f"{plugin.package}.")):
        wanted = MISSING.search(str(error))
        parts = [*name.removeprefix(plugin.package).strip(".").split("."), wanted[1] if wanted else ""]
        return f"There is no {plugin.folder.joinpath(*parts)}.py, and no such name in it or in what imports it."
    if isinstance(error, ModuleNotFoundError):
        return _missing(plugin, name)
    return next((hint for words, hint in HINTS.items() if words in str(error)), "")


def _missing(plugin: Manifest, name: str) -> str:
    if name.startswith(f"{PARENT}."):
        return "A module of another plugin is out of reach: copy what you need, or make a library of it."
    if (plugin.folder / f"{name}.py").exists() or (plugin.folder / name).is_dir():
        return f"A module of its own is imported by a dot: from . import {name}."
    return (
        f"A module of its own is imported by a dot: from . import {name}. A library must be installed: name it in"
        f" {plugin.folder / 'requirements.txt'}, then make plugin-install NAME={plugin.name}."
    )
