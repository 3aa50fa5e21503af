"""torchvision's detectors without scaling and thresholds of their own, which the web tier and selection have."""

from __future__ import annotations

from typing import Any

import torch

from app.models.manifests import InputSpec
from app.runtimes import selection
from app.runtimes.operators import torchvision

_RCNNTransform = torchvision.models.detection.transform.GeneralizedRCNNTransform


class _NormaliseOnly(_RCNNTransform):  # type: ignore[misc,valid-type]
    """torchvision's transform without scaling: the web tier has scaled already, and boxes stay in input pixels."""

    def resize(self, image: torch.Tensor, target: Any = None) -> tuple[torch.Tensor, Any]:
        return image, target

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        return result


def open_up(network: Any, spec: InputSpec, *, keeps_masks: bool = False) -> None:
    """Normalise as the manifest says, scale nothing, and let candidates pass: selection has each caller's params.

    ``keeps_masks``: the head for masks stays, and is asked apart, for the boxes that are wanted.
    """
    divisible = network.transform.size_divisible
    network.transform = _NormaliseOnly(0, 0, list(spec.mean), list(spec.std), size_divisible=divisible)
    judge: Any = getattr(network, "roi_heads", network)
    if keeps_masks:
        judge.has_mask = lambda: False
    else:
        _leave_out_other_heads(judge)
    judge.score_thresh = 0.0
    judge.nms_thresh = 1.0
    judge.detections_per_img = selection.MAX_CANDIDATES


def _leave_out_other_heads(judge: Any) -> None:
    """Masks and keypoints are answered to nobody, and their heads would look at thousands of candidates."""
    for head in ("mask", "keypoint"):
        for part in ("roi_pool", "head", "predictor"):
            if hasattr(judge, f"{head}_{part}"):
                setattr(judge, f"{head}_{part}", None)
