"""A network on a GPU as recordings (CUDA graphs): all its steps are started by one call, which small batches wait for.

A recording knows one shape. There is one for each power of two of images, made when a thread first needs it, and a
batch between two of them is computed as the larger one. (PyTorch, "CUDA semantics", section "CUDA Graphs".)
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

# Before it is recorded, libraries must have chosen how to compute each step and have made their workspace.
WARM_UPS = 3
# To begin a recording torch waits for the whole GPU, which must not be within another thread's.
_RECORDING = threading.Lock()

Network = Callable[[torch.Tensor], torch.Tensor]


class CudaGraph:
    """A recording at one shape, for the thread that made it on its current stream, which must not be the default one.

    Raises what the GPU refuses.
    """

    def __init__(self, network: Network, images: torch.Tensor) -> None:
        stream = torch.cuda.current_stream(images.device)
        self._images = images.clone()
        with _RECORDING:
            for _ in range(WARM_UPS):
                network(self._images)
            stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # Other threads go on computing meanwhile, and may ask for memory.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._results = network(self._images)

    def replay(self, images: torch.Tensor) -> torch.Tensor:
        """The results for images, at most as many as were recorded; theirs come first. Good until the next replay."""
        self._images[: len(images)].copy_(images, non_blocking=True)
        self._graph.replay()
        return self._results


class Recorded(threading.local):
    """A network that is played back: uint8 [B, 3, H, W] to what the network makes of it, [B, …].

    Each thread has recordings of its own, for they compute in memory of their own.
    """

    def __init__(self, network: Network, record: Callable[[Network, torch.Tensor], CudaGraph] = CudaGraph) -> None:
        self._network = network
        self._record = record
        self._recordings: dict[torch.Size, CudaGraph] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The results, good until this thread's next call. Raises as torch does, torch.OutOfMemoryError too."""
        next_power_of_two = 1 << (len(images) - 1).bit_length()
        shape = torch.Size((next_power_of_two, *images.shape[1:]))
        recording = self._recordings.get(shape)
        if recording is None:
            recording = self._recordings[shape] = self._record(self._network, _filled_up(images, shape[0]))
        return recording.replay(images)[: len(images)]


def _filled_up(images: torch.Tensor, count: int) -> torch.Tensor:
    """So many images: the last one again and again. The memory stays in the order in which it was."""
    rows = torch.arange(count, device=images.device).clamp(max=len(images) - 1)
    return images.permute(0, 2, 3, 1)[rows].permute(0, 3, 1, 2)
