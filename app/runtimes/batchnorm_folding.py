"""Fold each batch normalisation into the convolution before it: one step less a layer, the same numbers.

Works on any network by watching one forward pass, because detectors cannot be traced symbolically. What is folded
wrongly shows in the agreement with the reference, and is not chosen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from app.runtimes.operators import torchvision

NORMS = (nn.BatchNorm2d, torchvision.ops.misc.FrozenBatchNorm2d)
Pairs = dict[nn.Module, set[nn.Module]]


def fold_batch_norm(network: nn.Module, watched: nn.Module, example: torch.Tensor) -> int:
    """Fold in place what can be folded in ``network``; returns how many normalisations went.

    ``watched`` is what is called with ``example``, and holds the network. A normalisation is folded when all it gets
    comes from one convolution, and that convolution feeds no other.
    """
    befores = _watch(network, watched, example)
    uses = [conv for convs in befores.values() for conv in convs]
    folded: dict[nn.Module, nn.Module] = {}
    for norm, convs in befores.items():
        conv = next(iter(convs))
        if len(convs) == 1 and uses.count(conv) == 1 and isinstance(conv, nn.Conv2d):
            _fold(conv, norm)
            folded[norm] = conv
    _replace(network, folded)
    return len(folded)


def _watch(network: nn.Module, watched: nn.Module, example: torch.Tensor) -> Pairs:
    """For each normalisation the modules whose outputs it was given."""
    # The outputs are kept, so that no two of them get the same id.
    made: dict[int, tuple[nn.Module, torch.Tensor]] = {}
    befores: Pairs = {}

    def after_conv(conv: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        made[id(output)] = (conv, output)

    def before_norm(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        befores.setdefault(norm, set()).add(made.get(id(inputs[0]), (norm, None))[0])

    hooks = [m.register_forward_hook(after_conv) for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before_norm) for m in network.modules() if isinstance(m, NORMS)]
    with torch.inference_mode():
        watched(example)
    for hook in hooks:
        hook.remove()
    return befores


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _replace(module: nn.Module, folded: dict[nn.Module, nn.Module]) -> None:
    for name, child in module.named_children():
        if child in folded:
            setattr(module, name, nn.Identity())
        else:
            _replace(child, folded)
