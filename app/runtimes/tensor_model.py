"""Task ``tensor``: a network whose arrays are taken and given as they are, computed by OpenVINO inside the engine.

It is asked as a model with code is, by its signature: the values of each item in, the JSON of each answer out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from app.errors import CaskError, GoldenCheckError, InputRefusedError
from app.models.builds import Candidate
from app.models.manifests import Manifest
from app.runtimes import openvino_runtime
from app.runtimes.build import agreement
from app.runtimes.build.agreement import Agreement
from app.storage import files

# What the first side of the arrays is: the number of items; that, but only one at a time; part of an item.
ROWS, ONE, WHOLE = "rows", "one", "whole"
COMPUTED_BY = "openvino fp32"
# Of the largest value or 1.
TOLERANCE = 0.01

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


class Item(Protocol):
    """What one caller sends, see ``app.engine.calls``."""

    @property
    def values(self) -> Sequence[Any]: ...


class TensorModel:
    """One version, loaded. Safe to use from several threads. See ``app.engine.worker.Model``."""

    computed_by = COMPUTED_BY
    device = "cpu"
    processor = ""
    # As ``TaskModel`` says.
    can_be_recorded = False

    def __init__(self, manifest: Manifest, run: Run) -> None:
        self.manifest = manifest
        self.golden_path = manifest.golden_path
        self.best_batch_size = manifest.serve.max_batch_size
        self._run = run
        self._batch = str(manifest.architecture_options["batch"])
        self._dtypes = [np.dtype(name) for name in manifest.architecture_options["dtypes"]]
        self._names = list(manifest.signature["answer"]["properties"])

    @classmethod
    def load_file(cls, manifest: Manifest, candidate: Candidate, path: Path, workers: int) -> TensorModel:
        """One form of it. ``workers``: how many threads predict at once. Raises ModelLoadError."""
        return cls(manifest, openvino_runtime.load_arrays(path, candidate.precision, workers))

    def warm_up(self) -> None:
        """Compute the stored items once."""
        for inputs, _ in self._stored():
            self._compute([inputs])

    def golden_check(self) -> None:
        """Compare with the stored answers. Raises GoldenCheckError."""
        for number, (inputs, expected) in enumerate(self._stored()):
            for name, first, second in zip(self._names, expected, self._compute([inputs])[0], strict=True):
                if agreement.of_values(first, second) > TOLERANCE:
                    raise GoldenCheckError(
                        f"{self.manifest.key} does not give its stored answers: {name} of item {number} differs.",
                        hint="The network or its runtime changed. If that was meant, add it as a new version.",
                    )

    def prove(self, say: Callable[[str], None]) -> None:
        """Nobody knows what is right of arrays."""

    def outcome(self, items: Iterable[Item]) -> list[Any]:
        """What it answers to each item, as JSON types, to be compared with what another form answers."""
        return [[[array.tolist(), array.dtype.name] for array in self._compute([[*each.values]])[0]] for each in items]

    @classmethod
    def compared(cls, reference: list[Any], other: list[Any], manifest: Manifest, truth: object) -> Agreement:
        """How far the ``outcome`` of another form is from the reference's."""
        first, second = (
            [[np.array(values, dtype) for values, dtype in rows] for rows in outcome] for outcome in (reference, other)
        )
        return agreement.of_arrays(first, second)

    def golden_file(self, items: Iterable[Item]) -> bytes:
        """The file of stored answers of this form to these items."""
        taken = [[*each.values] for each in items]
        return golden_file(taken, [self._compute([each])[0] for each in taken])

    def predict(self, items: Sequence[Item], options: Sequence[Any]) -> list[Any]:
        """The JSON of each answer as bytes, or why this item has none."""
        read = [self._read(item) for item in items]
        answers: list[Any] = list(read)
        for places in _alike(read):
            outcomes = self._answers([read[place] for place in places])  # type: ignore[misc]
            for place, outcome in zip(places, outcomes, strict=True):
                answers[place] = outcome
        return answers

    def _read(self, item: Item) -> list[np.ndarray] | CaskError:
        try:
            return [np.asarray(value, dtype) for value, dtype in zip(item.values, self._dtypes, strict=True)]
        except (ValueError, OverflowError) as error:
            return _refused(str(error))

    def _answers(self, items: Sequence[list[np.ndarray]]) -> list[bytes | CaskError]:
        try:
            return [self._write(outputs) for outputs in self._compute(items)]
        except RuntimeError as error:
            if len(items) > 1:
                return [outcome for item in items for outcome in self._answers([item])]
            shapes = ", ".join(str(list(array.shape)) for array in items[0])
            lines = str(error).strip().splitlines() or [""]
            return [_refused(f"it does not compute arrays of {shapes}: {lines[-1][:120]}")]

    def _compute(self, items: Sequence[list[np.ndarray]]) -> list[list[np.ndarray]]:
        """The outputs of each item, all of one shape."""
        if self._batch == WHOLE:
            return [self._run(item) for item in items]
        groups = [items] if self._batch == ROWS else [[item] for item in items]
        found: list[list[np.ndarray]] = []
        for group in groups:
            outputs = self._run([np.stack(arrays) for arrays in zip(*group, strict=True)])
            found += [[output[row] for output in outputs] for row in range(len(group))]
        return found

    def _write(self, outputs: Sequence[np.ndarray]) -> bytes | CaskError:
        for name, output in zip(self._names, outputs, strict=True):
            if output.dtype.kind == "f" and not np.isfinite(output).all():
                return CaskError(
                    "The model failed: %(reason)s.",
                    hint="Tell the operator of this service the request id.",
                    reason=f"NaN or infinity in {name}",
                )
        return json.dumps({name: output.tolist() for name, output in zip(self._names, outputs, strict=True)}).encode()

    def _stored(self) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
        path = self.golden_path
        if path is None:
            return []
        try:
            files.check(path, files.GOLDEN_BYTES)
            arrays = load_file(path)
            count = 1 + max(int(name.split(".")[1]) for name in arrays)
            return [(_part(arrays, f"input.{number}."), _part(arrays, f"output.{number}.")) for number in range(count)]
        except (OSError, SafetensorError, ValueError, IndexError) as error:
            hint = "Restore it, or add the model again."
            raise GoldenCheckError(f"{path} cannot be read: {files.reason(error)}.", hint=hint) from None


def golden_file(items: Sequence[Sequence[np.ndarray]], answers: Sequence[Sequence[np.ndarray]]) -> bytes:
    """A file of stored answers: the arrays of each item, and of its answer."""
    arrays: dict[str, np.ndarray] = {}
    for what, rows in (("input", items), ("output", answers)):
        for number, row in enumerate(rows):
            arrays |= {f"{what}.{number}.{place}": np.array(array, order="C") for place, array in enumerate(row)}
    return save(arrays)


def _part(arrays: dict[str, np.ndarray], begin: str) -> list[np.ndarray]:
    count = sum(name.startswith(begin) for name in arrays)
    return [arrays[f"{begin}{place}"] for place in range(count)]


def _alike(items: Sequence[list[np.ndarray] | CaskError]) -> list[list[int]]:
    """Places of the items, those whose arrays have the same shapes together; without those that were refused."""
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, item in enumerate(items):
        if not isinstance(item, CaskError):
            groups.setdefault(tuple(array.shape for array in item), []).append(place)
    return list(groups.values())


def _refused(why: str) -> InputRefusedError:
    return InputRefusedError("%(why)s", hint="The model says so; change the input.", why=why)
