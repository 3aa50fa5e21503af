"""torchvision's Mask R-CNN in two steps: boxes of every score first, then the masks of those that a caller gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from app.inference.mask_patches import Patch
from app.inference.results import Box
from app.models.manifests import Manifest
from app.runtimes import streams, torch_runtime
from app.runtimes.mask_heads import FindInstances, Found
from app.runtimes.model import Images
from app.runtimes.selection import Candidates


def load(manifest: Manifest, device: str) -> FindInstances:
    """The network by torch. Raises ModelLoadError."""
    built: Any = streams.placed(torch_runtime.network(manifest), device)
    stream = streams.to(device)

    def find(images: Images, score_threshold: float) -> Sequence[Found]:
        with torch.inference_mode(), stream.open():
            pictures, _ = built.transform(list(stream.send(images).float() / 255))
            maps = built.backbone(pictures.tensors)
            proposals, _ = built.rpn(pictures, maps)
            found, _ = built.roi_heads(maps, proposals, pictures.image_sizes)
            return [
                Found(Candidates(*stream.receive(*(one[name] for name in ("boxes", "scores", "labels")))), masks_of)
                for number, one in enumerate(found)
                for masks_of in [_Masks(built.roi_heads, maps, number, pictures.image_sizes[number], one, stream)]
            ]

    return find


class _Masks:
    """What is kept of one picture until it is known whose masks are wanted."""

    def __init__(self, heads: Any, maps: Any, number: int, size: Any, one: Any, stream: Any) -> None:
        self._heads, self._size, self._one, self._stream = heads, size, one, stream
        self._maps = {name: each[number : number + 1] for name, each in maps.items()}

    def __call__(self, kept: np.ndarray) -> list[Patch]:
        if not len(kept):
            return []
        with torch.inference_mode(), self._stream.open():
            rows = torch.from_numpy(kept).to(self._one["boxes"].device)
            boxes, classes = self._one["boxes"][rows], self._one["labels"][rows]
            cells = self._heads.mask_head(self._heads.mask_roi_pool(self._maps, [boxes], [self._size]))
            logits = self._heads.mask_predictor(cells)[torch.arange(len(rows)), classes]
            corners, shares = self._stream.receive(boxes, (logits.sigmoid() * 255).round().to(torch.uint8))
        areas = [Box(*map(float, each)) for each in corners]
        return [Patch(each, area, area) for each, area in zip(shares, areas, strict=True)]
