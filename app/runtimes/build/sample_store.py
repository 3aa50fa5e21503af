"""How sample pictures get to a new version: from a folder that was given, else from the version before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from app.errors import ModelLoadError
from app.models import manifests
from app.models.manifests import Manifest
from app.runtimes.build import samples
from app.runtimes.checks import known_answers
from app.storage import files

MOST_PICTURES = 5000

Say = Callable[[str], None]


def bring(manifest: Manifest, store: Path, given: Path | None, say: Say) -> None:
    """Copy sample pictures and their right answers into the folder of a version that is being added.

    ``given``: a folder of pictures, with an index.json or without; None takes what the version that is replaced has,
    else the newest version that has any. Raises ModelLoadError where the given ones cannot be used.
    """
    if given is not None:
        _copy(given, manifest)
        # A label that the model does not know is the team's mistake now; later it would be nobody's.
        known = len(known_answers.read(manifest))
        say(f"{len(samples.paths(manifest))} sample pictures, {known} with a right answer")
        return
    if (earlier := before(manifest.name, manifest.version, store)) is not None:
        _copy(earlier, manifest)
        say(f"the sample pictures of {manifest.name}@{earlier.parent.name} are carried over")
        _drop_other_answers(manifest, say)
        return
    say("it has no sample pictures; give some with SAMPLES=folder: builds and checks compare on them")


def check(given: Path) -> None:
    """Look at a given folder before anything takes long. Raises ModelLoadError where it holds no pictures."""
    found = _pictures(given)
    if not found or len(found) > MOST_PICTURES:
        words = f"holds {len(found)} pictures" if given.is_dir() else "is no folder"
        raise ModelLoadError(
            f"SAMPLES {given} {words}.",
            hint=f"Give a folder with 1 to {MOST_PICTURES} pictures ({', '.join(samples.SUFFIXES)}), as they are sent.",
        )


def before(name: str, version: str, store: Path) -> Path | None:
    """The sample pictures that ``bring`` would take of an earlier version; None where there are none."""
    folders = (store / name / each / samples.FOLDER for each in _before(name, version, store))
    return next((folder for folder in folders if _pictures(folder)), None)


def _before(name: str, version: str, store: Path) -> list[str]:
    """The version itself, where it is replaced, then the others, newest first."""
    others = manifests.versions(store).get(name, [])
    return sorted(others, key=lambda each: (each == version, manifests.version_order(each)), reverse=True)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in samples.SUFFIXES)


def _copy(source: Path, manifest: Manifest) -> None:
    target = samples.folder(manifest)
    target.mkdir(mode=0o755)
    index = source / samples.INDEX_FILE
    for path in (*_pictures(source), *([index] if index.exists() else [])):
        try:
            files.check(path, samples.MAX_PICTURE_BYTES)
            shutil.copyfile(path, target / path.name)
        except OSError as error:
            raise ModelLoadError(f"{path} cannot be read: {files.reason(error)}.", hint="Remove it.") from None


def _drop_other_answers(manifest: Manifest, say: Say) -> None:
    """Right answers that name labels which the new version does not have are not its own."""
    try:
        known_answers.read(manifest)
    except ModelLoadError as error:
        (samples.folder(manifest) / samples.INDEX_FILE).unlink(missing_ok=True)
        # The folder in which the version is being made is nothing to people.
        say(f"their right answers are not: {error.message.replace(f'{samples.folder(manifest)}/', '')}")
