"""Which device computes the models, as torch sees it. Loads torch only where a GPU is requested or visible."""

from __future__ import annotations

import logging

from app.errors import ModelLoadError
from app.host import machine
from app.host.machine import CPU
from app.models import builds

log = logging.getLogger("cask.engine")


def resolve(requested: str) -> str:
    """``cpu`` or ``cuda:<n>`` for a value of DEVICE; ``auto`` takes the processor where torch cannot use the GPU.

    Raises ModelLoadError when a GPU is requested and cannot be used: the CPU is never used instead without a word.
    """
    device = machine.device(requested)
    fault = "" if device == CPU else _fault(device)
    if not fault:
        return device
    if requested == "auto":
        log.warning("a GPU is visible but torch cannot use it: %s; the CPU is used (DEVICE=cpu silences this)", fault)
        return CPU
    raise ModelLoadError(
        f"DEVICE is {requested}, and torch cannot use it: {fault}; expected a GPU of NVIDIA's that this process "
        "sees, and a torch that was built for it.",
        hint="Start the container with GPUS=all and an image with TORCH=cuda, or set DEVICE=auto or DEVICE=cpu.",
    )


def processor(device: str) -> str:
    """What reports call it: the processor's name, or the GPU's with its compute capability."""
    if device == CPU:
        return builds.processor()
    import torch

    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, compute capability {about.major}.{about.minor}"


def out_of_memory(device: str) -> tuple[type[Exception], ...]:
    """What torch raises when a GPU's memory does not suffice; nothing for the processor, where the kernel decides."""
    if device == CPU:
        return ()
    import torch

    return (torch.OutOfMemoryError,)


def empty_cache() -> None:
    """Give memory that torch keeps for later back to the GPU."""
    import torch

    torch.cuda.empty_cache()


def _fault(device: str) -> str:
    """Why torch cannot compute there, in words; empty when it can."""
    if not machine.has_torch():
        return "this is a slim image, without torch"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU, or its driver is older than CUDA {torch.version.cuda} needs"
    count = torch.cuda.device_count()
    if int(device.removeprefix("cuda:")) >= count:
        return f"there {'is one GPU, cuda:0' if count == 1 else f'are {count} GPUs, cuda:0 to cuda:{count - 1}'}"
    try:
        # A GPU may be there and yet too old, or taken by somebody alone.
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""
