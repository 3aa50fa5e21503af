"""Programs of others, in folders of their own below build/: no dependencies of the service, nor of its other tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers import ROOT

VENV = ROOT / "build" / "clients-venv"
NPM = ROOT / "build" / "clients-npm"
PYTHON_PROGRAMS = ("kserve==0.21.0", "openapi-python-client==0.29.1")
NODE_PROGRAMS = ("newman@6.2.2", "@stoplight/spectral-cli@6.16.3")
INSTALL_SECONDS = 600
RUN_SECONDS = 300


def python_folder() -> Path:
    """The environment's programs. Leaves the test out, with the reason, where they cannot be installed."""
    folder = VENV / "bin"
    if not (VENV / "complete").exists():
        _install([sys.executable, "-m", "venv", "--clear", VENV], "a virtual environment")
        _install([folder / "pip", "install", "--quiet", *PYTHON_PROGRAMS], "Python's package registry")
        (VENV / "complete").touch()
    return folder


def node_folder() -> Path:
    """The programs from npm. Leaves the test out, with the reason, where they cannot be installed."""
    folder = NPM / "node_modules" / ".bin"
    if not (NPM / "complete").exists():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed; newman and spectral come with it")
        NPM.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", NPM, "--no-audit", "--no-fund", "--ignore-scripts", *NODE_PROGRAMS]
        _install(command, "npm's package registry")
        (NPM / "complete").touch()
    return folder


def _install(command: Sequence[str | Path], source: str) -> None:
    """What is missing on this machine says nothing of the service, so the test is left out."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{source} did not give what was asked for within {INSTALL_SECONDS} s")
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        pytest.skip(f"{source} did not give what was asked for: {lines[-1] if lines else done.returncode}")


def run(command: Sequence[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of them in the checkout, with a few more variables."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
