"""A second runtime: OpenVINO on the CPU, from files that ``build`` made. Torch is not imported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ModelLoadError
from app.runtimes.model import Images, Run

# Combinations of sides that are remembered as right.
MOST_SHAPES = 4096
# Arrays in the order of the inputs, to those of the outputs.
Compute = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
_FIRST_ARRAY = threading.Lock()
# OpenVINO's words for how the processor computes; int8 files carry their precision in themselves.
PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def load(path: Path, precision: str, threads: int) -> Run:
    """A network of pictures by OpenVINO. ``threads``: how many predict at once. Raises ModelLoadError."""
    compute, batch = _loaded(path, precision, threads)
    is_single = batch is not None and batch.is_static and batch.get_length() == 1

    def run(images: Images) -> list[np.ndarray]:
        if is_single and len(images) > 1:
            return [np.concatenate(each) for each in zip(*(compute([image[None]]) for image in images), strict=True)]
        return compute([images])

    return run


def load_arrays(path: Path, precision: str, threads: int) -> Compute:
    """A network of any arrays, in the order of its inputs and outputs. Raises ModelLoadError.

    What comes back raises RuntimeError for sides that do not fit together. OpenVINO itself would compute them with
    whatever lies in its memory, such as values of the caller before.
    """
    import openvino

    compute = _loaded(path, precision, threads)[0]
    model, lock, known = openvino.Core().read_model(path), threading.Lock(), set[tuple[tuple[int, ...], ...]]()
    if not any(side.is_dynamic for port in model.inputs for side in list(port.get_partial_shape())[1:]):
        return compute

    def checked(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        shapes = tuple(array.shape for array in arrays)
        with lock:
            if shapes not in known:
                model.reshape({place: openvino.PartialShape(shape) for place, shape in enumerate(shapes)})
                if len(known) >= MOST_SHAPES:
                    known.clear()
                known.add(shapes)
        return compute(arrays)

    return checked


def library() -> Any:
    """OpenVINO, ready to be asked by several threads. Raises ImportError.

    The first array makes it look for numpy. Two threads that come there at once would wait for ever, one of them with
    Python's lock (pybind11's pull request 4877): models that are loaded side by side.
    """
    with _FIRST_ARRAY:
        import openvino

        openvino.Tensor(np.zeros(1, np.uint8))
    return openvino


def _loaded(path: Path, precision: str, threads: int) -> tuple[Compute, Any]:
    """What computes, and the first side of the first input, None where it has no sides.

    One copy of the weights; each thread that calls has a request of its own, and computes with one thread.
    """
    try:
        openvino = library()
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

    def compute(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        request: Any = getattr(own, "request", None)
        if request is None:
            request = own.request = compiled.create_infer_request()
        results = request.infer(dict(enumerate(arrays)), share_inputs=True)
        # Copied: the request's own memory is written again by its next call.
        return [np.array(results[output]) for output in compiled.outputs]

    shape = compiled.inputs[0].get_partial_shape()
    return compute, shape[0] if len(shape) else None
