"""Give the processes of a whole application its new code, one by one: for `make reload`, and in dev after each save."""

from __future__ import annotations

import os
import signal
import time

from app.config import Settings, plugin_settings
from app.plugins import manifest, trial
from app.plugins.manifest import Manifest
from app.web.ops import applications

PERIOD_SECONDS = 0.05
# A new one is there within seconds; on a machine without a free core it takes longer.
START_SECONDS = 60.0


class NotReplacedError(Exception):
    """Why processes serve on, or are missing, in words for the operator."""


def hosted(settings: Settings) -> list[Manifest]:
    """Plugins that are whole applications, of those that Apache was started with. Raises CaskError."""
    known = settings.state_dir / applications.FOLDER
    found = [manifest.read(folder) for folder in plugin_settings.folders(settings) if (known / folder.name).is_dir()]
    return [each for each in found if each.application]


def replace(settings: Settings, plugin: Manifest) -> list[str]:
    """Replace the processes of an application; what was done, in lines.

    Raises NotReplacedError where it cannot be imported, and its processes serve on.
    """
    assert plugin.application is not None
    own = plugin_settings.own_folder(settings, plugin.name)
    if fault := trial.fault(plugin.application, plugin.folder, own):
        if applications.state(settings.state_dir, plugin.name)[0] == applications.SERVING:
            raise NotReplacedError(f"plugin {plugin.name} was not reloaded, its processes serve on: {fault}")
        return [f"plugin {plugin.name} still cannot be imported: {fault}"]
    said = []
    for old in applications.processes(settings.state_dir, plugin.name):
        os.kill(old.pid, signal.SIGUSR1)
        patience = time.monotonic() + settings.server_shutdown_seconds + START_SECONDS
        while not _is_replaced(settings, plugin.name, old.pid):
            if time.monotonic() > patience:
                raise NotReplacedError(f"nobody has taken the place of {plugin.name} {old.pid}; see the error log.")
            time.sleep(PERIOD_SECONDS)
        said.append(f"{plugin.name} {old.pid} was replaced.")
    return said


def _is_replaced(settings: Settings, name: str, pid: int) -> bool:
    now = applications.processes(settings.state_dir, name)
    return bool(now) and all(each.pid != pid and each.state != applications.LOADING for each in now)
