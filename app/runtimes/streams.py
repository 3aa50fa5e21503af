"""The way of pictures to a device and of results back: none on the processor, copies beside the computing on a GPU."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import torch
from torch import nn

from app.host.machine import CPU
from app.runtimes.model import Images


class HostStream:
    """The way to the processor: nothing is copied. Safe to use from several threads."""

    def open(self) -> contextlib.AbstractContextManager[object]:
        """What is computed inside belongs to this stream."""
        return contextlib.nullcontext()

    def send(self, images: Images) -> torch.Tensor:
        """uint8 [B, H, W, 3] to [B, 3, H, W] on the device; the memory stays in the order of channels_last."""
        return torch.from_numpy(np.require(images, requirements=["C", "W"])).permute(0, 3, 1, 2)

    def receive(self, *results: torch.Tensor) -> list[np.ndarray]:
        """The results as arrays, once they are computed."""
        return [result.numpy() for result in results]


class GpuStream(threading.local):
    """A stream for each thread: one thread's copies do not wait for another one's computing."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def open(self) -> contextlib.AbstractContextManager[object]:
        """See ``HostStream``."""
        return torch.cuda.stream(self._stream)

    def send(self, images: Images) -> torch.Tensor:
        """See ``HostStream``. Through page-locked memory, which the GPU reads by itself; torch keeps it for later."""
        pinned = torch.from_numpy(np.require(images, requirements=["C", "W"])).pin_memory()
        return pinned.to(self._device, non_blocking=True).permute(0, 3, 1, 2)

    def receive(self, *results: torch.Tensor) -> list[np.ndarray]:
        """See ``HostStream``."""
        pinned = [torch.empty(result.shape, dtype=result.dtype, pin_memory=True) for result in results]
        for target, result in zip(pinned, results, strict=True):
            target.copy_(result, non_blocking=True)
        self._stream.synchronize()
        return [target.numpy() for target in pinned]


def to(device: str) -> HostStream | GpuStream:
    """The way to a device."""
    return HostStream() if device == CPU else GpuStream(device)


def placed(network: nn.Module, device: str) -> nn.Module:
    """The network with its weights on the device, ready for every stream."""
    if device == CPU:
        return network
    # TF32 keeps 10 bits of a number: it would be no reference for the others.
    torch.backends.cudnn.allow_tf32 = False
    network.to(device)
    # Other streams do not wait for the one that copied the weights. For it alone: another thread may be recording.
    torch.cuda.current_stream(device).synchronize()
    return network
