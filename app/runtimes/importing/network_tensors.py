"""A network whose arrays are taken and given as they are: what it promises, and what of it is compared.

Runs in the process apart. The first side of each array is the number of items, where the network lets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import GoldenCheckError, ModelLoadError
from app.models.manifests import InputSpec
from app.runtimes import tensor_model
from app.runtimes.build import agreement, array_samples
from app.runtimes.build.array_samples import Input
from app.runtimes.importing import network_files, network_heads, network_reading
from app.runtimes.importing.network_reading import Network, Original, compiled
from app.runtimes.importing.network_wanted import Converted, Wanted
from app.runtimes.tensor_model import ONE, ROWS, WHOLE

# OpenVINO's names of numbers that JSON and the Open Inference Protocol carry.
INTEGERS = {f"{kind[0]}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
DTYPES = {"f64": "float64", "f32": "float32", "f16": "float16", "boolean": "bool", **INTEGERS}
# Lengths that are tried for sides of any length: of a sequence, of a picture.
OPEN_SIDES = (4, 32, 224)
COMPARED = 3
SEED = 20260101
MAX_BATCH_SIZE = 32
TOLERANCE = 0.01
# Of signatures, see ``cask.API_VERSION``.
API = 1
# What a request holds beside the arrays.
RESERVED = ("items", "version")


def convert(wanted: Wanted, folder: Path) -> Converted:
    """Write the network and its golden answers into the folder. Raises ModelLoadError, GoldenCheckError."""
    if wanted.kind == network_files.TORCHSCRIPT:
        hint = "Give it as torch.export.save(torch.export.export(network, examples), 'network.pt2'), or as ONNX."
        raise ModelLoadError(f"{wanted.file} is TorchScript, which does not say what arrays it takes.", hint=hint)
    network = network_reading.read(wanted)
    batch = _batch(network.model)
    described = [network_heads.described(port) for port in network.model.inputs]
    inputs = _arrays(wanted, network.model.inputs, "input", batch)
    items, expected = _tried(wanted, network, inputs, batch)
    run, largest = compiled(network.model), 0.0
    if batch == ROWS and not _is_by_rows(run, items, expected):
        network = network_reading.read(wanted)
        batch = _fixed(network.model)
        run = compiled(network.model)
    for item, wanted_outputs in zip(items, expected, strict=True):
        largest = max(largest, *map(agreement.of_values, wanted_outputs, run(_fed(item, batch))))
    kind = "sample" if wanted.samples else "made-up"
    words = f"arrays of {len(items)} {kind} items compared with {network.by}"
    if largest > TOLERANCE:
        hint = "The conversion changed the network. Export it another way, and report this."
        raise GoldenCheckError(f"What would serve differs from the file by {largest:.4f}; {words}.", hint=hint)
    _write(network.model, folder, items, run, batch)
    outputs = _arrays(wanted, network.model.outputs, "output", batch)
    said = (f"it takes {', '.join(described)}", f"{words}: the largest difference is {largest:.2g}", BATCHES[batch])
    dtypes = [array.dtype for array in inputs]
    options = {"batch": batch, "dtypes": dtypes, "signature": _signature(inputs, outputs, batch)}
    return Converted(InputSpec("fit"), 0, batch != ROWS, options, said)


BATCHES = {
    ROWS: "the first side of each array is the number of items",
    ONE: "its batch is fixed, so items are computed one by one",
    WHOLE: "its first side is no number of items, so an item is a whole array",
}


def _batch(model: Any) -> str:
    """Whether the first side of all arrays counts items; opens it where it can be."""
    shapes = [network_heads.sides(port) for port in (*model.inputs, *model.outputs)]
    if not all(shape and shape[0] in (-1, 1) for shape in shapes):
        return WHOLE
    before = {port: port.get_partial_shape() for port in model.inputs}
    try:
        model.reshape({port: _opened(shape) for port, shape in before.items()})
        if all(network_heads.sides(port)[:1] == [-1] for port in model.outputs):
            return ROWS
    except RuntimeError:
        pass
    model.reshape(before)
    return _fixed(model)


def _fixed(model: Any) -> str:
    """One item at a time."""
    model.reshape({port: _opened(port.get_partial_shape(), 1) for port in model.inputs})
    return ONE


def _opened(shape: Any, first: int = -1) -> Any:
    import openvino

    return openvino.PartialShape([openvino.Dimension(first), *list(shape)[1:]])


def _arrays(wanted: Wanted, ports: Sequence[Any], what: str, batch: str) -> list[Input]:
    found = []
    for place, port in enumerate(ports):
        kind = port.get_element_type().get_type_name()
        shape = network_heads.sides(port)
        name = sorted(port.get_names() or {f"{what}_{place}"})[0]
        if kind not in DTYPES or (not shape and port.get_partial_shape().rank.is_dynamic):
            hint = "Numbers and booleans of a known number of sides can be sent; texts need a model with code."
            raise ModelLoadError(f"{wanted.file} has {network_heads.described(port)} of the type {kind}.", hint=hint)
        if what == "input" and name in RESERVED:
            hint = "Rename it where the file is exported."
            raise ModelLoadError(f"{wanted.file} has an input {name!r}, which requests use otherwise.", hint=hint)
        sides = shape if batch == WHOLE else shape[1:]
        found.append(Input(name, DTYPES[kind], tuple(None if side < 0 else side for side in sides)))
    return found


def _signature(inputs: Sequence[Input], outputs: Sequence[Input], batch: str) -> dict[str, Any]:
    """As a model with code promises; each answer has its arrays by name."""
    given = {array.name: schema_of(array) for array in outputs}
    return {
        "api": API,
        "inputs": {array.name: schema_of(array) for array in inputs},
        "options": {},
        "answer": {"type": "object", "properties": given, "required": list(given), "additionalProperties": False},
        "max_batch_size": MAX_BATCH_SIZE if batch == ROWS else 1,
        "max_wait_ms": None,
        "description": "",
        "cache": True,
    }


def schema_of(array: Input) -> dict[str, Any]:
    """As ``app.model_code.kinds`` writes it, which building in the image does without."""
    dtype = np.dtype(array.dtype)
    schema: dict[str, Any] = {"type": {"f": "number", "b": "boolean"}.get(dtype.kind, "integer")}
    if not array.sides:
        return schema
    if dtype.kind != "b":
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        number = float if dtype.kind == "f" else int
        schema |= {"minimum": number(limits.min), "maximum": number(limits.max)}
    for side in reversed(array.sides):
        length = {} if side is None else {"minItems": side, "maxItems": side}
        schema = {"type": "array", "items": schema, **length}
    return schema | {"x-cask-kind": "array", "x-cask-shape": list(array.sides), "x-cask-dtype": dtype.name}


# ── compared ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tried(
    wanted: Wanted, network: Network, inputs: Sequence[Input], batch: str
) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Samples, or made-up items, and what the file answers to each. Raises ModelLoadError where it computes none."""
    said = ""
    for items in _some_items(wanted, inputs):
        try:
            return items, [network.original(_fed(item, batch)) for item in items]
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
    if wanted.samples:
        raise ModelLoadError(f"{wanted.file} does not compute the first samples: {said}.")
    shapes = ", ".join(f"{array.name} {list(array.sides)}" for array in inputs)
    hint = "Export it with fixed sides, or serve it as a model with code."
    raise ModelLoadError(f"{wanted.file} computes no made-up arrays ({shapes}): {said}.", hint=hint)


def _some_items(wanted: Wanted, inputs: Sequence[Input]) -> Iterator[list[list[np.ndarray]]]:
    """The first samples; else made-up items, for each length that an open side may have."""
    if wanted.samples:
        yield [[*each.values] for each in array_samples.read(Path(wanted.samples), inputs)[:COMPARED]]
        return
    for side in OPEN_SIDES:
        random = np.random.default_rng(SEED)
        yield [[_made_up(array, side, random) for array in inputs] for _ in range(COMPARED)]


def _made_up(array: Input, side: int, random: np.random.Generator) -> np.ndarray:
    shape = [side if each is None else each for each in array.sides]
    dtype = np.dtype(array.dtype)
    # Whole numbers are mostly places in tables: 0 and 1 are in each.
    return (random.normal(size=shape) if dtype.kind == "f" else random.integers(0, 2, shape)).astype(dtype)


def _fed(item: Sequence[np.ndarray], batch: str) -> list[np.ndarray]:
    return list(item) if batch == WHOLE else [array[None] for array in item]


def _is_by_rows(run: Original, items: Sequence[Sequence[np.ndarray]], expected: Sequence[Sequence[np.ndarray]]) -> bool:
    """Whether several items at once get the answers of each alone."""
    try:
        together = run([np.stack(arrays) for arrays in zip(*items, strict=True)])
    except RuntimeError:
        return False
    apart = (np.concatenate(rows) for rows in zip(*expected, strict=True))
    return all(agreement.of_values(*pair) <= TOLERANCE for pair in zip(apart, together, strict=True))


def _write(model: Any, folder: Path, items: Sequence[Sequence[np.ndarray]], run: Original, batch: str) -> None:
    from app.runtimes.importing.network_conversion import FILE_NAME

    network_reading.save(model, folder / FILE_NAME)
    answers = []
    for item in items:
        outputs = run(_fed(item, batch))
        answers.append(outputs if batch == WHOLE else [np.asarray(output[0]) for output in outputs])
    golden = folder / "golden.safetensors"
    golden.write_bytes(tensor_model.golden_file(items, answers))
    golden.chmod(0o644)
