"""The first runtime: torch as it is, fp32. Others stand beside it with the same two kinds of callable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from app.manifests import InputSpec, Manifest
from app.vision import architectures, narrow, selection, weights
from app.vision.classifier import ClassifierRuntime
from app.vision.detector import DetectorRuntime
from app.vision.model import Images
from app.vision.operators import torchvision
from app.vision.selection import Candidates

ImageList = torchvision.models.detection.image_list.ImageList


class Normalise(nn.Module):
    """uint8 [B, 3, H, W] to float32: (value / 255 - mean) / std a channel, as one multiplication and one addition."""

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() * self.scale + self.offset


class ClassifierNetwork(nn.Module):
    """uint8 [B, 3, H, W] to probabilities, float32 [B, labels]; what other runtimes are made from."""

    def __init__(self, network: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(self.normalise(images)), dim=1)


class DenseDetectorNetwork(nn.Module):
    """uint8 [B, 3, H, W] to boxes [B, A, 4] in input pixels and scores [B, A, labels]; what runtimes are made from.

    For networks with the parts of torchvision's FCOS. The score of a label at a place is the geometric mean of its
    probability and of the place's centre-ness (FCOS, Tian and others, 2019, and torchvision's postprocessing).
    A, the number of places, follows from the size of the images alone, which makes the outputs' shapes static.
    """

    def __init__(self, network: Any, spec: InputSpec) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.divisible_px = int(network.transform.size_divisible)
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = images.shape[-2:]
        padding = (0, -width % self.divisible_px, 0, -height % self.divisible_px)
        padded = nn.functional.pad(self.normalise(images), padding)
        maps = list(self.network.backbone(padded).values())
        outputs = self.network.head(maps)
        sizes = [(height, width)] * len(images)
        image_list = ImageList(padded, sizes)
        anchors = self.network.anchor_generator(image_list, maps)[0]
        boxes = self.network.box_coder.decode(outputs["bbox_regression"], anchors.expand(len(images), -1, -1))
        limits = torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        scores = torch.sqrt(torch.sigmoid(outputs["cls_logits"]) * torch.sigmoid(outputs["bbox_ctrness"]))
        return boxes, scores


def network(manifest: Manifest) -> nn.Module:
    """The manifest's network with its weights, in evaluation mode. Raises ModelLoadError."""
    built = architectures.build(manifest)
    weights.load_into(built, manifest)
    return built


def is_dense(built: nn.Module) -> bool:
    """Whether a detector's network can be wrapped in DenseDetectorNetwork."""
    return isinstance(built, narrow.fcos.FCOS)


def classifier_runtime(manifest: Manifest, device: str) -> ClassifierRuntime:
    """Probabilities by torch. Raises ModelLoadError."""
    wrapped = ClassifierNetwork(network(manifest), manifest.input).eval().to(device)

    def run(images: Images) -> np.ndarray:
        with torch.inference_mode():
            probabilities: np.ndarray = wrapped(_tensor(images, device)).cpu().numpy()
            return probabilities

    return run


def detector_runtime(manifest: Manifest, device: str) -> DetectorRuntime:
    """Candidates by torch. Raises ModelLoadError."""
    built = network(manifest).to(device)
    return _dense_runtime(built, manifest.input, device) if is_dense(built) else _listing_runtime(built, device)


def _dense_runtime(built: nn.Module, spec: InputSpec, device: str) -> DetectorRuntime:
    wrapped = DenseDetectorNetwork(built, spec).eval().to(device)

    def run(images: Images, score_threshold: float) -> Sequence[Candidates]:
        with torch.inference_mode():
            boxes, scores = (t.cpu().numpy() for t in wrapped(_tensor(images, device)))
        return [selection.flatten(b, s, score_threshold) for b, s in zip(boxes, scores, strict=True)]

    return run


def _listing_runtime(built: nn.Module, device: str) -> DetectorRuntime:
    """For detectors that make a list of boxes an image inside: two-stage ones, SSD, RetinaNet."""

    def run(images: Images, score_threshold: float) -> Sequence[Candidates]:
        with torch.inference_mode():
            found = built(list(_tensor(images, device).float() / 255))
        return [Candidates(*(one[name].cpu().numpy() for name in ("boxes", "scores", "labels"))) for one in found]

    return run


def _tensor(images: Images, device: str) -> torch.Tensor:
    """uint8 [B, H, W, 3] to [B, 3, H, W] on the device; the memory stays in the order of channels_last."""
    return torch.from_numpy(np.require(images, requirements=["C", "W"])).permute(0, 3, 1, 2).to(device)
