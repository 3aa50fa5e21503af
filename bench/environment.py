"""What the peers run from, apart from ours so that neither sees the other's packages by chance.

``python -m bench.environment`` makes it, or does nothing where it stands already. torch and what else the service
itself imports come from ``.venv`` through a .pth file: every contender runs the same builds, and 1 GB is saved.
nginx and uWSGI are Debian's packages, unpacked and not installed: no service starts, nothing of the system changes.
"""

from __future__ import annotations

import hashlib
import os
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
TOOLS = ROOT / "build" / "bench-tools"
TOOLS_STAMP = TOOLS / ".unpacked"
DEBIAN_PACKAGES = (
    "libnorm1",  # libzmq5
    "libpcre3",  # uWSGI
    "libpgm-5.3-0",  # libzmq5
    "libsodium23",  # libzmq5
    "libyajl2",  # uWSGI
    "libyaml-0-2",  # uWSGI
    "libzmq5",  # uWSGI
    "nginx",
    "uwsgi-core",
    "uwsgi-plugin-python3",
)


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


def ensure_tools() -> bool:
    """Unpack nginx and uWSGI unless they are there. False where apt does not offer them: they are then left out."""
    if not TOOLS_STAMP.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        try:
            _unpack_tools()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"nginx and uWSGI are left out: {error}", flush=True)
            return False
        TOOLS_STAMP.touch()
    return True


def tool(name: str) -> Path:
    """The program of this name in the unpacked packages. Raises FileNotFoundError."""
    found = next((path for path in TOOLS.rglob(name) if path.is_file() and os.access(path, os.R_OK | os.X_OK)), None)
    if found is None:
        raise FileNotFoundError(f"{TOOLS} holds no {name}")
    return found


def uwsgi_plugin() -> Path:
    """uWSGI's plug-in for Python. Raises StopIteration where there is none."""
    return next(TOOLS.rglob("python3*_plugin.so"))


def tools_libraries() -> str:
    """Where the loader finds their libraries: a value for LD_LIBRARY_PATH."""
    return ":".join(sorted({str(path.parent) for path in TOOLS.rglob("lib*.so*")}))


def _unpack_tools() -> None:
    subprocess.run(["apt-get", "download", *DEBIAN_PACKAGES], cwd=TOOLS, check=True, capture_output=True)
    for package in sorted(TOOLS.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=TOOLS, check=True)
        package.unlink()


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
    ensure_tools()
