"""Are the plugins what they say, and does the service have them? Runs none of their code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from app.cli.checks import Finding, Surroundings, fail, ok, warn
from app.config import plugin_settings
from app.errors import PluginError
from app.host.permissions import READ
from app.plugins import manifest
from app.web.ops import plugins as noted
from cask import renamed

NEXT = "Mend it, then make reload; docs/extending.md, When something is wrong"


def plugins(here: Surroundings) -> Iterator[Finding]:
    """Each plugin that is to be served; no finding where there is none."""
    tell = warn if here.settings.plugins_on_error == "skip" else fail
    reasons = {row["name"]: row["reason"] for row in noted.rows(here.settings.state_dir)}
    try:
        for folder in plugin_settings.folders(here.settings):
            yield _look(here, folder, tell, reasons.get(folder.name, ""))
    except PluginError as error:
        yield tell("Plugins", error.message, "Correct PLUGINS or PLUGINS_DIR")


def _look(here: Surroundings, folder: Path, tell: Callable[[str, str, str], Finding], reason: str) -> Finding:
    try:
        plugin = manifest.read(folder)
    except PluginError as error:
        return tell("Plugins", error.message, NEXT)
    unreadable = here.user.first_closed(folder) or next((p for p in folder.rglob("*") if not _is_open(here, p)), None)
    if unreadable:
        return tell("Plugins", f"{here.user.name} may not read {unreadable}", f"chmod -R o+rX {folder}")
    if reason:
        return tell("Plugins", f"at its last start the service left one out: {reason}", NEXT)
    if plugin.notes:
        return warn("Plugins", f"{plugin.name}: {' '.join(plugin.notes)}", "Write the new name, then make reload.")
    return ok("Plugins", f"{plugin.name} {plugin.version} in {folder}")


def models_with_code(here: Surroundings) -> Iterator[Finding]:
    """Old names in the code of models; no finding where there is none."""
    for old in renamed.in_code(sorted(here.settings.models_dir.glob("*/*/*.py"))):
        yield warn("Model", str(old), "Write it there, then add the folder as another version: make model-add CODE=")


def _is_open(here: Surroundings, path: Path) -> bool:
    return path.name == "__pycache__" or here.user.may(READ, path)
