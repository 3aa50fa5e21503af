"""The first runtime: torch. As it is in fp32 it is the reference; its other forms are candidates of a build.

Other runtimes stand beside it with the same kind of callable, and are made from the networks here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from app import tasks
from app.models.manifests import InputSpec, Manifest
from app.runtimes import architectures, cuda_graphs, streams, weights
from app.runtimes.detector import DetectorRuntime
from app.runtimes.model import Images, Run, warm_up_shape
from app.runtimes.operators import torchvision
from app.runtimes.selection import Candidates

ImageList = torchvision.models.detection.image_list.ImageList


@dataclass(frozen=True)
class Form:
    """How torch holds a network: order of its weights in memory, batch normalisation folded in, type of its numbers;
    and whether it is played back as recordings, on a GPU."""

    is_channels_last: bool = False
    is_fused: bool = False
    is_recorded: bool = False
    dtype: torch.dtype = torch.float32


PLAIN = Form()
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def form(runtime: str, precision: str) -> Form:
    """The form that a candidate's words mean, such as ``torch-fused`` and ``bf16``."""
    is_fused = runtime != "torch" and runtime != "torch-channels-last"
    return Form(runtime != "torch", is_fused, runtime == "torch-graphs", _DTYPES[precision])


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
        logits = self.network(self.normalise(images).to(_dtype(self.network)))
        return torch.softmax(logits.float(), dim=1)


class DenseDetectorNetwork(nn.Module):
    """uint8 [B, 3, H, W] to boxes [B, A, 4] in input pixels and scores [B, A, labels]; what runtimes are made from.

    For networks with the parts of torchvision's FCOS or SSD. With FCOS the score of a label at a place is the geometric
    mean of its probability and of the place's centre-ness (Tian and others, 2019, and torchvision's postprocessing).
    With SSD it is the softmax over labels, of which the background is nobody's answer.
    A, the number of places, follows from the size of the images alone, which makes the outputs' shapes static.
    """

    def __init__(self, network: Any, spec: InputSpec) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.divisible_px = int(network.transform.size_divisible)
        self.is_ssd = isinstance(network, torchvision.models.detection.ssd.SSD)
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = images.shape[-2:]
        padding = (0, -width % self.divisible_px, 0, -height % self.divisible_px)
        padded = nn.functional.pad(self.normalise(images), padding).to(_dtype(self.network))
        maps = list(self.network.backbone(padded).values())
        outputs = {name: output.float() for name, output in self.network.head(maps).items()}
        # Anchors are the same for each image of a batch, and have the maps' type: bf16 knows whole pixels to 256 only.
        image_list = ImageList(padded, [(height, width)])
        anchors = self.network.anchor_generator(image_list, [each[:1].float() for each in maps])[0]
        boxes = self._boxes(outputs["bbox_regression"], anchors.expand_as(outputs["bbox_regression"]))
        limits = torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
        return torch.minimum(boxes.clamp(min=0), limits), self._scores(outputs)

    def _boxes(self, offsets: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        coder = self.network.box_coder
        if not self.is_ssd:
            decoded: torch.Tensor = coder.decode(offsets, anchors)
            return decoded
        rows: torch.Tensor = coder.decode_single(offsets.reshape(-1, 4), anchors.reshape(-1, 4))
        return rows.reshape(offsets.shape)

    def _scores(self, outputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if not self.is_ssd:
            return torch.sqrt(torch.sigmoid(outputs["cls_logits"]) * torch.sigmoid(outputs["bbox_ctrness"]))
        scores = torch.softmax(outputs["cls_logits"], dim=-1)
        return torch.cat([torch.zeros_like(scores[..., :1]), scores[..., 1:]], dim=-1)


class FromChannelsLast(nn.Module):
    """uint8 [B, H, W, 3], the order in which pictures arrive, for a network that takes [B, 3, H, W]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        return self.network(images.permute(0, 3, 1, 2))


def network(manifest: Manifest) -> nn.Module:
    """The manifest's network with its weights, in evaluation mode. Raises ModelLoadError."""
    built = architectures.build(manifest)
    weights.load_into(built, manifest)
    return built


def wrapped(manifest: Manifest, wanted: Form = PLAIN) -> nn.Module:
    """The network from uint8 images to what a runtime answers, in this form. Raises ModelLoadError."""
    built = network(manifest)
    whole = tasks.BY_NAME[manifest.task].model_class.network_class()(built, manifest.input).eval().requires_grad_(False)
    if wanted.is_fused:
        from app.runtimes import batchnorm_folding

        batchnorm_folding.fold_batch_norm(
            built, whole, torch.zeros(1, 3, *warm_up_shape(manifest.input), dtype=torch.uint8)
        )
    built.to(wanted.dtype)
    if wanted.is_channels_last:
        built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return whole


def load(manifest: Manifest, device: str, wanted: Form = PLAIN) -> Run:
    """A network by torch. Raises ModelLoadError."""
    whole, stream = streams.placed(wrapped(manifest, wanted), device), streams.to(device)
    compute = cuda_graphs.Recorded(whole) if wanted.is_recorded else whole

    def run(images: Images) -> list[np.ndarray]:
        with torch.inference_mode(), stream.open():
            outputs = compute(stream.send(images))
            return stream.receive(*(outputs if isinstance(outputs, tuple) else (outputs,)))

    return run


def load_listing(manifest: Manifest, device: str) -> DetectorRuntime:
    """A detector that makes a list of boxes an image inside: two-stage ones, RetinaNet. Raises ModelLoadError."""
    built, stream = streams.placed(network(manifest), device), streams.to(device)

    def run(images: Images, score_threshold: float) -> Sequence[Candidates]:
        with torch.inference_mode(), stream.open():
            found = built(list(stream.send(images).float() / 255))
            return [
                Candidates(*stream.receive(*(one[name] for name in ("boxes", "scores", "labels")))) for one in found
            ]

    return run


def _dtype(built: nn.Module) -> torch.dtype:
    return next(built.parameters()).dtype
