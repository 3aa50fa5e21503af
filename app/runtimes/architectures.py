"""Networks by name: every builder of torchvision that a task names, and our own narrow ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn

from app import tasks
from app.errors import ModelLoadError
from app.models.manifests import Manifest, Task
from app.runtimes import selection
from app.runtimes.importing import timm_networks
from app.runtimes.operators import torchvision

# Keys of architecture_options that are ours and not the builder's.
FROZEN_BATCH_NORM_EPS = "frozen_batch_norm_eps"


@dataclass(frozen=True)
class Architecture:
    """One builder: its name, what it is for, and whether its first label is the background."""

    name: str
    task: Task
    builder: Callable[..., nn.Module]
    is_own: bool = False
    has_background: bool = False
    # What the builder is given, unless the manifest says otherwise.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # What it may be asked instead.
    other_tasks: tuple[Task, ...] = ()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All it may be asked, the usual one first."""
        return (self.task, *self.other_tasks)


@cache
def known() -> dict[str, Architecture]:
    """All architectures by name."""
    return {each.name: each for task in tasks.ALL for each in task.model_class.architectures(task.name)}


def find(name: str) -> Architecture:
    """The architecture of this name. Raises ModelLoadError with the nearest names."""
    if name in known():
        return known()[name]
    timm_networks.refuse_places(name)
    plain = re.split(r"[:/]", name)[-1].lower()
    near = difflib.get_close_matches(plain, known(), n=4) or ["resnet50", "fasterrcnn_resnet50_fpn"]
    if plain in torchvision.models.list_models() and plain not in known():
        hint = f"Near it: {', '.join(near)}."
        raise ModelLoadError(f"{plain} is a network of torchvision for something else ({_purpose(plain)}).", hint=hint)
    raise ModelLoadError(
        f"The architecture {name!r} is unknown.",
        hint=f"Near it: {', '.join(near)}. Any builder of torchvision for {', '.join(tasks.NAMES)} is accepted, and "
        f"timm's for pictures: ARCH={timm_networks.PREFIX}NAME.",
    )


def _purpose(name: str) -> str:
    """The part of torchvision that a builder is of, such as ``video`` or ``quantization``."""
    return str(torchvision.models.get_model_builder(name).__module__.split(".")[2])


def bare(name: str) -> nn.Module:
    """The network of this name as its builder makes it when nothing is asked. Raises what the builder raises."""
    architecture = known()[name]
    if architecture.is_own:
        return architecture.builder(num_classes=1)
    return architecture.builder(**architecture.defaults)


def build(manifest: Manifest) -> nn.Module:
    """The network of a manifest in evaluation mode, weights as the builder leaves them.

    It has the interface of torchvision's networks for its task, changed as ``TaskModel.prepare`` says.
    Raises ModelLoadError when the architecture is unknown, of the other task, or refuses its options.
    """
    architecture = find(manifest.architecture)
    if manifest.task not in architecture.tasks:
        raise ModelLoadError(
            f"{manifest.key}: {architecture.name} is for task {' or '.join(map(repr, architecture.tasks))}, "
            f"the manifest says {manifest.task!r}.",
            hint="Set task in the manifest to that of the architecture.",
        )
    options = dict(manifest.architecture_options)
    eps = options.pop(FROZEN_BATCH_NORM_EPS, None)
    network = _call_builder(architecture, len(manifest.labels), options)
    if eps is not None:
        _freeze_batch_norm(network, float(eps))
    tasks.BY_NAME[manifest.task].model_class.prepare(network, manifest.input)
    return network.eval()


def _call_builder(architecture: Architecture, classes: int, options: dict[str, Any]) -> nn.Module:
    options = {**architecture.defaults, **options}
    try:
        return architecture.builder(num_classes=classes, **options)
    except (TypeError, ValueError) as error:
        raise ModelLoadError(
            f"{architecture.name} cannot be built for {classes} labels: {error}.",
            hint="Correct architecture_options in the manifest; they go to the builder as they are.",
        ) from None


def _freeze_batch_norm(network: nn.Module, eps: float) -> None:
    """Replace each BatchNorm2d by its frozen form, as torchvision does where it loads published detectors."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, torchvision.ops.misc.FrozenBatchNorm2d(child.num_features, eps))
        else:
            _freeze_batch_norm(child, eps)


def answers_boxes_only(manifest: Manifest) -> bool:
    """Whether the architecture finds more than boxes, of which only the boxes are answered here."""
    architecture = find(manifest.architecture)
    return manifest.task in architecture.other_tasks or architecture.name.startswith("keypointrcnn")


def output_names(architecture: Architecture, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Labels in the order of the network's outputs: with the background first where the architecture counts it."""
    if not architecture.has_background:
        return labels
    named = [number for number, label in enumerate(labels) if label.strip("_ ").lower() == "background"]
    if named and named != [0]:
        raise ModelLoadError(
            f"The background is label {named[-1]} of {len(labels)} (counted from 0); {architecture.name} has it first.",
            hint="Put it first, or leave it out of the list: it is put there then.",
        )
    return (selection.BACKGROUND_LABEL, *(labels[1:] if named else labels))
