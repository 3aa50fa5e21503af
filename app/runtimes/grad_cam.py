"""Where a classifier looked, by gradients: Grad-CAM with torch, for what torch computes. A few lines of our own.

The channels of the last feature map are weighted with the mean over places of the score's gradient, and what speaks
for the label is kept: L = relu(sum over k of a_k * A_k), a_k = mean over (i, j) of dy / dA_k,ij (Selvaraju and others,
"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017, equations 1 and 2).
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

from app.errors import ExplanationUnsupportedError
from app.models.manifests import Manifest
from app.runtimes import torch_runtime
from app.runtimes.classifier import Explainer

METHOD = "grad_cam"
# Their feature maps are no maps of places by the time that the label is decided.
ATTENTION = ("vit_", "swin_", "maxvit")


def explainer(manifest: Manifest) -> Explainer:
    """The map of one label on one image, by a network of its own in fp32 on the processor.

    Raises ModelLoadError, ExplanationUnsupportedError.
    """
    if manifest.architecture.startswith(ATTENTION):
        raise ExplanationUnsupportedError(
            "%(name)s decides by attention; Grad-CAM explains convolutions.",
            hint="Leave explain out.",
            name=manifest.architecture,
        )
    network = torch_runtime.network(manifest).requires_grad_(False)
    normalise, lock = torch_runtime.Normalise(manifest.input), threading.Lock()

    def explain(image: np.ndarray, label: int | None) -> tuple[int, float, np.ndarray]:
        # The hooks belong to the network, so two threads must not run it at once.
        with lock, torch.enable_grad():
            pixels = normalise(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]).requires_grad_()
            logits, features = _forward(network, pixels)
            scores = torch.softmax(logits.detach(), dim=1)[0]
            chosen = int(scores.argmax()) if label is None else label
            (gradient,) = torch.autograd.grad(logits[0, chosen], features)
            weights = gradient.mean((2, 3), keepdim=True)
            found = torch.relu((weights * features).sum(1))[0]
        return chosen, float(scores[chosen]), found.detach().numpy()

    return explain


def _forward(network: torch.nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits, and the last feature map on the way: the output of the module that ended last with one."""
    seen: list[torch.Tensor] = []

    def note(_: Any, __: Any, output: Any) -> None:
        output = output[-1] if isinstance(output, list) and output else output
        if isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[-1] * output.shape[-2] > 1:
            seen.append(output)

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        logits = network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ExplanationUnsupportedError("The network has no feature map.", hint="Leave explain out.")
    return logits, seen[-1]
