"""Somebody's file with a whole network: what kind it is, and whether it can be what it says. Nothing in it is run.

ONNX, OpenVINO's pair of files (.xml and .bin), a program of torch.export (.pt2), TorchScript.
"""

from __future__ import annotations

import mmap
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import ModelLoadError
from app.runtimes.importing import onnx_files
from app.storage import files

ONNX, IR, EXPORTED, TORCHSCRIPT = "onnx", "openvino", "torch-export", "torchscript"
# Weights of a network that timm builds by name.
TIMM = "timm"
AGAIN = "Download or copy it again, and compare its size with the original's."
KINDS_HINT = "Give an .onnx, an OpenVINO .xml with its .bin beside it, a .pt2 of torch.export, or TorchScript."
# Unpacked, an archive of torch is about as large as it is: it stores weights, and compresses nothing.
MOST_RATIO = 20
_HEAD_BYTES = 512
_IR_VERSION = re.compile(rb'<net [^>]*\bversion="(\d+)"')
IR_VERSIONS = (b"10", b"11")
_CONST = re.compile(rb'\boffset="(\d+)"[^>]{0,200}?\bsize="(\d+)"|\bsize="(\d+)"[^>]{0,200}?\boffset="(\d+)"')


@dataclass(frozen=True)
class NetworkFile:
    """A file that may be converted. ``notes``: what its exporter wrote into it, by name. ``about``: one line."""

    path: Path
    kind: str
    about: str
    notes: dict[str, str] = field(default_factory=dict)
    operators: tuple[str, ...] = ()
    opset: int = 0


def look(path: Path) -> NetworkFile:
    """What the file is. Raises ModelLoadError with its name, what was found and what to do."""
    size = _size(path)
    with files.open_regular(path, files.most_weights()) as file:
        head = file.read(_HEAD_BYTES)
    if not size:
        raise ModelLoadError(f"{path} is empty (0 bytes).", hint=AGAIN)
    return _reader(path, head)(path)


def _reader(path: Path, head: bytes) -> Callable[[Path], NetworkFile]:
    if head.startswith(b"PK"):
        return _archive
    if head.startswith(b"version https://git-lfs"):
        hint = "Run `git lfs pull` where it came from."
        raise ModelLoadError(f"{path} is a Git LFS pointer, not the file itself.", hint=hint)
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        hint = "The download wanted a sign-in or another address; get the file itself."
        raise ModelLoadError(f"{path} is a web page, no network.", hint=hint)
    if head[:1] == b"\x80":
        hint = "Its weights alone can be added: make model-add ARCH=… WEIGHTS=…; or export the network to ONNX."
        raise ModelLoadError(f"{path} is a pickle, which runs code when it is read.", hint=hint)
    if path.suffix == ".xml" or b"<net " in head:
        return _ir
    if path.suffix == ".bin" and path.with_suffix(".xml").exists():
        raise ModelLoadError(f"{path} holds the weights of a network only.", hint=f"FILE={path.with_suffix('.xml')}")
    if path.suffix == ".onnx" or head[:1] == b"\x08":
        return _onnx
    raise ModelLoadError(f"{path} begins with {head[:16]!r}, as no network does.", hint=KINDS_HINT)


def _size(path: Path) -> int:
    """Its size in bytes, where it is a regular file and no link."""
    if path.is_symlink():
        raise ModelLoadError(
            f"{path} is a link to {path.readlink()}.",
            hint="Give a copy of the file itself, with what lies beside it: cp -rL folder copy.",
        )
    try:
        return files.check(path, files.most_weights())
    except FileNotFoundError:
        raise ModelLoadError(f"FILE {path} does not exist.", hint=KINDS_HINT) from None
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {files.reason(error)}.", hint=KINDS_HINT) from None


# ── ONNX ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _onnx(path: Path) -> NetworkFile:
    facts, fault = onnx_files.Facts(), ""
    with (
        files.open_regular(path, files.most_weights()) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as content,
    ):
        try:
            facts = onnx_files.read(content)
        except onnx_files.CutError as error:
            # Raised outside: its traceback would hold what is mapped.
            fault = str(error)
    if fault:
        words = f"{fault}; it is cut off, damaged or something else"
        raise ModelLoadError(f"{path} cannot be read as ONNX: {words}.", hint=AGAIN)
    for each in sorted(facts.external, key=lambda each: each.location):
        _check_external(path, each)
    by = f" by {facts.producer}" if facts.producer else ""
    about = f"ONNX{by}, opset {facts.opset}, {facts.nodes} operators"
    return NetworkFile(path, ONNX, about, facts.notes, tuple(sorted(facts.operators)), facts.opset)


def _check_external(path: Path, wanted: onnx_files.External) -> None:
    """Weights beside the model: a regular file in its folder, as long as the model says."""
    name = wanted.location
    parts = Path(name).parts
    if not name or Path(name).is_absolute() or ".." in parts:
        raise ModelLoadError(
            f"{path} wants weights from {name!r}, which is outside of its folder.",
            hint="Save it with its weights inside, or beside it: onnx.save(model, file, save_as_external_data=True).",
        )
    found = path.parent
    for part in parts:
        found /= part
        if found.is_symlink():
            raise ModelLoadError(
                f"{path} wants weights from {name!r}, and {found} is a link.", hint="Put a copy of the file there."
            )
    if not found.exists():
        raise ModelLoadError(f"{path} wants weights from {name!r}, which is not beside it.", hint="Copy both files.")
    if (size := _size(found)) < wanted.end:
        raise ModelLoadError(f"{found} has {size} bytes; {path.name} wants {wanted.end} from it.", hint=AGAIN)


# ── OpenVINO ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ir(path: Path) -> NetworkFile:
    content, weights = files.read(path, files.most_weights()), path.with_suffix(".bin")
    if b"<net " not in content or not content.rstrip().endswith(b"</net>"):
        words = "does not begin with <net> and end with </net>"
        raise ModelLoadError(f"{path} is no whole network of OpenVINO: it {words}.", hint=AGAIN)
    version = _IR_VERSION.search(content[:_HEAD_BYTES])
    if version and version[1] not in IR_VERSIONS:
        hint = "Convert the original again with OpenVINO 2022.1 or later (openvino.save_model)."
        raise ModelLoadError(f"{path} is OpenVINO IR version {int(version[1])}; 10 and 11 are read.", hint=hint)
    ends = [sum(int(part) for part in found if part) for found in _CONST.findall(content)]
    if ends and not weights.exists():
        hint = "OpenVINO writes two files; copy both into one folder."
        raise ModelLoadError(f"{path} has its weights in {weights.name}, which is not beside it.", hint=hint)
    if ends and (size := _size(weights)) < max(ends):
        raise ModelLoadError(f"{weights} has {size} bytes; {path.name} wants {max(ends)}.", hint=AGAIN)
    return NetworkFile(path, IR, "OpenVINO IR")


# ── torch ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _archive(path: Path) -> NetworkFile:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise ModelLoadError(f"{path} has lost its end, so it is cut off or damaged.", hint=AGAIN) from None
    size, unpacked = path.stat().st_size, sum(each.file_size for each in entries)
    if unpacked > max(MOST_RATIO * size, 1 << 20) or unpacked > files.most_weights():
        raise ModelLoadError(
            f"{path} has {size} bytes and would unpack to {unpacked}.",
            hint=f"torch compresses nothing: {MOST_RATIO} times is refused. Save it again from torch.",
        )
    return NetworkFile(path, *_kind_in_words(path, {each.filename for each in entries}))


def _kind_in_words(path: Path, names: set[str]) -> tuple[str, str]:
    if any(name.endswith((".so", ".cubin")) or "/data/aotinductor/" in name for name in names):
        raise ModelLoadError(
            f"{path} is machine code of AOTInductor, which is not loaded from elsewhere.",
            hint="torch.export.save(torch.export.export(network, (example,)), 'network.pt2'), and add that file.",
        )
    if any(name.endswith("/models/model.json") or "serialized_exported_program" in name for name in names):
        return EXPORTED, "a program of torch.export"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return TORCHSCRIPT, "TorchScript"
    if any(name.endswith("data.pkl") for name in names):
        raise ModelLoadError(
            f"{path} holds weights or a pickled module, not a network that can be computed without its code.",
            hint="Add its weights with make model-add ARCH=… WEIGHTS=…, or export the network to ONNX.",
        )
    shown = ", ".join(sorted(names)[:3])
    raise ModelLoadError(f"{path} is a zip archive of something else ({shown}).", hint=KINDS_HINT)
