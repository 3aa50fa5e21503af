"""`make serve` in dev: what a person saves is answered at once, by new processes of Apache. Runs in ops.

A save of Cask or of a plugin replaces the web processes; one of a whole application is imported apart first, and its
processes serve on where it is broken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from app.config import ROOT, Settings, plugin_settings
from app.errors import CaskError
from app.plugins import manifest, replacement
from app.storage import saves
from app.storage.saves import Stamp
from app.supervision.supervisor import watch
from app.telemetry import shards
from app.web.ops import applications

log = logging.getLogger("cask.ops")

# Templates of Cask and of plugins are read by every request in dev.
READ_AT_A_START = frozenset({".py", ".toml", ".mo", ".txt"})
# Of an application, what a person writes: it may keep its table and its uploads in its own folder.
WRITTEN = READ_AT_A_START | {".html", ".htm", ".j2", ".jinja", ".jinja2", ".ini", ".cfg"}


class SaveWatch:
    """Looks at the files of Cask, of the plugins, and of each application that Apache was started with."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # By what is replaced: an application's name, or nothing for the web processes.
        self._seen: dict[str, Stamp] = {}

    def start(self) -> None:
        """Look in a thread until the process ends."""
        self.look()
        watch(self.look, saves.PERIOD_SECONDS, "saves")

    def look(self) -> None:
        """Once; waits until the processes of an application are replaced. Raises OSError."""
        folders = plugin_settings.folders(self._settings)
        known = self._settings.state_dir / applications.FOLDER
        hosted = {each.name: each for each in folders if (known / each.name).is_dir()}
        self._compare("", lambda: _of_web(each for each in folders if each.name not in hosted), self._end_web)
        for name, folder in hosted.items():
            self._compare(
                name,
                lambda folder=folder: saves.stamp(folder, lambda path: path.suffix in WRITTEN),  # type: ignore[misc]
                lambda folder=folder: replacement.replace(self._settings, manifest.read(folder)),  # type: ignore[misc]
            )

    def _compare(self, name: str, look: Callable[[], Stamp], replace: Callable[[], object]) -> None:
        before, now = self._seen.get(name), look()
        if before is not None and now != before:
            began = time.monotonic() - saves.PERIOD_SECONDS
            now = saves.settled(look, now)
            changed = ", ".join(saves.changed(before, now)[:3])
            try:
                replace()
            except (replacement.NotReplacedError, CaskError) as error:
                log.error("%s: %s", changed, error)  # noqa: TRY400 - its own lines are in the message
            else:
                log.info("%s: new processes, %.2f s after the save", changed, time.monotonic() - began)
        self._seen[name] = now

    def _end_web(self) -> None:
        for sign in shards.signs(self._settings.state_dir):
            if sign.role == "web" and sign.beat:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(sign.pid, signal.SIGUSR1)


def _of_web(plugins: Iterable[Path]) -> Stamp:
    found: Stamp = {}
    for folder in (ROOT / "app", ROOT / "cask", *plugins):
        stamp = saves.stamp(folder, lambda path: path.suffix in READ_AT_A_START)
        found |= {f"{folder.name}/{name}": about for name, about in stamp.items()}
    return found
