"""What a model needs beyond the bundle: packages in its folder, resolved once, locked with hashes, at no fixed path.

Usually they stand before the bundle's packages, which the model sees too: torch is never there twice. Where its
requirements conflict with the bundle's versions, it has an environment alone, without any of the bundle's packages.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.config import ROOT
from app.errors import ModelLoadError
from app.host import machine

if TYPE_CHECKING:
    from importlib.metadata import Distribution

REQUIREMENTS = "requirements.txt"
# Packages that are installed without what they ask for, where they ask for too much or for versions of years ago.
WITHOUT_THEIR_OWN = "requirements-no-deps.txt"
LISTS: dict[str, tuple[str, ...]] = {REQUIREMENTS: (), WITHOUT_THEIR_OWN: ("--no-deps",)}
# What is installed, exactly, with hashes; part of the digest. Its first line says which kind of environment it is.
LOCK = "requirements.lock"
BESIDE = "# Made by make model-add. Beside the packages of Cask:"
ALONE = "# Made by make model-add. Alone, without the packages of Cask:"
NAME = "environment"
# Where packages come from, which the lock needs too.
SOURCES = re.compile(r"^--?(i|index-url|extra-index-url|f|find-links|no-index|trusted-host)\b")
OUR_LOCK = ROOT / "requirements" / "serve.txt"
# What `make wheels` has collected for models.
WHEELS = ROOT / "build" / "wheels" / "models"
TIMEOUT_SECONDS = 1800.0
Say = Callable[[str], None]


def place(folder: Path) -> Path:
    """Where the packages of a version lie, for this Python and machine; it may be missing."""
    return folder / NAME / f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"


def make(folder: Path, say: Say) -> None:
    """Resolve, lock and install what the folder's lists name, where it has any. Raises ModelLoadError."""
    check_lists(folder)
    wanted = [name for name in LISTS if (folder / name).exists()]
    if not wanted:
        return
    say(f"resolving {' and '.join(wanted)}")
    try:
        kind, found = BESIDE, resolved(folder, wanted, bundle())
    except ModelLoadError as conflict:
        kind, found = ALONE, resolved(folder, wanted, None)
        say(f"an environment of its own, without Cask's packages, as they conflict: {conflict.message}")
    lines = [kind, *sources(folder, wanted), *sorted(found)]
    (folder / LOCK).write_text("\n".join(lines) + "\n")
    install(folder, say)


def check_lists(folder: Path) -> None:
    """Raises ModelLoadError where something that is no file has the name of a list."""
    for name in (*LISTS, LOCK):
        if (folder / name).exists() and not (folder / name).is_file():
            raise ModelLoadError(
                f"{folder / name} is no file; expected a text with one package a line.",
                hint="Name packages in a file of that name, or rename this.",
            )


def install(folder: Path, say: Say = lambda line: None) -> None:
    """Install what the lock names, by hash, for this Python and machine. Raises ModelLoadError."""
    target = place(folder)
    say(f"installing {LOCK}")
    target.mkdir(parents=True, exist_ok=True)
    if any("==" in line for line in (folder / LOCK).read_text().splitlines()):
        options = ("--no-deps", "--require-hashes", "--upgrade", "--target", str(target))
        _pip(folder, "install", "--quiet", "--no-warn-conflicts", *options, "--requirement", LOCK)
    for path in (folder / NAME, *(folder / NAME).rglob("*")):
        if not path.is_symlink():
            # For the user who serves, whatever the umask.
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


def check(folder: Path) -> None:
    """Raises ModelLoadError where the lock names packages that are not installed for this Python and machine."""
    if (folder / LOCK).exists() and not place(folder).is_dir():
        others = ", ".join(sorted(path.name for path in (folder / NAME).glob("*"))) or "none"
        raise ModelLoadError(
            f"{folder} has no environment for {place(folder).name}; it has: {others}.",
            hint=f"flask model environment {folder.parent.name} {folder.name}",
        )


def command(folder: Path) -> tuple[list[str], Path | None]:
    """The interpreter with its options, and the packages that come first; None where there are none of its own."""
    python, lock = [machine.python()], folder / LOCK
    if not lock.exists():
        return python, None
    with lock.open() as file:
        is_alone = file.readline().strip() == ALONE
    return [*python, *(["-S"] if is_alone else [])], place(folder)


# ── resolving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def resolved(folder: Path, wanted: list[str], beside: list[Distribution] | None) -> set[str]:
    """Lines of a lock: what is to be installed beside the bundle's packages, or alone. Raises ModelLoadError."""
    lines: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        seen = Path(scratch)
        _run(folder, machine.python(), "-m", "venv", "--without-pip", str(seen / "python"))
        for each in beside or ():
            _show(each, next(seen.glob("python/lib/python*/site-packages")))
        constraints = seen / "constraints.txt"
        constraints.write_text("".join(f"{each.metadata['Name']}=={each.version}\n" for each in beside or ()))
        for name in wanted:
            report = seen / "report.json"
            options = ("--quiet", "--dry-run", *LISTS[name], "--constraint", str(constraints), "--report", str(report))
            python = ("--python", str(seen / "python" / "bin" / "python"))
            _pip(folder, *python, "install", *options, "--requirement", name)
            lines |= {_line(row) for row in json.loads(report.read_text())["install"]}
    return lines


def bundle() -> list[Distribution]:
    """The packages that every installation of Cask has: neither pip itself nor what tests need."""
    # With email and zipfile, 2 MB, which the engine does without.
    from importlib.metadata import distributions

    found = {_normal(each.metadata["Name"]): each for each in distributions()}
    if not OUR_LOCK.exists():
        return list(found.values())
    names = re.findall(r"^([A-Za-z0-9][\w.-]*)==", OUR_LOCK.read_text(), re.M)
    return [found[name] for name in map(_normal, names) if name in found]


def _show(distribution: Distribution, packages: Path) -> None:
    """Let pip see it as installed: its metadata is enough."""
    about = packages / f"{_normal(distribution.metadata['Name']).replace('-', '_')}-{distribution.version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(distribution.read_text("METADATA") or "")
    (about / "INSTALLER").write_text("cask\n")


def _line(row: dict[str, Any]) -> str:
    about, source = row["metadata"], row["download_info"]
    hashes = source.get("archive_info", {}).get("hashes", {})
    if "sha256" not in hashes:
        raise ModelLoadError(
            f"{about['name']} comes from {source['url']}, which has no hash.",
            hint="Name a released version, or a wheel.",
        )
    return f"{about['name']}=={about['version']} --hash=sha256:{hashes['sha256']}"


def sources(folder: Path, wanted: list[str]) -> Iterator[str]:
    lines = [line.strip() for name in wanted for line in (folder / name).read_text().splitlines()]
    yield from dict.fromkeys(line for line in lines if SOURCES.match(line))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ── running pip ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _pip(folder: Path, *arguments: str) -> None:
    wheels = ("--find-links", str(WHEELS)) if WHEELS.is_dir() else ()
    at = arguments.index("install") + 1
    options = ("--disable-pip-version-check", "--no-input", *arguments[:at], *wheels, *arguments[at:])
    _run(folder, machine.python(), "-m", "pip", *options)


def _run(folder: Path, *command: str) -> None:
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
