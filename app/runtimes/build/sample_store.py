"""How sample pictures and arrays get to a new version: from a folder that was given, else from the version before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from app.errors import ModelLoadError
from app.models import manifests
from app.models.manifests import TENSOR, Manifest
from app.runtimes.build import array_samples, samples
from app.runtimes.checks import known_answers
from app.storage import files

MOST_PICTURES = 5000

Say = Callable[[str], None]


def bring(manifest: Manifest, store: Path, given: Path | None, say: Say) -> None:
    """Copy sample pictures and their right answers into the folder of a version that is being added.

    ``given``: a folder of pictures, with an index.json or without; None takes what the version that is replaced has,
    else the newest version that has any. Raises ModelLoadError where the given ones cannot be used.
    """
    if manifest.task == TENSOR:
        _bring_arrays(manifest, store, given, say)
        return
    if given is not None:
        _copy(given, manifest)
        # A label that the model does not know is the team's mistake now; later it would be nobody's.
        known = len(known_answers.read(manifest))
        say(f"{len(samples.paths(manifest))} sample pictures, {known} with a right answer")
        return
    if (earlier := before(manifest.name, manifest.version, store, manifest.task)) is not None:
        _copy(earlier, manifest)
        say(f"the sample pictures of {manifest.name}@{earlier.parent.name} are carried over")
        _drop_other_answers(manifest, say)
        return
    say("it has no sample pictures; give some with SAMPLES=folder: builds and checks compare on them")


def _bring_arrays(manifest: Manifest, store: Path, given: Path | None, say: Say) -> None:
    wanted = array_samples.inputs(manifest)
    source = given or before(manifest.name, manifest.version, store, TENSOR)
    if source is None:
        say("it has no sample arrays, so it is served in fp32; give some with SAMPLES=folder: builds compare on them")
        return
    try:
        count = len(array_samples.read(source, wanted))
    except ModelLoadError as error:
        if given is not None:
            raise
        say(f"the sample arrays of {manifest.name}@{source.parent.name} are left out: {error.message}")
        return
    _copy(source, manifest)
    from_before = "" if given else f", carried over from {manifest.name}@{source.parent.name}"
    say(f"{count} sample items{from_before}")


def check(given: Path, task: str) -> None:
    """Look at a given folder before anything takes long. Raises ModelLoadError where it holds nothing for the task."""
    found = _files(given, task)
    what, suffixes = ("arrays", array_samples.SUFFIXES) if task == TENSOR else ("pictures", samples.SUFFIXES)
    if not found or len(found) > MOST_PICTURES:
        words = f"holds {len(found)} {what}" if given.is_dir() else "is no folder"
        raise ModelLoadError(
            f"SAMPLES {given} {words}.",
            hint=f"Give a folder with 1 to {MOST_PICTURES} {what} ({', '.join(suffixes)}), as they are sent.",
        )


def before(name: str, version: str, store: Path, task: str) -> Path | None:
    """The samples that ``bring`` would take of an earlier version; None where there are none."""
    folders = (store / name / each / samples.FOLDER for each in _before(name, version, store))
    return next((folder for folder in folders if _files(folder, task)), None)


def _before(name: str, version: str, store: Path) -> list[str]:
    """The version itself, where it is replaced, then the others, newest first."""
    others = manifests.versions(store).get(name, [])
    return sorted(others, key=lambda each: (each == version, manifests.version_order(each)), reverse=True)


def _files(folder: Path, task: str) -> list[Path]:
    if task == TENSOR:
        return array_samples.paths(folder)
    return samples.pictures_in(folder)


def _copy(source: Path, manifest: Manifest) -> None:
    target = samples.folder(manifest)
    target.mkdir(mode=0o755)
    index, is_arrays = source / samples.INDEX_FILE, manifest.task == TENSOR
    for path in (*_files(source, manifest.task), *([index] if index.exists() and not is_arrays else [])):
        try:
            files.check(path, array_samples.MAX_BYTES if is_arrays else samples.MAX_PICTURE_BYTES)
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
