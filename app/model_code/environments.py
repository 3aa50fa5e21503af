"""What a model needs beyond the bundle: a virtual environment in its folder, above the libraries of the service.

The bundle's packages are seen through it, so torch is not installed a second time. A version of its own comes first,
and only this model gets it.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from app.errors import ModelLoadError

REQUIREMENTS = "requirements.txt"
# Packages that are installed without what they ask for, where they ask for too much or for versions of years ago.
WITHOUT_THEIR_OWN = "requirements-no-deps.txt"
# What was installed, exactly; part of the digest.
LOCK = "requirements.lock"
NAME = "environment"
LISTS: dict[str, tuple[str, ...]] = {REQUIREMENTS: (), WITHOUT_THEIR_OWN: ("--no-deps",)}
TIMEOUT_SECONDS = 1800.0


def make(folder: Path, say: Callable[[str], None]) -> None:
    """Install the folder's lists of requirements into ``environment``, where it has any. Raises ModelLoadError."""
    wanted = {name: options for name, options in LISTS.items() if (folder / name).exists()}
    if not wanted:
        return
    say(f"installing {' and '.join(wanted)} into an environment of its own")
    target, ours = folder / NAME, str(Path(sys.prefix) / "bin" / "python")
    _run(folder, ours, "-m", "venv", "--without-pip", str(target))
    packages = next(target.glob("lib/python*/site-packages"))
    # As a site folder, so that its own .pth files count: one of them lets torchvision be imported.
    (packages / "bundle.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    pip = (ours, "-m", "pip", "--python", str(target / "bin" / "python"), "--disable-pip-version-check", "--no-input")
    for name, options in wanted.items():
        _run(folder, *pip, "install", "--quiet", *options, "--requirement", name)
    (folder / LOCK).write_text(_run(folder, *pip, "freeze", "--path", str(packages)))
    for path in target.rglob("*"):
        if not path.is_symlink():
            # For the user who serves, whatever the umask.
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


def _run(folder: Path, *command: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ModelLoadError(
            f"{command[-1]} was not installed within {TIMEOUT_SECONDS:g} s.", hint="See whether the index answers."
        ) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
        raise ModelLoadError(
            f"{command[-1]} cannot be installed: {' '.join(lines[-2:])}",
            hint=f"Try it with pip install -r {command[-1]} in an environment of your own.",
        )
    return done.stdout
