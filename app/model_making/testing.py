"""Run every check on one model: in a scratch store, from a copy, with an environment made anew."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from app.config import Settings
from app.errors import CaskError, GoldenCheckError, ModelLoadError
from app.model_code import adding, examples
from app.model_code import folder as folders
from app.model_code.adding import NewCode
from app.model_making import checks
from app.model_making.stand import Stand
from app.model_making.trial import CheckError, Trial
from app.models import manifests
from app.models.manifests import CodeSpec, Manifest


@dataclass(frozen=True)
class Subject:
    """What is tested. ``folder``: where its files lie. ``added``: its manifest where it lies in a store."""

    name: str
    folder: Path
    limits: CodeSpec
    added: Manifest | None = None
    is_trusted: bool = False
    of_class: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """How one check ended: ``ok``, ``fail``, or ``skip`` where one before it left nothing to test."""

    verdict: str
    check: str
    words: str
    seconds: float
    hint: str = ""


def run(subject: Subject, settings: Settings, *, writes_expected: bool = False) -> Iterator[Verdict]:
    """One verdict a check, as soon as it is there. After one that fails the rest is skipped.

    ``writes_expected``: the answers to its examples are written beside them, over older ones.
    """
    with tempfile.TemporaryDirectory(prefix="cask-test-") as scratch:
        started = time.monotonic()
        try:
            manifest = _added(subject, Path(scratch), writes_expected=writes_expected)
            asked = examples.paths(manifest.directory)
            stored = len(list((subject.folder / examples.FOLDER).glob(f"*{examples.EXPECTED}")))
            expected = "written beside them" if writes_expected else f"{stored} of them as before"
            with closing(Stand(manifest, settings)) as stand:
                yield Verdict("ok", "added", _promise(manifest), time.monotonic() - started)
                yield from _checked(Trial(stand, asked, expected))
        except CaskError as error:
            check = "examples" if isinstance(error, GoldenCheckError) else "added"
            yield Verdict("fail", check, str(error.message), time.monotonic() - started, str(error.hint))


def _checked(trial: Trial) -> Iterator[Verdict]:
    gone = ""
    for name, check in checks.CHECKS.items():
        started = time.monotonic()
        if gone:
            yield Verdict("skip", name, f"not run, as {gone} failed", 0.0)
            continue
        try:
            yield Verdict("ok", name, check(trial), time.monotonic() - started)
        except CheckError as error:
            yield Verdict("fail", name, str(error), time.monotonic() - started, error.hint)
            gone = name


def _added(subject: Subject, scratch: Path, *, writes_expected: bool) -> Manifest:
    """A copy in a store of its own. Raises ManifestError, ModelLoadError, GoldenCheckError."""
    if subject.added and (digest := folders.digest(subject.folder)) != subject.added.sha256:
        raise ModelLoadError(
            f"{subject.folder} was altered after it was added: its digest is {digest[:16]}…, "
            f"the manifest has {subject.added.sha256[:16]}…",
            hint="Add it again under another version: make model-add.",
        )
    name = subject.name if manifests.NAME_PATTERN.fullmatch(subject.name) else "model"
    limits = replace(subject.limits, signature="{}")
    source = _without_expected(subject.folder, scratch / "source") if writes_expected else subject.folder
    try:
        manifest = adding.add(
            NewCode(source, name, "1", "", limits, subject.is_trusted, subject.added is not None, subject.of_class),
            scratch / "models",
        )
    except CaskError as error:
        said = str(error.message).replace(str(source), str(subject.folder))
        raise type(error)(said, hint=str(error.hint)) from error
    for path in (manifest.directory / examples.FOLDER).glob(f"*{examples.EXPECTED}") if writes_expected else ():
        shutil.copyfile(path, subject.folder / examples.FOLDER / path.name)
    return manifest


def _without_expected(folder: Path, copy: Path) -> Path:
    """So that what is answered now is stored as the expected answers."""
    shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(*folders.LEFT_OUT))
    for path in (copy / examples.FOLDER).glob(f"*{examples.EXPECTED}"):
        path.unlink()
    return copy


def _promise(manifest: Manifest) -> str:
    signature = manifest.signature
    options = f", options {', '.join(signature['options'])}" if signature["options"] else ""
    return f"takes {', '.join(signature['inputs'])}{options}; batches of {manifest.serve.max_batch_size}"
