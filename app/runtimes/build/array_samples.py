"""Sample arrays of a network of arrays (``TASK=tensor``): what int8 learns its ranges from, and what is compared.

A file of samples/ holds items: ``.npz`` with the arrays by the names of the inputs, ``.npy`` where there is one input,
or ``.json``, the body of a request. An array with one side more than its input has is a stack of items.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.errors import ModelLoadError
from app.models.manifests import Manifest
from app.storage import files

SUFFIXES = (".npz", ".npy", ".json")
MAGIC = b"\x93NUMPY"
# Of one file, as it lies and as it is unpacked.
MAX_BYTES = 1 << 30
# Kind of an input's numbers → kinds that are taken for them: none that would be rounded.
TAKEN = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}
HINT = (
    "Mend the file or remove it: numbers as .npz by the names of the inputs, .npy, or the body of a request as .json."
)


class Input(NamedTuple):
    """One array that the network takes, without the side that counts items; None is a side of any length."""

    name: str
    dtype: str
    sides: tuple[int | None, ...]


class Item(NamedTuple):
    """One sample: an array for each input, in their order."""

    values: tuple[np.ndarray, ...]

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        """Of all its arrays: items of one shape can be computed together."""
        return tuple(array.shape for array in self.values)


def inputs(manifest: Manifest) -> list[Input]:
    """What the network of a manifest takes."""
    taken, dtypes = manifest.signature["inputs"], manifest.architecture_options["dtypes"]
    rows = zip(taken.items(), dtypes, strict=True)
    return [Input(name, dtype, tuple(schema.get("x-cask-shape", ()))) for (name, schema), dtype in rows]


def paths(folder: Path) -> list[Path]:
    """The files, by name."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)


def read(folder: Path, wanted: Sequence[Input]) -> list[Item]:
    """All items of a folder. Raises ModelLoadError with the name of the file that does not fit."""
    return [item for path in paths(folder) for item in read_file(path, wanted)]


def read_file(path: Path, wanted: Sequence[Input]) -> list[Item]:
    """The items of one file. Raises ModelLoadError."""
    try:
        return [item for arrays in _arrays(path, wanted) for item in _items(arrays, wanted)]
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {files.reason(error)}.", hint=HINT) from None
    except (ValueError, TypeError, OverflowError, EOFError, zipfile.BadZipFile) as error:
        raise ModelLoadError(f"{path}: {str(error).rstrip('.')}.", hint=HINT) from None


def _arrays(path: Path, wanted: Sequence[Input]) -> list[Mapping[str, Any]]:
    files.check(path, MAX_BYTES)
    if path.suffix.lower() == ".json":
        body = json.loads(path.read_bytes())
        rows = body.get("items", [body]) if isinstance(body, dict) else [body]
        return [row if isinstance(row, dict) else {"": row} for row in rows]
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(each.file_size for each in archive.infolist())
        if unpacked > MAX_BYTES:
            raise ValueError(f"it unpacks to {unpacked} bytes; at most {MAX_BYTES} are read")
    elif not _begins(path, MAGIC):
        raise ValueError("it is no file of numpy.save")
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        with loaded:
            return [{name: loaded[name] for name in loaded.files}]
    if len(wanted) > 1:
        names = ", ".join(each.name for each in wanted)
        raise ValueError(f"a .npy holds one array, and the network takes {names}; save them as .npz")
    return [{wanted[0].name: loaded}]


def _items(arrays: Mapping[str, Any], wanted: Sequence[Input]) -> list[Item]:
    names = [each.name for each in wanted]
    if set(arrays) != set(names):
        raise ValueError(f"it has {', '.join(sorted(map(str, arrays))) or 'no arrays'}; expected {', '.join(names)}")
    stacks = [_stack(np.asarray(arrays[each.name]), each) for each in wanted]
    counts = {len(stack) for stack in stacks}
    if len(counts) > 1:
        said = ", ".join(f"{name} {len(stack)}" for name, stack in zip(names, stacks, strict=True))
        raise ValueError(f"its arrays are of different numbers of items ({said})")
    return [Item(tuple(each)) for each in zip(*stacks, strict=True)]


def _stack(array: np.ndarray, wanted: Input) -> np.ndarray:
    """Items along the first side, in the numbers of the input."""
    sides = ", ".join("any" if each is None else str(each) for each in wanted.sides)
    stack = array[None] if array.ndim == len(wanted.sides) else array
    fits = stack.ndim == len(wanted.sides) + 1 and all(
        side in (None, length) for side, length in zip(wanted.sides, stack.shape[1:], strict=True)
    )
    if not fits:
        expected = f"[{sides}] of {wanted.dtype}, or a stack of those"
        raise ValueError(f"{wanted.name} is {array.dtype} {list(array.shape)}; expected {expected}")
    dtype = np.dtype(wanted.dtype)
    if stack.dtype.kind not in TAKEN[dtype.kind]:
        said = "no numbers" if stack.dtype.kind in "USO" else f"of {array.dtype}"
        raise ValueError(f"{wanted.name} is {said}; expected {wanted.dtype}")
    if dtype.kind in "iu" and stack.size and not _is_within(stack, dtype):
        raise ValueError(f"{wanted.name} has {stack.min()} to {stack.max()}, which is beyond {wanted.dtype}")
    with np.errstate(over="ignore"):
        cast = stack.astype(dtype, copy=False)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise ValueError(f"{wanted.name} has NaN, infinity, or a number beyond {wanted.dtype}")
    return cast


def _is_within(stack: np.ndarray, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= int(stack.min()) and int(stack.max()) <= limits.max)


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
