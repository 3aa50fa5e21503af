"""Put a model into the store: ``flask model add``, which is ``make model-add``.

Writes models/<name>/<version>/ with manifest.toml, weights.safetensors and golden.safetensors. The folder appears at
once and whole, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app import tasks
from app.errors import ModelLoadError
from app.models import entries, manifests
from app.models.manifests import InputKind, InputSpec, Manifest, ServeSpec, ToleranceSpec
from app.runtimes import architectures, weights
from app.runtimes.architectures import Architecture
from app.runtimes.build import sample_store
from app.runtimes.checks import golden_answers, proof, reference
from app.runtimes.importing import checkpoints, label_files, published, weight_files
from app.runtimes.importing.network_wanted import RANDOM, RANDOM_SEED
from app.runtimes.registry import load_task_model

DEFAULT = "DEFAULT"
WEIGHTS_FILE_NAME = "weights.safetensors"
# Classes of a random model for which nobody gave labels and torchvision has none either.
RANDOM_CLASSES = 10

Progress = Callable[[str], None]
# Weights, golden answers, a check as the engine makes it, a check of pictures whose right answer is known.
STEPS = 4


@dataclass(frozen=True)
class NewModel:
    """What is to be added, as its owner describes it.

    ``arch``: an architecture's name. ``weights``: a .safetensors or .pth file, ``DEFAULT`` (torchvision's published
    ones) or ``random`` (fixed seed). ``labels``: a text file with one label a line, or the labels; None where the
    weights bring them. ``input_spec``: how images are scaled; None for the architecture's usual way.
    ``sample_pictures``: a folder of them; None takes those of the version before. ``golden_pictures``: inputs for the
    golden file. ``half`` stores fp16. ``task``: one of
    the architecture's, empty for the usual one.
    """

    arch: str
    weights: str
    labels: Path | Sequence[str] | None
    name: str
    version: str
    description: str = ""
    input_spec: InputSpec | None = None
    serve: ServeSpec = field(default_factory=ServeSpec)
    tolerance: ToleranceSpec = field(default_factory=ToleranceSpec)
    sample_pictures: Path | None = None
    architecture_options: dict[str, Any] = field(default_factory=dict)
    demonstration: bool = False
    aliases: dict[str, str] | None = None
    held_out: dict[str, Any] | None = None
    golden_pictures: Sequence[np.ndarray] = ()
    half: bool = False
    task: str = ""


def add_model(
    new: NewModel,
    store: Path,
    *,
    force: bool = False,
    progress: Progress = lambda line: None,
    advance: Callable[[], None] = lambda: None,
    open_url: published.OpenUrl = published.open_url,
) -> Manifest:
    """Add one version of one model to the store and return its manifest.

    An existing version is kept unless ``force``. ``advance`` is called after each of ``STEPS``. Raises ModelLoadError
    or ManifestError, and leaves the store as it was.
    """
    architecture = architectures.find(new.arch)
    target = store / new.name / new.version
    entries.check_free(target, force=force)
    known = published.describe(architecture)
    manifest = _manifest(new, architecture, known, target)
    entries.check_name(manifest)
    if new.sample_pictures is not None:
        sample_store.check(new.sample_pictures, new.task)
    _tell_what_is_odd(new, manifest, progress)
    with entries.adding(store, target) as made:
        read = partial(_tensors, manifest, new.weights, known, progress, open_url)
        _write_version(made, new, manifest, read, progress, advance)
        sample_store.bring(replace(manifest, directory=made), store, new.sample_pictures, progress)
        model = load_task_model(manifests.read(made))
        model.prove(progress)
        if known and known.transform and _are_published(new.weights, known):
            progress(reference.compare(model, known.transform, known.labels, proof.originals(model)))
        advance()
    progress(f"added {new.name}@{new.version} to {store}")
    return manifests.read(target)


def _tell_what_is_odd(new: NewModel, manifest: Manifest, progress: Progress) -> None:
    if architectures.answers_boxes_only(manifest):
        progress(f"boxes only: the masks or keypoints of {new.arch} are left out, of the answers and of the computing")
    for sentence in label_files.repeated(manifest.labels if new.labels is not None else ()):
        progress(sentence)


def _manifest(
    new: NewModel, architecture: Architecture, known: published.Published | None, directory: Path
) -> Manifest:
    options = new.architecture_options
    if known and _are_published(new.weights, known):
        options = {**known.options, **options}
    return Manifest(
        name=new.name,
        version=new.version,
        task=new.task or architecture.task,
        architecture=new.arch,
        weights=WEIGHTS_FILE_NAME,
        sha256="0" * 64,
        labels=_labels(architecture, new.weights, new.labels, known),
        input=new.input_spec or _usual_input(architecture, known),
        serve=new.serve,
        tolerance=new.tolerance,
        directory=directory,
        digest="",
        description=new.description,
        demonstration=new.demonstration,
        aliases=new.aliases or {},
        random_weights=new.weights == RANDOM,
        architecture_options=options,
        held_out=new.held_out or {},
    )


def _are_published(weights_from: str, known: published.Published) -> bool:
    """Whether these are torchvision's own weights: asked for by name, or downloaded by hand and not renamed."""
    return weights_from == DEFAULT or Path(weights_from).name == known.file_name


def _labels(
    architecture: Architecture,
    weights_from: str,
    labels: Path | Sequence[str] | None,
    known: published.Published | None,
) -> tuple[str, ...]:
    if labels is None:
        if known and (weights_from == RANDOM or _are_published(weights_from, known)):
            return known.labels
        if weights_from == RANDOM:
            given = tuple(f"class {i}" for i in range(RANDOM_CLASSES))
            return architectures.output_names(architecture, given)
        raise ModelLoadError(
            "LABELS is missing.", hint="Give a text file with one label a line, in the order of the model's outputs."
        )
    given = label_files.read(labels) if isinstance(labels, Path) else tuple(labels)
    return architectures.output_names(architecture, given)


def _usual_input(architecture: Architecture, known: published.Published | None) -> InputSpec:
    return tasks.BY_NAME[architecture.task].model_class.usual_input(architecture, known)


def _tensors(
    manifest: Manifest,
    weights_from: str,
    known: published.Published | None,
    progress: Progress,
    open_url: published.OpenUrl,
) -> weights.Tensors:
    """The weights, proven to fit the architecture."""
    if weights_from == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return dict(architectures.build(manifest).state_dict())
    if weights_from == DEFAULT:
        if known is None:
            raise ModelLoadError(
                f"torchvision publishes no weights for {manifest.architecture}.", hint="Give a file, or random."
            )
        tensors = published.download(known, progress, open_url)
    else:
        tensors = weight_files.read(Path(weights_from))
    found = checkpoints.fitting(
        architectures.build(manifest),
        tensors,
        weights_from,
        manifest.labels,
        tasks.BY_NAME[manifest.task].model_class.other_heads,
    )
    for note in found.notes:
        progress(note)
    return found.tensors


def _write_version(
    made: Path,
    new: NewModel,
    manifest: Manifest,
    read: Callable[[], weights.Tensors],
    progress: Progress,
    advance: Callable[[], None],
) -> None:
    """Write the version into the folder ``made``, load it and check it."""
    progress(f"reading the weights of {manifest.architecture} ({new.weights})")
    digest = weights.write(made / WEIGHTS_FILE_NAME, read(), half=new.half)
    advance()
    manifest = replace(manifest, directory=made, sha256=digest)
    progress("predicting the golden answers")
    (made / golden_answers.FILE_NAME).write_bytes(golden_answers.make(load_task_model(manifest), new.golden_pictures))
    manifest = replace(manifest, golden=golden_answers.FILE_NAME)
    advance()
    (made / manifests.FILE_NAME).write_text(entries.to_toml(manifest), encoding="utf-8")
    progress("loading it as the engine will, and comparing")
    load_task_model(manifests.read(made)).golden_check()
    advance()


def input_spec(
    arch: str,
    kind: InputKind | None,
    sizes: Mapping[str, int],
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> InputSpec | None:
    """The scaling that was asked for; None when nothing was. ``sizes``: fields of InputSpec, in pixels; 0 is not asked.

    Raises ModelLoadError for an unknown architecture.
    """
    asked: dict[str, Any] = {key: value for key, value in sizes.items() if value}
    asked |= {key: value for key, value in (("mean", mean), ("std", std)) if value}
    if not (kind or asked):
        return None
    architecture = architectures.find(arch)
    usual = _usual_input(architecture, published.describe(architecture))
    if kind and kind != usual.kind:
        return InputSpec(kind, **({"mean": usual.mean, "std": usual.std} | asked))
    return replace(usual, **asked)
