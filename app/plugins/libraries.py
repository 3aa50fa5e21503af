"""Libraries that a plugin needs beyond Cask's, or an application for itself: locked, and installed before the start."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from app.errors import ModelLoadError, PluginError
from app.model_code import environments
from app.model_code.environments import LOCK, REQUIREMENTS, place

MADE = "# Made by make plugin-install from requirements.txt, sha256 {digest}."
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==(\S+)", re.MULTILINE)


def install(folder: Path, others: Iterable[Path], say: Callable[[str], None], *, is_alone: bool = False) -> None:
    """Lock what requirements.txt names where that changed, and install it. Raises PluginError with both versions.

    ``others``: folders of plugins in the same process. ``is_alone``: it takes no version of Cask's, as an application.
    """
    if not (folder / REQUIREMENTS).exists():
        raise PluginError(f"There is no {folder / REQUIREMENTS}; expected one library a line, such as qrcode>=8.")
    try:
        if not _is_fresh(folder):
            say(f"resolving {folder / REQUIREMENTS}")
            found = environments.resolved(folder, [REQUIREMENTS], None if is_alone else environments.bundle())
            lines = [MADE.format(digest=_digest(folder)), *environments.sources(folder, [REQUIREMENTS]), *sorted(found)]
            (folder / LOCK).write_text("\n".join(lines) + "\n")
        check_versions(folder, others)
        environments.install(folder, say)
    except ModelLoadError as error:
        raise PluginError(
            f"{folder / REQUIREMENTS}: {error.message}",
            hint="" if is_alone else "A plugin takes the versions that Cask has; a whole application has its own.",
        ) from None


def check_versions(folder: Path, others: Iterable[Path]) -> None:
    """Raises PluginError where another plugin has another version of the same library: one process has one."""
    own = _pins(folder)
    for other in others:
        for name, version in _pins(other).items():
            if own.get(name, version) != version:
                raise PluginError(
                    f"plugin {folder.name} needs {name} {own[name]}, and plugin {other.name} has {version}; expected"
                    f" one version: write it into both {REQUIREMENTS}, then make plugin-install."
                )


def add(folder: Path, others: Iterable[Path]) -> None:
    """Let a plugin import its libraries; those of Cask come first. Raises PluginError where they are not installed."""
    if found := installed(folder):
        check_versions(folder, others)
        if str(found) not in sys.path:
            sys.path.append(str(found))


def installed(folder: Path) -> Path | None:
    """Where the libraries lie; None where it names none. Raises PluginError where they are not installed."""
    if not (folder / REQUIREMENTS).exists():
        return None
    next_step = f"Run make plugin-install NAME={folder.name}."
    if not _is_fresh(folder):
        reason = "was changed after the lock was made from it" if (folder / LOCK).exists() else "is not locked"
        raise PluginError(f"{folder / REQUIREMENTS} {reason}.", hint=next_step)
    if not place(folder).is_dir():
        raise PluginError(f"{place(folder)} is missing: libraries in {REQUIREMENTS} are not installed.", hint=next_step)
    return place(folder)


def _is_fresh(folder: Path) -> bool:
    lock = folder / LOCK
    return lock.exists() and lock.read_text("utf-8", "replace").startswith(MADE.format(digest=_digest(folder)))


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / REQUIREMENTS).read_bytes()).hexdigest()[:16]


def _pins(folder: Path) -> dict[str, str]:
    """Library → version, of a plugin's lock."""
    text = (folder / LOCK).read_text("utf-8", "replace") if (folder / LOCK).exists() else ""
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in PIN.findall(text)}
