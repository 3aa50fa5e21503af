"""The demonstration's architectures: small enough to train in minutes on two cores and to travel with the source."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import nn

from app.runtimes.operators import torchvision

fcos = torchvision.models.detection.fcos
AnchorGenerator = torchvision.models.detection.anchor_utils.AnchorGenerator

# Half of torchvision's usual 8/16/32: with those, center sampling puts nearly every small object on P3 alone.
ANCHOR_SIZES_PX = ((4,), (8,), (16,))
CENTER_SAMPLING_RADIUS = 3.0
PYRAMID_CHANNELS = 64
HEAD_CONVOLUTIONS = 2


class Block(nn.Module):
    """Two 3 × 3 convolutions with a shortcut: the basic block of He and others, Deep Residual Learning, 2015."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def _convolution(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    )


class NarrowResNet(nn.Module):
    """A residual network with few channels: [B, 3, H, W] to one feature map a stage, at 1/8, 1/16, 1/32, …"""

    def __init__(self, stem: tuple[int, int], stages: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, stem[0], 2), _convolution(stem[0], stem[1], 2))
        layers, channels_in = [], stem[1]
        for channels in stages:
            layers.append(
                nn.Sequential(
                    *(Block(channels_in if i == 0 else channels, channels, 2 if i == 0 else 1) for i in range(blocks))
                )
            )
            channels_in = channels
        self.stages = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _PyramidBackbone(nn.Module):
    """Narrow resnet and feature pyramid: three maps of ``out_channels`` at 1/8, 1/16 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        stages = (64, 128, 192)
        self.body = NarrowResNet((16, 32), stages, blocks=2)
        self.pyramid = torchvision.ops.FeaturePyramidNetwork(list(stages), PYRAMID_CHANNELS)
        self.out_channels = PYRAMID_CHANNELS

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        maps = self.body(x)
        result: OrderedDict[str, torch.Tensor] = self.pyramid(OrderedDict((str(i), m) for i, m in enumerate(maps)))
        return result


class _ResNetClassifier(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = NarrowResNet((24, 32), (64, 128, 224), blocks=1)
        self.fc = nn.Linear(224, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.body(x)[-1].mean((2, 3)))
        return logits


def narrow_fcos(num_classes: int) -> nn.Module:
    """FCOS (Tian and others, 2019) on P3 to P5 of a narrow resnet, 64 channels; labels count from 0."""
    head = fcos.FCOSHead(PYRAMID_CHANNELS, 1, num_classes, HEAD_CONVOLUTIONS)
    # FCOSHead offers no choice of norm. BatchNorm folds into the convolutions; GroupNorm cannot.
    norm = partial(nn.BatchNorm2d)
    head.classification_head = fcos.FCOSClassificationHead(
        PYRAMID_CHANNELS, 1, num_classes, HEAD_CONVOLUTIONS, norm_layer=norm
    )
    head.regression_head = fcos.FCOSRegressionHead(PYRAMID_CHANNELS, 1, HEAD_CONVOLUTIONS, norm_layer=norm)
    return fcos.FCOS(
        _PyramidBackbone(),
        num_classes,
        anchor_generator=AnchorGenerator(ANCHOR_SIZES_PX, ((1.0,),) * len(ANCHOR_SIZES_PX)),
        head=head,
        center_sampling_radius=CENTER_SAMPLING_RADIUS,
    )


def narrow_resnet10(num_classes: int) -> nn.Module:
    """A residual classifier of eight convolutions and one linear layer: [B, 3, H, W] to logits [B, num_classes]."""
    return _ResNetClassifier(num_classes)


CLASSIFIERS = {"narrow_resnet10": narrow_resnet10}
DETECTORS = {"narrow_fcos": narrow_fcos}
