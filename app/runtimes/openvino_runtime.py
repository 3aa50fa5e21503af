"""A second runtime: OpenVINO on the CPU, from files that ``build`` made. Torch is not imported."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ModelLoadError
from app.runtimes.model import Images, Run

# OpenVINO's words for how the processor computes; int8 files carry their precision in themselves.
PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def load(path: Path, precision: str, threads: int) -> Run:
    """A network by OpenVINO. ``threads``: how many predict at once. Raises ModelLoadError.

    One copy of the weights; each thread that calls has a request of its own, and computes with one thread.
    """
    try:
        import openvino
    except ImportError as error:
        raise ModelLoadError(f"{path} needs OpenVINO: {error}.", hint="Install it, or set RUNTIME=torch.") from None
    settings = {
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        compiled = openvino.Core().compile_model(path, "CPU", settings)
    except RuntimeError as error:
        raise ModelLoadError(f"{path} cannot be loaded: {error}", hint="Build it again: make model-build.") from None
    own = threading.local()
    batch = compiled.inputs[0].get_partial_shape()[0]
    is_single = batch.is_static and batch.get_length() == 1

    def run(images: Images) -> list[np.ndarray]:
        if is_single and len(images) > 1:
            return [np.concatenate(each) for each in zip(*(run(image[None]) for image in images), strict=True)]
        request: Any = getattr(own, "request", None)
        if request is None:
            request = own.request = compiled.create_infer_request()
        results = request.infer({0: images}, share_inputs=True)
        # Copied: the request's own memory is written again by its next call.
        return [np.array(results[output]) for output in compiled.outputs]

    return run
