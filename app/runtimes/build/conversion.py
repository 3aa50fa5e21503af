"""From a network to the files that other runtimes read. Build tools are needed here only: NNCF for int8, a C++ compiler
for AOTInductor.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.host.machine import CPU
from app.models.builds import Candidate, reference
from app.models.manifests import TENSOR, Manifest
from app.runtimes import registry
from app.runtimes.build.samples import LEAST, Samples
from app.runtimes.model import warm_up_shape
from app.runtimes.tensor_model import WHOLE

COMPILER = "g++"
# torch.export takes sizes of 0 and 1 for constants, so the example shows another one.
EXAMPLE_BATCH_SIZE = 4
MAX_BATCH_SIZE = 1024


def file_name(candidate: Candidate, manifest: Manifest) -> str:
    """The file that is made for a candidate; empty where it needs none. OpenVINO's fp32 file serves bf16 too."""
    if manifest.is_network and candidate.precision != "int8":
        return ""
    if candidate.runtime == "openvino":
        return "int8.xml" if candidate.precision == "int8" else "fp32.xml"
    return f"{candidate.precision}.pt2" if candidate.runtime == "aotinductor" else ""


def obstacle(
    candidate: Candidate, manifest: Manifest, samples: Samples, *, is_dense: bool, has_file: bool, device: str = CPU
) -> str:
    """Why a candidate cannot be built here, in words; empty when it can. ``has_file``: it need not be made."""
    runtime, precision = candidate.runtime, candidate.precision
    if device != CPU and not runtime.startswith("torch"):
        return f"it computes on the processor, and this build is for {device}"
    if (runtime, precision) == reference(manifest):
        return ""
    if runtime == "torch-graphs" and not registry.model_class(manifest).can_be_recorded:
        return "it makes its anchors anew for each batch, which cannot be recorded"
    if not is_dense:
        return "it lists boxes inside the network, which no other form takes"
    if file_name(candidate, manifest) and manifest.input.kind == "fit" and manifest.task != TENSOR:
        return "its pictures keep their shape (input.kind is fit), and a built file knows one shape"
    if precision != "fp32" and not samples.are_enough:
        return f"at least {LEAST} samples must show its agreement; there are {len(samples.comparison)}"
    return _missing_tool(runtime, precision, samples, has_file=has_file)


def _missing_tool(runtime: str, precision: str, samples: Samples, *, has_file: bool) -> str:
    if runtime == "openvino" and not _is_installed("openvino"):
        return "OpenVINO is not installed"
    if has_file:
        return ""
    if runtime == "aotinductor" and shutil.which(COMPILER) is None:
        return f"there is no C++ compiler ({COMPILER}) here"
    if precision == "int8" and not samples.calibration:
        return f"{2 * LEAST} samples are needed, to learn its ranges from one half and compare with the other"
    if precision == "int8" and not _is_installed("nncf"):
        return "NNCF is not installed"
    return ""


def make(candidate: Candidate, manifest: Manifest, samples: Samples, folder: Path) -> Path:
    """Make a candidate's file in this folder. Raises ModelLoadError, and whatever the tools raise."""
    with _quiet():
        if candidate.runtime == "aotinductor":
            return _compile(candidate, manifest, folder)
        path = manifest.weights_path if manifest.is_network else _convert(manifest, folder)
        return _quantise(path, manifest, samples, folder) if candidate.precision == "int8" else path


def _convert(manifest: Manifest, folder: Path) -> Path:
    """The fp32 network as OpenVINO's file; takes uint8 [B, H, W, 3], the order in which pictures arrive."""
    import openvino
    import torch
    from openvino.preprocess import PrePostProcessor

    from app.runtimes import torch_runtime

    height, width = warm_up_shape(manifest.input)
    example = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    model = openvino.convert_model(
        torch_runtime.wrapped(manifest), example_input=example, input=[openvino.PartialShape([-1, 3, height, width])]
    )
    steps = PrePostProcessor(model)
    steps.input().tensor().set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    path = folder / "fp32.xml"
    openvino.save_model(steps.build(), path, compress_to_fp16=False)
    return path


def _quantise(source: Path, manifest: Manifest, samples: Samples, folder: Path) -> Path:
    """Post-training quantisation to int8, its ranges learned from the calibration samples (NNCF)."""
    import nncf
    import openvino

    taken = [_fed(sample, manifest) for sample in samples.calibration]
    model = nncf.quantize(openvino.Core().read_model(source), nncf.Dataset(taken), subset_size=len(taken))
    path = folder / "int8.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def _fed(sample: Any, manifest: Manifest) -> Any:
    """One sample as the network takes it: with the side that counts items, where it has one."""
    if manifest.task != TENSOR:
        return sample[None]
    is_whole = manifest.architecture_options["batch"] == WHOLE
    return [array if is_whole else array[None] for array in sample.values]


def _compile(candidate: Candidate, manifest: Manifest, folder: Path) -> Path:
    """Machine code of the fused network for any batch size; takes uint8 [B, H, W, 3]."""
    import torch
    import torch._inductor

    from app.runtimes import torch_runtime

    network = torch_runtime.FromChannelsLast(
        torch_runtime.wrapped(manifest, torch_runtime.form(candidate.runtime, candidate.precision))
    )
    example = torch.from_numpy(np.zeros((EXAMPLE_BATCH_SIZE, *warm_up_shape(manifest.input), 3), np.uint8))
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH_SIZE)
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
    path = folder / f"{candidate.precision}.pt2"
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return path


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Converters draw bars and warn of what they trace; a person wants one line a candidate."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    nowhere: Any = io.StringIO()
    with (
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(action="ignore"),
    ):
        yield
