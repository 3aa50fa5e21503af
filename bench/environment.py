"""The virtual environment of the peers, apart from ours so that neither sees the other's packages by chance.

``python -m bench.environment`` makes it, or does nothing where it stands already. torch and what else the service
itself imports come from ``.venv`` through a .pth file: every contender runs the same builds, and 1 GB is saved.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "bench-venv"
PYTHON = FOLDER / "bin" / "python"
LOCK = ROOT / "requirements" / "bench.txt"
STAMP = FOLDER / ".installed"
BORROWED = "service.pth"


class EnvironmentFailedError(Exception):
    """The packages of the peers could not be installed."""


def ensure() -> Path:
    """Make the environment unless it stands, and return its Python. Raises EnvironmentFailedError."""
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return PYTHON
    print(f"making {FOLDER.relative_to(ROOT)} for the peers; some minutes the first time", flush=True)
    venv.create(FOLDER, clear=True, with_pip=True)
    _install()
    _borrow()
    STAMP.write_text(wanted)
    return PYTHON


def _install() -> None:
    """Exactly what the lock file names, each with its hash."""
    command = [
        str(PYTHON),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--progress-bar=off",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "-r",
        str(LOCK),
    ]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise EnvironmentFailedError(f"pip ended with {done.returncode}; its words stand above.")


def _borrow() -> None:
    """Let it import what ours holds; its own packages come first."""
    target = next(FOLDER.glob("lib/python*/site-packages"))
    (target / BORROWED).write_text(sysconfig.get_paths()["purelib"] + "\n")


if __name__ == "__main__":
    print(ensure())
