"""Which picture a network takes: found in its input's shape and type, and in what its owner says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app import tasks
from app.errors import ModelLoadError
from app.models.manifests import NOT_SQUARE, InputSpec
from app.runtimes.importing.network_wanted import Wanted

if TYPE_CHECKING:
    from app.runtimes.model import TaskModel

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
BYTES = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
# The shorter side is scaled to so much of the square that is cut out, as torchvision's and timm's transforms do.
CROP_RATIO = 256 / 224
# How much of red, green and blue a grey picture holds (ITU-R BT.601, as Pillow's mode L).
GREY_SHARES = (0.299, 0.587, 0.114)
_TYPES = {"f32": np.float32, "f16": np.float16, "u8": np.uint8}


@dataclass(frozen=True)
class NetworkInput:
    """How the network is fed. ``channels``: 3, or 1 for grey. ``is_bgr``: blue first."""

    spec: InputSpec
    is_nhwc: bool
    channels: int
    is_bgr: bool
    dtype: Any

    def shape(self, batch: int) -> list[int]:
        """Of the network's own input; -1 is any."""
        sides = [self.spec.size, self.spec.size]
        return [batch, *sides, self.channels] if self.is_nhwc else [batch, self.channels, *sides]

    def array(self, images: np.ndarray) -> np.ndarray:
        """Pictures, uint8 [B, H, W, 3], as the file's network takes them."""
        pixels = images[..., ::-1] if self.is_bgr else images
        if self.dtype != np.uint8:
            pixels = (pixels.astype(np.float32) / 255 - np.array(self.spec.mean, np.float32)) / np.array(
                self.spec.std, np.float32
            )
        if self.channels == 1:
            pixels = (pixels * np.array(GREY_SHARES, np.float32)).sum(-1, keepdims=True)
        ordered = pixels if self.is_nhwc else pixels.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(ordered.astype(self.dtype))


def find(wanted: Wanted, sides: list[int], kind: str, described: str) -> NetworkInput:
    """The input of a network. ``sides``: of its shape, -1 where any. ``kind``: of its numbers, as OpenVINO writes it.

    ``described``: the input in words. Raises ModelLoadError.
    """
    if len(sides) != 4:
        hint = "A picture has four sides: n, channels, height, width. For other arrays: TASK=tensor."
        raise ModelLoadError(f"{wanted.file} takes {described}, which is no picture.", hint=hint)
    if sides[0] > 1:
        hint = "Export it with a batch of 1, or with an open one (dynamic_axes, dynamic_shapes)."
        raise ModelLoadError(f"{wanted.file} takes {described}: {sides[0]} pictures at once, no less.", hint=hint)
    if kind not in _TYPES:
        hint = "f32, f16 and u8 are fed; convert the network's first operator."
        raise ModelLoadError(f"{wanted.file} takes {described}: numbers of the type {kind}.", hint=hint)
    is_nhwc = _is_nhwc(wanted, sides)
    channels = sides[3 if is_nhwc else 1]
    if channels not in (-1, 1, 3):
        hint = "Pictures have 3 channels (RGB or BGR) or 1 (grey). Another order of the sides: --layout nhwc or nchw."
        raise ModelLoadError(f"{wanted.file} takes {described}: {channels} channels.", hint=hint)
    height, width = (sides[1], sides[2]) if is_nhwc else (sides[2], sides[3])
    side = _side(wanted, height, width, described)
    return NetworkInput(
        _spec(wanted, side, kind), is_nhwc, 1 if channels == 1 else 3, wanted.channels == "bgr", _TYPES[kind]
    )


def model_class(wanted: Wanted) -> type[TaskModel]:
    """The engine's half of the task, which says what is usual."""
    return tasks.BY_NAME[wanted.task].model_class


def _is_nhwc(wanted: Wanted, sides: list[int]) -> bool:
    if wanted.layout:
        return wanted.layout == "nhwc"
    return sides[3] in (1, 3) and sides[1] not in (1, 3)


def _side(wanted: Wanted, height: int, width: int, described: str) -> int:
    known = {side for side in (height, width) if side > 0}
    if len(known) > 1:
        raise ModelLoadError(f"{wanted.file} takes {described}: {width} × {height} pixels.", hint=NOT_SQUARE)
    if known and wanted.size and wanted.size not in known:
        (side,) = known
        hint = f"Leave --size out, or export it with sides of {wanted.size} or open ones."
        raise ModelLoadError(f"{wanted.file} takes {described}: {side} pixels, not {wanted.size}.", hint=hint)
    return wanted.size or next(iter(known), model_class(wanted).file_side)


def _spec(wanted: Wanted, side: int, kind: str) -> InputSpec:
    mean, std = _normalisation(wanted, kind)
    scaled: Any = wanted.input_kind or model_class(wanted).file_input_kind
    if scaled == "fit":
        hint = "A file computes one size: letterbox keeps the whole picture, crop its middle."
        raise ModelLoadError("--input-kind fit is for networks of torchvision.", hint=hint)
    if scaled == "letterbox":
        return InputSpec("letterbox", size=side, mean=mean, std=std)
    return InputSpec("crop", size=side, resize_size=wanted.resize_size or round(side * CROP_RATIO), mean=mean, std=std)


def _normalisation(wanted: Wanted, kind: str) -> tuple[Any, Any]:
    """Mean and std of values in [0, 1]."""
    if kind == "u8":
        if wanted.mean or wanted.std or wanted.values == "0-1":
            hint = "Leave out --mean, --std and --values: it normalises inside."
            raise ModelLoadError(f"{wanted.file} takes bytes (uint8), which nobody normalises before it.", hint=hint)
        return BYTES
    is_of_bytes = wanted.values == "0-255"
    usual = (
        BYTES if is_of_bytes else (IMAGENET if model_class(wanted).is_file_of_imagenet and not wanted.values else PLAIN)
    )
    unit = 255 if is_of_bytes else 1
    mean = tuple(value / unit for value in wanted.mean) or usual[0]
    std = tuple(value / unit for value in wanted.std) or usual[1]
    if max(map(abs, mean)) > 2 or min(std) <= 0:
        hint = "For values from 0 to 255: --values 0-255."
        raise ModelLoadError(f"mean {list(wanted.mean)} and std {list(wanted.std)} are not of [0, 1].", hint=hint)
    return mean, std
