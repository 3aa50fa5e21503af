"""Put a whole network into the store: ``make model-add FILE=model.onnx TASK=classify``.

The file is converted once, in a process apart, and compared with what it was; torch is not needed to serve it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from app import tasks
from app.errors import ModelLoadError
from app.models import builds, entries, manifests
from app.models.manifests import TENSOR, CodeSpec, Manifest, ServeSpec, ToleranceSpec
from app.runtimes import selection
from app.runtimes.build import sample_store, samples
from app.runtimes.checks import golden_answers
from app.runtimes.importing import label_files, network_files, network_process, timm_networks
from app.runtimes.importing.network_files import NetworkFile
from app.runtimes.importing.network_wanted import RANDOM, Converted, Wanted
from app.runtimes.registry import load_model, load_task_model

Progress = Callable[[str], None]
FILE_NAME = "network.xml"
# Looked at, converted, golden answers, checks.
STEPS = 4
LIMIT_SECONDS, MEMORY_MB = 600.0, 8192
DEPRECATED = (
    "PyTorch has deprecated TorchScript: it is accepted, and torch.export.save(torch.export.export(…)) or ONNX is the "
    "way to go"
)
GOLDEN_PICTURES = 4
# What ``Wanted`` is told by the options of the same name.
READING_OPTIONS = ("values", "layout", "channels", "output", "size", "resize_size", "mean", "std", "input_kind")


@dataclass(frozen=True)
class NewNetwork:
    """What is to be added. ``wanted``: how the file is to be read, without what is found out here.

    ``architecture``: of timm, by name, where the file holds its weights only (or is ``random``).
    """

    file: Path
    task: str
    labels: Path | tuple[str, ...] | None
    name: str
    version: str
    description: str = ""
    wanted: dict[str, object] = field(default_factory=dict)
    serve: ServeSpec = field(default_factory=ServeSpec)
    tolerance: ToleranceSpec = field(default_factory=ToleranceSpec)
    sample_pictures: Path | None = None
    limit_seconds: float = LIMIT_SECONDS
    memory_mb: int = MEMORY_MB
    architecture: str = ""
    builder_options: dict[str, object] = field(default_factory=dict)


def add_network(
    new: NewNetwork,
    store: Path,
    *,
    force: bool = False,
    progress: Progress = lambda line: None,
    advance: Callable[[], None] = lambda: None,
) -> Manifest:
    """Add one version to the store. Raises ModelLoadError, ManifestError, GoldenCheckError; the store is as it was."""
    target = store / new.name / new.version
    entries.check_free(target, force=force)
    if new.task not in (*tasks.NAMES, TENSOR):
        raise ModelLoadError(f"TASK {new.task!r} is unknown.", hint=f"One of: {', '.join((*tasks.NAMES, TENSOR))}.")
    if new.sample_pictures is not None:
        sample_store.check(new.sample_pictures, new.task)
    file = _looked_at(new)
    progress(f"{new.file.name}: {file.about}")
    if file.kind == network_files.TORCHSCRIPT:
        progress(DEPRECATED)
    labels = _labels(new, file)
    if new.architecture:
        timm_networks.check_labels(new.architecture, labels)
    advance()
    with entries.adding(store, target) as made:
        converted = _convert(new, file, labels, made, store, progress)
        labels = _numbered(labels, converted)
        _check_labels(new, labels, converted)
        advance()
        manifest = _manifest(new, file, labels, converted, made)
        if manifest.code:
            _finish_tensors(manifest, new, store, progress, advance)
        else:
            _finish(manifest, new, store, progress, advance)
    progress(f"added {new.name}@{new.version} to {store}")
    return manifests.read(target)


def _looked_at(new: NewNetwork) -> NetworkFile:
    if not new.architecture:
        return network_files.look(new.file)
    timm_networks.check(new.architecture, new.task, str(new.file))
    return NetworkFile(new.file, network_files.TIMM, f"weights of {new.architecture}")


def _labels(new: NewNetwork, file: NetworkFile) -> tuple[str, ...]:
    """Those that were given, else those that the exporter wrote into the file."""
    if not _has_labels(new.task):
        return () if new.task == TENSOR else (new.name,)
    if isinstance(new.labels, Path):
        return label_files.read(new.labels)
    return new.labels or _noted_labels(file)


def _has_labels(task: str) -> bool:
    return task != TENSOR and tasks.BY_NAME[task].model_class.has_labels


def _noted_labels(file: NetworkFile) -> tuple[str, ...]:
    """Ultralytics writes ``names``, a Python dict of number to label."""
    try:
        names = ast.literal_eval(file.notes.get("names", ""))
        return tuple(str(names[number]) for number in range(len(names)))
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        return ()


def _convert(
    new: NewNetwork, file: NetworkFile, labels: tuple[str, ...], made: Path, store: Path, progress: Progress
) -> Converted:
    given = new.sample_pictures
    if given is None and new.task != TENSOR:
        given = sample_store.before(new.name, new.version, store, new.task)
    wanted = Wanted(
        file=RANDOM if _is_random(new) else str(new.file.absolute()),
        kind=file.kind,
        task=new.task,
        labels=len(labels) if _has_labels(new.task) else 0,
        samples=str(given.absolute()) if given else "",
        operators=file.operators,
        opset=file.opset,
        architecture=new.architecture,
        builder_options=new.builder_options,
        **new.wanted,  # type: ignore[arg-type]
    )
    progress("converting it in a process apart, and comparing")
    found = network_process.convert(wanted, made, limit_seconds=new.limit_seconds, memory_mb=new.memory_mb)
    for line in found.said:
        progress(line)
    return found


def _is_random(new: NewNetwork) -> bool:
    return bool(new.architecture) and str(new.file) == RANDOM


def _numbered(labels: tuple[str, ...], found: Converted) -> tuple[str, ...]:
    """With the background first where the network counts labels from 1."""
    is_named = labels and labels[0].strip("_ ").lower() == "background"
    if labels and found.options.get("first_label"):
        return (selection.BACKGROUND_LABEL, *(labels[1:] if is_named else labels))
    return labels


def _check_labels(new: NewNetwork, labels: tuple[str, ...], found: Converted) -> None:
    if not labels and _has_labels(new.task):
        count = f" {found.outputs}" if found.outputs else ""
        raise ModelLoadError(
            f"LABELS is missing, and {new.file.name} does not name its{count} labels.",
            hint="Give a text file with one label a line, in the order of the outputs.",
        )
    if found.outputs and found.outputs != len(labels):
        raise ModelLoadError(
            f"{new.file.name} scores {found.outputs} labels, LABELS has {len(labels)}.",
            hint="One line a label, in the order of the outputs; --output names another output.",
        )


def _manifest(new: NewNetwork, file: NetworkFile, labels: tuple[str, ...], found: Converted, made: Path) -> Manifest:
    serve = replace(new.serve, max_batch_size=1, max_gpu_batch_size=1) if found.is_single else new.serve
    options = dict(found.options)
    if signature := options.pop("signature", None):
        serve = replace(serve, max_batch_size=signature["max_batch_size"])
    manifest = Manifest(
        name=new.name,
        version=new.version,
        task=new.task,
        architecture=new.architecture or file.kind,
        weights=FILE_NAME,
        sha256=builds.digest(made / FILE_NAME),
        labels=labels,
        input=found.input,
        serve=serve,
        tolerance=new.tolerance,
        directory=made,
        digest="",
        description=new.description,
        architecture_options=options,
        code=CodeSpec(signature=json.dumps(signature)) if signature else None,
        golden=golden_answers.FILE_NAME,
        random_weights=_is_random(new),
    )
    entries.check_name(manifest)
    return manifest


def _finish(manifest: Manifest, new: NewNetwork, store: Path, progress: Progress, advance: Callable[[], None]) -> None:
    """Samples, golden answers and manifest; and what the engine will check when it loads it."""
    sample_store.bring(manifest, store, new.sample_pictures, progress)
    progress("predicting the golden answers")
    pictures = [samples.read_one(path, manifest).pixels for path in samples.paths(manifest)[:GOLDEN_PICTURES]]
    golden = golden_answers.make(load_task_model(replace(manifest, golden="")), pictures)
    (manifest.directory / golden_answers.FILE_NAME).write_bytes(golden)
    (manifest.directory / manifests.FILE_NAME).write_text(entries.to_toml(manifest), encoding="utf-8")
    advance()
    progress("loading it as the engine will, and comparing")
    model = load_task_model(manifests.read(manifest.directory))
    model.golden_check()
    model.prove(progress)
    advance()


def _finish_tensors(
    manifest: Manifest, new: NewNetwork, store: Path, progress: Progress, advance: Callable[[], None]
) -> None:
    """Samples; its golden answers lie there already; and what the engine will check when it loads it."""
    sample_store.bring(manifest, store, new.sample_pictures, progress)
    (manifest.directory / manifests.FILE_NAME).write_text(entries.to_toml(manifest), encoding="utf-8")
    advance()
    load_model(manifests.read(manifest.directory)).golden_check()
    advance()
