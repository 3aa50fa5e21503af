"""From a file to a network of OpenVINO, and to what the file itself answers, to be compared. In a process apart only:
files of torch may bring pickles.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ModelLoadError
from app.runtimes.importing import network_files, network_input
from app.runtimes.importing.network_wanted import Wanted

# One batch as the file's network takes it, to its outputs.
Original = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
_EXPORT_HINT = "Export it with operators of ONNX alone, or serve it as a model with code."
# Which input of an operator of TorchScript says whether it trains.
_TRAINING_PLACES = {"aten::dropout": 2, "aten::feature_dropout": 2, "aten::batch_norm": 5}
_TORCH_HINT = "Save it with the torch of this machine, or export it to ONNX where it was made."


@dataclass(frozen=True)
class Network:
    """``model``: of OpenVINO, as the file has it. ``original``: the answers of the file. ``by``: what computes them.

    ``usual``: what it says of its pictures, by fields of ``Wanted``. ``said``: what people should know.
    """

    model: Any
    original: Original
    by: str
    usual: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()


def read(wanted: Wanted) -> Network:
    """The network in the file. Raises ModelLoadError with the file, what was found and what to do."""
    if wanted.kind in (network_files.ONNX, network_files.IR):
        return _by_openvino(wanted)
    if wanted.kind == network_files.TIMM:
        return _of_timm(wanted)
    return _exported(wanted) if wanted.kind == network_files.EXPORTED else _torchscript(wanted)


def _by_openvino(wanted: Wanted) -> Network:
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(wanted.file)
        original = core.read_model(wanted.file)
    except RuntimeError as error:
        raise _unreadable(wanted, str(error)) from None
    run = functools.cache(lambda: compiled(original))
    return Network(model, lambda inputs: run()(inputs), "OpenVINO fp32, reading the file itself")


def compiled(model: Any) -> Original:
    """A network of OpenVINO, to be asked on the processor in fp32."""
    import openvino

    found = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        results = found(list(inputs))
        return [np.array(results[place]) for place in range(len(found.outputs))]

    return run


def save(model: Any, path: Path) -> None:
    """Write a network of OpenVINO, its weights beside it, for everybody to read."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)
    for each in (path, path.with_suffix(".bin")):
        each.chmod(0o644)


def _unreadable(wanted: Wanted, said: str) -> ModelLoadError:
    """OpenVINO's words are a page; what matters is which operator it lacks."""
    missing = sorted(set(wanted.operators) | set(re.findall(r"\b(?:[\w.]+\.)?[A-Z]\w+(?=-\d+\b)", said)))
    if "not supported" in said.lower() or "no conversion rule" in said.lower() or wanted.operators:
        names = ", ".join(missing) or said.strip().splitlines()[-1][:200]
        opset = f" (its opset is {wanted.opset})" if wanted.opset else ""
        return ModelLoadError(f"{wanted.file} has operators that OpenVINO lacks: {names}{opset}.", hint=_EXPORT_HINT)
    if misfits := re.findall(r"Conversion is failed for: ([\w.]+)", said):
        hint = (
            "onnx.checker.check_model(path, full_check=True) says where. A picture is an input [n, 3, height, width]."
        )
        names = ", ".join(dict.fromkeys(misfits))
        return ModelLoadError(f"{wanted.file} has operators that do not fit their inputs: {names}.", hint=hint)
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith(("Exception", "Check"))]
    words = (lines or [said])[-1][:200]
    return ModelLoadError(f"{wanted.file} cannot be read by OpenVINO: {words}.", hint=network_files.AGAIN)


def _exported(wanted: Wanted) -> Network:
    import openvino
    import torch

    from app.runtimes import operators  # noqa: F401 - programs may hold torchvision's operators

    try:
        program = torch.export.load(wanted.file)
    except Exception as error:  # noqa: BLE001 - whatever a library raises for somebody's file
        raise _of_torch(wanted, error) from None
    _check_trained(wanted, _training_steps(program.graph.nodes))
    try:
        model = openvino.convert_model(program)
    except Exception as error:  # noqa: BLE001 - whatever a library raises for somebody's file
        raise _not_converted(wanted, error) from None
    # OpenVINO opens every side; the program was made for its own.
    names = set(program.graph_signature.user_inputs)
    sides = [list(node.meta["val"].shape) for node in program.graph.nodes if node.name in names]
    fixed = [openvino.PartialShape([side if isinstance(side, int) else -1 for side in each]) for each in sides]
    model.reshape(dict(zip(model.inputs, fixed, strict=True)))
    return Network(model, _by_torch(_called(program)), f"torch {torch.__version__}")


def _training_steps(nodes: Any) -> list[str]:
    """Operators of a program that are told to do as in training."""
    found = []
    for node in nodes:
        for place, argument in enumerate(getattr(getattr(node.target, "_schema", None), "arguments", ())):
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            if argument.name in ("train", "training") and given is True:
                found.append(str(node.target).removesuffix(".default"))
    return found


def _training_calls(graph: Any) -> list[str]:
    """The same of TorchScript."""
    return [
        kind.replace("::", ".")
        for kind, place in _TRAINING_PLACES.items()
        for node in graph.findAllNodes(kind)
        if list(node.inputs())[place].toIValue() is True
    ]


def _check_trained(wanted: Wanted, steps: Sequence[str]) -> None:
    if steps:
        raise ModelLoadError(
            f"{wanted.file} was exported in training mode: {steps[0]} is random there, or depends on the other "
            "pictures of a batch.",
            hint="Call network.eval() before torch.export.export or torch.jit.trace, and export it again.",
        )


def _called(program: Any) -> Any:
    """The program as a function of its tensors in order; Hugging Face's take some of them by name."""
    from torch.utils import _pytree

    module = program.module()

    def call(*tensors: Any) -> Any:
        args, kwargs = _pytree.tree_unflatten(tensors, program.call_spec.in_spec)
        return module(*args, **kwargs)

    return call


def _torchscript(wanted: Wanted) -> Network:
    import torch

    from app.runtimes import operators  # noqa: F401 - programs may hold torchvision's operators

    try:
        # Weights of fp16 are served as fp32, as everywhere; OpenVINO would not feed them fp32 pictures.
        program = torch.jit.load(wanted.file, map_location="cpu").eval().float()
    except Exception as error:  # noqa: BLE001 - whatever a library raises for somebody's file
        raise _of_torch(wanted, error) from None
    _check_trained(wanted, _training_calls(program.inlined_graph))
    side = wanted.size or network_input.model_class(wanted).file_side
    return Network(_traced(wanted, program, 3, side), _by_torch(program), f"torch {torch.__version__}")


def _of_timm(wanted: Wanted) -> Network:
    from importlib.metadata import version

    from app.runtimes.importing import timm_networks

    network, usual, said = timm_networks.build(wanted)
    channels = int(wanted.builder_options.get("in_chans", 3))
    model = _traced(wanted, network, channels, usual["size"])
    return Network(model, _by_torch(network), f"timm {version('timm')} in torch", usual, said)


def _traced(wanted: Wanted, module: Any, channels: int, side: int) -> Any:
    """A module of torch for any number of pictures with so many pixels a side."""
    import openvino
    import torch

    shape = openvino.PartialShape([-1, channels, side, side])
    try:
        with torch.inference_mode(False), torch.no_grad():
            example = torch.zeros(1, channels, side, side)
            return openvino.convert_model(module, example_input=example, input=[shape])
    except Exception as error:  # noqa: BLE001 - whatever a library raises for somebody's file
        raise _not_converted(wanted, error) from None


def _of_torch(wanted: Wanted, error: Exception) -> ModelLoadError:
    import torch

    words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return ModelLoadError(f"{wanted.file} cannot be read by torch {torch.__version__}: {words}", hint=_TORCH_HINT)


def _not_converted(wanted: Wanted, error: Exception) -> ModelLoadError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = next(
        (line for line in lines if "No conversion rule" in line or "not supported" in line),
        next((line for line in reversed(lines) if not line.startswith(("Check", "While"))), "?"),
    )
    return ModelLoadError(f"{wanted.file} cannot be converted by OpenVINO: {words[:200]}", hint=_EXPORT_HINT)


def _by_torch(module: Any) -> Original:
    import torch

    def answer(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [each.numpy() for each in _tensors(module(*map(torch.from_numpy, inputs)))]

    return answer


def _tensors(answer: Any) -> list[Any]:
    """The tensors of an answer, in order."""
    if hasattr(answer, "numpy"):
        return [answer]
    values = answer.values() if isinstance(answer, dict) else answer
    return [tensor for each in values for tensor in _tensors(each)]
