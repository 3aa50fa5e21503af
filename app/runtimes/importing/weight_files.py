"""Somebody's file with weights, read without running any code in it; another kind of file is named by its first bytes.

Objects of other classes in a checkpoint (options, callbacks, numbers of NumPy) become stand-ins that do nothing, so
that the tensors beside them can be had. For adding a model only; nothing is unpickled at serving.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from app.errors import ModelLoadError
from app.runtimes.importing.checkpoints import Tensors, flatten
from app.storage import files

_HEAD_BYTES = 512
_SAVE_IT = "Where you trained it: torch.save(model.state_dict(), 'weights.pth'), and add that file."
_WHOLE = "Add it as a whole: make model-add FILE=… TASK=classify LABELS=… NAME=… VERSION=…"
_AGAIN = "Download or copy it again, and compare its size with the original's."
# First bytes, what they mean, what to do.
_HEADS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself", "Run `git lfs pull` where it came from."),
    (b"\x89HDF\r\n", "is an HDF5 file, as Keras and TensorFlow write it", f"Only PyTorch weights are read. {_SAVE_IT}"),
    (b"GGUF", "is a GGUF file of a language model", f"Only PyTorch weights of torchvision's networks. {_SAVE_IT}"),
    (b"\x1f\x8b", "is compressed by gzip", "Unpack it first, and give the file inside."),
    (b"7z\xbc\xaf", "is a 7z archive", "Unpack it first, and give the file inside."),
    (b"\xfd7zXZ", "is compressed by xz", "Unpack it first, and give the file inside."),
    (b"BZh", "is compressed by bzip2", "Unpack it first, and give the file inside."),
    (b"\x93NUMPY", "is a NumPy array", f"Only PyTorch weights are read. {_SAVE_IT}"),
    (b"\xff\xd8\xff", "is a JPEG image", "WEIGHTS must name the file with the weights."),
    (b"\x89PNG", "is a PNG image", "WEIGHTS must name the file with the weights."),
    (b"%PDF", "is a PDF", "WEIGHTS must name the file with the weights."),
)


class StandIn:
    """In the place of an object of a class that we do not know; remembers nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


def read(path: Path) -> Tensors:
    """All tensors in a .safetensors, .pth, .pt, .ckpt or .bin file by their dotted names. Raises ModelLoadError."""
    try:
        size = files.check(path, files.most_weights())
        with files.open_regular(path, files.most_weights()) as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        words = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {files.reason(error)}"
        raise ModelLoadError(
            f"WEIGHTS {path} {words}, so it is not a file of weights.",
            hint="Give a .safetensors or .pth file, DEFAULT or random.",
        ) from None
    _refuse_other_kinds(path, head, size)
    tensors = flatten(_safetensors(path) if _is_safetensors(head, size) else _pickled(path, head))
    if not tensors:
        raise ModelLoadError(f"{path} holds no tensors, so it holds no state_dict.", hint=_SAVE_IT)
    return tensors


def _refuse_other_kinds(path: Path, head: bytes, size: int) -> None:
    for words, hint in _other_kinds(path, head, size):
        raise ModelLoadError(f"{path} cannot be read as weights: it {words}.", hint=hint)


def _other_kinds(path: Path, head: bytes, size: int) -> Iterator[tuple[str, str]]:
    if not size:
        yield "is empty (0 bytes)", _AGAIN
    for begin, words, hint in _HEADS:
        if head.startswith(begin):
            yield words, hint
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        yield "is a web page, perhaps of an error or a sign-in", _AGAIN
    if head[4:8] == b"TFL3":
        yield "is a TensorFlow Lite file", f"Only PyTorch weights are read. {_SAVE_IT}"
    if _is_onnx(path, head):
        yield "is an ONNX file, which holds a whole network", _WHOLE
    if path.suffix == ".safetensors" and not _is_safetensors(head, size):
        yield "is named safetensors and is none, or is cut off", _AGAIN
    if head and head[:1] not in (b"\x80", b"P") and not _is_safetensors(head, size):
        yield f"begins with {head[:16]!r}, as no file of PyTorch does", _SAVE_IT


def _is_onnx(path: Path, head: bytes) -> bool:
    """ONNX is a protocol buffer without a mark of its own: its version comes first, then who made it."""
    is_likely = head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42")
    return is_likely or path.suffix == ".onnx"


def _is_safetensors(head: bytes, size: int) -> bool:
    """The length of a header in JSON, 8 bytes, then that header; whatever the file is called."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def _safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ModelLoadError(
            f"{path} cannot be read as safetensors: {error}; it is cut off or damaged.", hint=_AGAIN
        ) from None


def _pickled(path: Path, head: bytes) -> Any:
    if head.startswith(b"PK"):
        _refuse_other_archives(path)
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path) if head.startswith(b"PK") else []
        stand_ins: list[Any] = [(type(name, (StandIn,), {}), name) for name in unknown]
        # torch warns of oddities in the file; what matters of them is an error. Adding a model has one thread.
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelLoadError(_unpickling_words(path, error), hint=_SAVE_IT) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelLoadError(
            f"{path} cannot be read as weights: {reason}; it is cut off or damaged.", hint=_AGAIN
        ) from None
    _refuse_whole_models(path, content)
    return content


def _unpickling_words(path: Path, error: Exception) -> str:
    found = str(error).partition("GLOBAL ")[2].partition(" ")[0]
    named = f" ({found})" if found else ""
    return f"{path} holds Python objects besides tensors{named}; reading them would run code from the file."


def _refuse_whole_models(path: Path, content: Any) -> None:
    whole = [content, *(content.values() if isinstance(content, Mapping) else ())]
    for each in whole:
        if isinstance(each, StandIn) and not flatten(content):
            raise ModelLoadError(
                f"{path} holds Python objects besides tensors: a whole object of {type(each).__name__}, whose code it "
                "would run.",
                hint=_SAVE_IT,
            )


def _refuse_other_archives(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        words, hint = "its end is missing, so it is cut off or damaged", _AGAIN
    else:
        words, hint = _archive_kind(names)
    if words:
        raise ModelLoadError(f"{path} cannot be read as weights: {words}.", hint=hint)


def _archive_kind(names: list[str]) -> tuple[str, str]:
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return "it is TorchScript (torch.jit.save), which holds code", _WHOLE
    if any(name.endswith("data.pkl") for name in names):
        return "", ""
    if any(name.startswith("MAR-INF/") for name in names):
        return "it is an archive for TorchServe (.mar)", "Unpack it, and give the .pth file inside."
    if any(name.endswith(".weights.h5") for name in names):
        return "it is a model of Keras", f"Only PyTorch weights are read. {_SAVE_IT}"
    if any(name.endswith(".pt2") or "/models/" in name or "archive_format" in name for name in names):
        return "it is a program of torch.export (.pt2)", _WHOLE
    return f"it is a zip archive of something else ({', '.join(names[:3])})", "Unpack it, and give the file inside."
