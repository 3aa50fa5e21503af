"""Whether an application could be imported, tried in a process of its own before a running one is asked to go."""

from __future__ import annotations

import subprocess
from pathlib import Path

from app.host import machine
from app.plugins.applications import Application

SECONDS = 60.0
LAST_LINES = 6
# A crash in C tells its line; nothing is written beside the code.
OPTIONS = ("-X", "faulthandler", "-B")
# As apache/application.py imports it. Threads that it began do not keep the trial from ending.
CODE = """
import importlib, os, sys, traceback
sys.path.insert(0, os.getcwd())
module, name = sys.argv[1:]
try:
    found = getattr(importlib.import_module(module), name.removesuffix("()"))
    found = found() if name.endswith("()") else found
    assert callable(found), f"{name} is {found!r}; expected a WSGI application"
except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
os._exit(0)
"""


def fault(application: Application, folder: Path, own: Path) -> str:
    """Why it cannot be imported, in its last lines; empty where it can. ``own``: its folder below STATE_DIR."""
    python = [str(application.environment / "bin" / "python") if application.environment else machine.python()]
    variables = [f"{name}={value}" for name, value in application.variables_in(own).items()]
    if application.libraries:
        # Without the packages of Cask.
        python.append("-S")
        variables.append(f"PYTHONPATH={application.libraries}")
    try:
        done = subprocess.run(
            ["env", *variables, *python, *OPTIONS, "-c", CODE, application.module, application.name],
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
