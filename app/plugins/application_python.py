"""The Python of a whole application, with its libraries and variables, for what is not done by Apache."""

from __future__ import annotations

from pathlib import Path

from app.config import ROOT
from app.host import machine
from app.plugins.applications import Application

# First: apache/application.py, which the code below has as ``cask``, and the application's folder on the path.
BEGIN = f"""
import importlib, importlib.util, os, sys, traceback
sys.path.insert(0, os.getcwd())
spec = importlib.util.spec_from_file_location("cask_application", {str(ROOT / "apache" / "application.py")!r})
cask = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cask)
"""
# A crash in C tells its line; nothing is written beside the code.
OPTIONS = ("-X", "faulthandler", "-B")


def command(application: Application, own: Path, code: str, *arguments: str) -> list[str]:
    """What runs code there, in the application's folder. ``own``: its folder below STATE_DIR."""
    python = [str(application.environment / "bin" / "python") if application.environment else machine.python()]
    variables = [f"{name}={value}" for name, value in application.variables_in(own).items()]
    if application.libraries:
        # Without the packages of Cask.
        python.append("-S")
        variables.append(f"PYTHONPATH={application.libraries}")
    return ["env", *variables, *python, *OPTIONS, "-c", BEGIN + code, *arguments]
