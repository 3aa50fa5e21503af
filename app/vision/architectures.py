"""Networks by name: every classification or detection builder of torchvision, and our own narrow ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from app.errors import ModelLoadError
from app.manifests import InputSpec, Manifest, Task
from app.vision import narrow, selection
from app.vision.operators import torchvision

_RCNNTransform = torchvision.models.detection.transform.GeneralizedRCNNTransform

# Their labels count from 1 and 0 is the background; FCOS and RetinaNet count from 0.
_WITH_BACKGROUND = ("fasterrcnn", "maskrcnn", "keypointrcnn", "ssd")
# Keys of architecture_options that are ours and not the builder's.
FROZEN_BATCH_NORM_EPS = "frozen_batch_norm_eps"


@dataclass(frozen=True)
class Architecture:
    """One builder: its name, what it is for, and whether its first label is the background."""

    name: str
    task: Task
    builder: Callable[..., nn.Module]
    is_own: bool
    has_background: bool = False


@cache
def known() -> dict[str, Architecture]:
    """All architectures by name."""
    models = torchvision.models
    found: dict[str, Architecture] = {}
    for name in models.list_models(module=models):
        found[name] = Architecture(name, "classify", models.get_model_builder(name), is_own=False)
    for name in models.list_models(module=models.detection):
        builder = models.get_model_builder(name)
        found[name] = Architecture(name, "detect", builder, False, name.startswith(_WITH_BACKGROUND))
    for name, own in narrow.CLASSIFIERS.items():
        found[name] = Architecture(name, "classify", own, is_own=True)
    for name, own in narrow.DETECTORS.items():
        found[name] = Architecture(name, "detect", own, is_own=True)
    return found


def find(name: str) -> Architecture:
    """The architecture of this name. Raises ModelLoadError with the nearest names."""
    if name in known():
        return known()[name]
    near = difflib.get_close_matches(name, known(), n=4) or ["resnet50", "fasterrcnn_resnet50_fpn"]
    raise ModelLoadError(
        f"The architecture {name!r} is unknown.",
        hint=f"Near it: {', '.join(near)}. Any classification or detection builder of torchvision is accepted.",
    )


def bare(name: str) -> nn.Module:
    """The network of this name as its builder makes it when nothing is asked. Raises what the builder raises."""
    architecture = known()[name]
    if architecture.is_own:
        return architecture.builder(num_classes=1)
    options: dict[str, Any] = {} if architecture.task == "classify" else {"weights_backbone": None}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    return architecture.builder(weights=None, **options)


def build(manifest: Manifest) -> nn.Module:
    """The network of a manifest in evaluation mode, weights as the builder leaves them.

    A classifier maps normalised images, float32 [B, 3, H, W], to logits [B, labels]. A detector has the interface of
    torchvision's detectors, but neither scales images nor applies thresholds; that is done outside.
    Raises ModelLoadError when the architecture is unknown, of the other task, or refuses its options.
    """
    architecture = find(manifest.architecture)
    if architecture.task != manifest.task:
        raise ModelLoadError(
            f"{manifest.key}: {architecture.name} is for task {architecture.task!r}, the manifest says "
            f"{manifest.task!r}.",
            hint="Set task in the manifest to that of the architecture.",
        )
    options = dict(manifest.architecture_options)
    eps = options.pop(FROZEN_BATCH_NORM_EPS, None)
    network = _call_builder(architecture, len(manifest.labels), options)
    if eps is not None:
        _freeze_batch_norm(network, float(eps))
    if architecture.task == "detect":
        _open_up(network, manifest.input)
    return network.eval()


def _call_builder(architecture: Architecture, classes: int, options: dict[str, Any]) -> nn.Module:
    if not architecture.is_own:
        options = {"weights": None, **options}
    if architecture.task == "detect" and not architecture.is_own:
        # The builders' default is to download a backbone.
        options = {"weights_backbone": None, **options}
    if architecture.name in ("googlenet", "inception_v3"):
        # Minutes of truncated normal values that loading overwrites at once.
        options = {"init_weights": False, **options}
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


class _NormaliseOnly(_RCNNTransform):  # type: ignore[misc,valid-type]
    """torchvision's transform without scaling: the web tier has scaled already, and boxes stay in input pixels."""

    def resize(self, image: torch.Tensor, target: Any = None) -> tuple[torch.Tensor, Any]:
        return image, target

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        return result


def _open_up(network: Any, spec: InputSpec) -> None:
    """Normalise as the manifest says, scale nothing, and let candidates pass: selection has each caller's wishes."""
    divisible = network.transform.size_divisible
    network.transform = _NormaliseOnly(0, 0, list(spec.mean), list(spec.std), size_divisible=divisible)
    judge: Any = getattr(network, "roi_heads", network)
    _leave_out_other_heads(judge)
    judge.score_thresh = 0.0
    judge.nms_thresh = 1.0
    judge.detections_per_img = selection.MAX_CANDIDATES


# Weights of heads that answer something else than boxes; they are not loaded.
OTHER_HEADS = r"roi_heads\.(mask|keypoint)_"


def answers_boxes_only(name: str) -> bool:
    """Whether an architecture finds more than boxes, of which only the boxes are answered here."""
    return name.startswith(("maskrcnn", "keypointrcnn"))


def _leave_out_other_heads(judge: Any) -> None:
    """Masks and keypoints are answered to nobody, and their heads would look at thousands of candidates."""
    for head in ("mask", "keypoint"):
        for part in ("roi_pool", "head", "predictor"):
            if hasattr(judge, f"{head}_{part}"):
                setattr(judge, f"{head}_{part}", None)


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
