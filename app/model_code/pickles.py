"""Pickles in a folder, and what each would import when it is loaded: told to people before they trust it.

A listing and no verdict: code that runs at loading can hide what it does behind innocent names. Nothing is unpickled.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from app.model_code import folder as folders

# Files that run code when they are read, by one of their endings or their first bytes (protocols 2 to 5).
ENDINGS = frozenset({".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt", ".dill"})
STARTS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
TEXTS = ("UNICODE", "STRING")
MOST_OPCODES = 2_000_000
MOST_NAMES = 12
UNKNOWN = "something that only shows when it runs"


def found(folder: Path) -> dict[str, str]:
    """Name of each file that is or holds a pickle → what it would import, in words."""
    return {str(path.relative_to(folder)): _words(path) for path in folders.files(folder) if _is_one(path)}


def _is_one(path: Path) -> bool:
    with path.open("rb") as file:
        if ENDINGS.intersection(each.lower() for each in path.suffixes) or file.read(2) in STARTS:
            return True
    return zipfile.is_zipfile(path) and bool(_members(path))


def _members(path: Path) -> list[str]:
    """The pickles inside of an archive, as torch.save writes it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if name.endswith(".pkl")]
    except (zipfile.BadZipFile, OSError):
        return []


def _words(path: Path) -> str:
    names: set[str] = set()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in _members(path):
                    with archive.open(member) as inner:
                        names.update(_imports(inner))
        else:
            with path.open("rb") as file:
                names.update(_imports(file))
    except Exception as error:  # noqa: BLE001 - whatever an altered file makes of the readers
        if not names:
            return f"cannot be read as a pickle ({type(error).__name__})"
        # joblib writes the numbers of an array between the parts of its pickle.
        return f"{_listed(names)}, and what comes behind its first array cannot be listed"
    return _listed(names)


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:MOST_NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"imports {', '.join(shown)}{more}" if shown else "imports nothing"


def _imports(file: IO[bytes]) -> Iterator[str]:
    """The globals of one pickle and of those that follow it in the file, as older torch.save writes them."""
    yield from _globals(pickletools.genops(file))
    while file.peek(2)[:2] in STARTS if hasattr(file, "peek") else False:
        yield from _globals(pickletools.genops(file))


def _globals(opcodes: Iterable[tuple[pickletools.OpcodeInfo, object, int | None]]) -> Iterator[str]:
    # What was pushed last: texts as they are, anything else as None; and what of it was memoized.
    pushed: list[str | None] = []
    memo: dict[object, str | None] = {}
    for count, (opcode, argument, _) in enumerate(opcodes):
        name = opcode.name
        if count > MOST_OPCODES:
            yield "more than can be listed"
            return
        if name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)
        elif name == "STACK_GLOBAL":
            pair = pushed[-2:]
            yield ".".join(map(str, pair)) if len(pair) == 2 and None not in pair else UNKNOWN
        if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else argument] = pushed[-1] if pushed else None
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(argument))
        else:
            if opcode.stack_before:
                # Whatever takes something away may leave another thing on top than it seems.
                pushed.clear()
            if opcode.stack_after:
                pushed.append(str(argument) if any(text in name for text in TEXTS) else None)
        del pushed[:-8]
