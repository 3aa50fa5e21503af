"""The settings of another release of Cask, as its env files say: of a git revision, a bundle or an image."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from app import config
from app.errors import SettingsError

SECONDS = 60.0
# Written there by docker/Dockerfile.
IN_IMAGE = "/app/env"


@dataclass(frozen=True)
class Change:
    """One setting that is not as it was: ``kind`` is new, gone or changed; there and here are its values."""

    kind: str
    name: str
    there: str
    here: str


def changes(root: Path, release: str, env: str) -> list[Change]:
    """What is different here from ``release``, in the env file of ``env``; in the order of this release's file.

    ``release``: a git revision, the file of a bundle, or an image's name. Raises SettingsError when it is none of them.
    """
    path = f"env/{env}.env"
    there = _values(_read(root, release, path))
    here = _values((root / path).read_text(encoding="utf-8"))
    found = [
        Change("new" if name not in there else "changed", name, there.get(name, ""), value)
        for name, value in here.items()
        if there.get(name) != value
    ]
    return found + [Change("gone", name, value, "") for name, value in there.items() if name not in here]


def renamed(name: str, found: list[Change]) -> str:
    """A question whether a setting that is gone has one of the new names; empty where none is like it."""
    return config.did_you_mean(name, [each.name for each in found if each.kind == "new"]).strip()


def _values(text: str) -> dict[str, str]:
    rows = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, sign, value in rows if sign}


def _read(root: Path, release: str, path: str) -> str:
    if Path(release).is_file():
        return _of_bundle(Path(release), path)
    git = ["git", "-c", f"safe.directory={root}", "-C", str(root), "show", f"{release}:{path}"]
    image = ["docker", "run", "--rm", "--network=none", "--entrypoint=cat", release, f"{IN_IMAGE}/{Path(path).name}"]
    # What begins with a dash would be an option of theirs.
    for command in () if release.startswith("-") else (git, image):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return done.stdout
    raise SettingsError(
        f"{release!r} is no git revision with {path}, no bundle and no image here.",
        hint="git tag, ls build/bundle and docker images name them.",
    )


def _of_bundle(file: Path, path: str) -> str:
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if member.isfile() and member.name.partition("/")[2] == f"site/{path}":
                    content = tar.extractfile(member)
                    return content.read().decode() if content else ""
    except (tarfile.TarError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read as a bundle: {error}.", hint="make bundle makes one.") from None
    raise SettingsError(f"{file} holds no site/{path}, so it is no bundle.", hint="make bundle makes one.")
