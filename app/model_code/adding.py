"""Take a folder with a model.py into the store: ``make model-add CODE=folder``. Whole, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app.errors import GoldenCheckError, ModelLoadError
from app.model_code import class_limits, environments, examples, last_words, pickles
from app.model_code import folder as folders
from app.model_code.model_class import FILE_NAME
from app.model_code.worker import ModelWorker, Spec
from app.models import entries, manifests
from app.models.manifests import CodeSpec, Manifest
from cask import renamed

Progress = Callable[[str], None]
MOST_TOLD = 5


@dataclass(frozen=True)
class NewCode:
    """What is to be added. ``is_trusted``: its pickles may be loaded. ``is_locked``: it has a lock, which is taken.

    ``of_class``: limits that its class may declare, before ``limits``.
    """

    folder: Path
    name: str
    version: str
    description: str = ""
    limits: CodeSpec = field(default_factory=CodeSpec)
    is_trusted: bool = False
    is_locked: bool = False
    of_class: frozenset[str] = frozenset(class_limits.RANGES)


def add(new: NewCode, store: Path, *, force: bool = False, say: Progress = lambda line: None) -> Manifest:
    """Copy the folder, start it once, and write its manifest. Raises ModelLoadError, ManifestError."""
    target = store / new.name / new.version
    entries.check_free(target, force=force)
    if not (new.folder / FILE_NAME).is_file():
        raise ModelLoadError(
            f"{new.folder} holds no {FILE_NAME}.", hint="A model with code is a class in a file of that name."
        )
    environments.check_lists(new.folder)
    _check_pickles(new, say)
    with entries.adding(store, target) as made:
        _copy(new.folder, made)
        if new.is_locked and (made / environments.LOCK).exists():
            environments.install(made, say)
        else:
            environments.make(made, say)
        before = set(folders.files(made))
        running = _tried(new, made, say)
        _check_unwritten(made, before)
        (made / manifests.FILE_NAME).write_text(manifest_text(new, made, running), encoding="utf-8")
        manifests.read(made)
    for old in renamed.in_code(sorted(target.glob("*.py"))):
        say(str(old))
    say(f"added {new.name}@{new.version} to {store}")
    return manifests.read(target)


def _check_pickles(new: NewCode, say: Progress) -> None:
    told = [f"{name} {words}" for name, words in pickles.found(new.folder).items()]
    if told and not new.is_trusted:
        raise ModelLoadError(
            f"{new.folder} holds pickles, which run code when they are loaded: {'; '.join(told[:MOST_TOLD])}.",
            hint="Save weights as safetensors, or add --trust (OPTIONS=--trust) where you know who made them.",
        )
    for line in told:
        say(f"trusted: {line}")


def _copy(source: Path, made: Path) -> None:
    """What the digest covers, readable for the user who serves, and nothing else."""
    found = list(folders.files(source))
    size, free = sum(path.lstat().st_size for path in found), shutil.disk_usage(made.parents[2]).free
    if size > free:
        raise ModelLoadError(
            f"{source} holds {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free where the store lies.",
            hint="Make room, or give --store.",
        )
    for path in found:
        copy = made / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy, follow_symlinks=False)
        copy.chmod(0o644)
    for directory in (made, *(path for path in made.rglob("*") if path.is_dir())):
        directory.chmod(0o755)


def _tried(new: NewCode, made: Path, say: Progress) -> ModelWorker:
    """Started once, for what it promises; its examples were asked, and what they lack is stored."""
    limits = new.limits
    running = ModelWorker(
        Spec(
            f"{new.name}@{new.version}",
            made,
            limits.timeout_seconds,
            limits.load_seconds,
            limits.memory_mb,
            of_class=new.of_class,
        )
    )
    try:
        say("starting it once, to read what it promises")
        running.start()
        _ask_examples(running, made, limits.tolerance, say)
    except ModelLoadError as error:
        # Its owner knows the folder that was copied, and not the copy.
        said = f"{running.spec.key}: {running.reason}".replace(str(made), str(new.folder))
        raise ModelLoadError(said, hint="Mend it, and add it again.") from error
    except GoldenCheckError as error:
        # When the process is gone, all that it wrote is there.
        running.close()
        place = last_words.place(list(running.lines), made)
        said = f"{place}{error.message}".replace(f"{made}/", "")
        raise GoldenCheckError(said, hint=str(error.hint)) from error
    else:
        return running
    finally:
        running.close()


def _ask_examples(running: ModelWorker, made: Path, tolerance: float, say: Progress) -> None:
    found = examples.paths(made)
    if not found:
        return
    say(f"asking its examples: {len(found)}")
    signature, size = running.signature, running.signature["max_batch_size"]
    for name in examples.store_missing(made, signature, running.ask, size):
        say(f"{name} had no expected answer; what was answered now is stored: see that it is right")
    examples.check(made, signature, running.ask, size, tolerance)


def _check_unwritten(made: Path, before: set[Path]) -> None:
    """Where it serves, the folder belongs to another user and may be on a read-only disk."""
    written = [path for path in folders.files(made) if path not in before and examples.FOLDER not in path.parts]
    if written:
        names = ", ".join(str(path.relative_to(made)) for path in written[:5])
        raise ModelLoadError(
            f"The model wrote {names} into its own folder, which is read-only where it serves.",
            hint="Write into a folder of tempfile.mkdtemp(), or make the file before and add it with the model.",
        )


def manifest_text(new: NewCode, made: Path, running: ModelWorker) -> str:
    """TOML. ``made``: the folder whose files the digest covers. ``running``: has said what it promises."""
    signature = running.signature
    limits = {**asdict(new.limits), **{name: getattr(running.spec, name) for name in new.of_class}}
    top = {
        "name": new.name,
        "version": new.version,
        "task": manifests.CODE,
        "architecture": manifests.CODE,
        "weights": FILE_NAME,
        "sha256": folders.digest(made),
        "description": new.description or signature["description"].partition("\n")[0],
    }
    serve = {"max_batch_size": signature["max_batch_size"], "max_queue_delay_ms": signature["max_wait_ms"]}
    # In the order of the parameters, by which values go to them.
    return entries.toml(top, {"serve": serve, "code": {**limits, "signature": json.dumps(signature)}})
