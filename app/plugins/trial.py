"""Whether an application could be imported, tried in a process of its own before a running one is asked to go."""

from __future__ import annotations

import subprocess
from pathlib import Path

from app.plugins import application_python
from app.plugins.applications import Application

SECONDS = 60.0
LAST_LINES = 6
# As apache/application.py imports it. Threads that it began do not keep the trial from ending.
CODE = """
module, name = sys.argv[1:]
try:
    cask.place_instance()
    found = cask.named(importlib.import_module(module), name)
    assert callable(found), f"{name} is {found!r}; expected a WSGI application"
except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
os._exit(0)
"""


def fault(application: Application, folder: Path, own: Path) -> str:
    """Why it cannot be imported, in its last lines; empty where it can. ``own``: its folder below STATE_DIR."""
    try:
        done = subprocess.run(
            application_python.command(application, own, CODE, application.module, application.name),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it was not imported within {SECONDS:g} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()[-LAST_LINES:]
    return "\n".join(lines) or f"the process that imported it ended with status {done.returncode}"
