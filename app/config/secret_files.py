"""Secrets that come as files: one that NAME_FILE names, or one in the folder of secrets, called as the setting."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from app.config.schema import PLUGIN_PREFIX, SECRETS, Layer, Reading
from app.errors import SettingsError
from app.storage import files

# An env file or a secret: a FIFO would hold up the start for ever, and /dev/zero fill the memory.
MOST_BYTES = 1 << 20
# Another folder of secrets than that of containers; also what docker/steps take them from.
FOLDER = "SECRETS_DIR"

# A secret that an earlier place gives is not read again: the file may be for another user's eyes only.


def folder(environ: Mapping[str, str], root: Path, usual: Path) -> Path:
    """Where secrets lie: SECRETS_DIR, or the usual place. Raises SettingsError where SECRETS_DIR is no folder."""
    given = environ.get(FOLDER)
    if not given:
        return usual
    if (root / given).exists() and not (root / given).is_dir():
        raise SettingsError(f"{FOLDER} is {given!r}, which is no folder; expected one with a file for each secret.")
    return root / given


def named(environ: Mapping[str, str], root: Path, besides: Layer) -> Layer:
    """What the files hold that NAME_FILE names. Raises SettingsError."""
    layer = {}
    for one in (one for one in SECRETS if one.field not in besides):
        given = environ.get(f"{one.name}_FILE")
        if given and (value := _read(root / given, f"{one.name}_FILE")):
            layer[one.field] = Reading(value, f"file {root / given}")
    return layer


def below(directory: Path, besides: Layer) -> Layer:
    """What the files in a folder hold, those of plugins included. Raises SettingsError."""
    layer = {}
    for one in (one for one in SECRETS if one.field not in besides):
        path = directory / one.field
        if os.path.lexists(path) and (value := _read(path, one.name)):
            layer[one.field] = Reading(value, f"file {path}")
    for name in (name for name in _names(directory) if name.startswith(PLUGIN_PREFIX) and name not in besides):
        if value := _read(directory / name, name.upper()):
            layer[name] = Reading(value, f"file {directory / name}")
    return layer


def text_of(path: Path) -> str:
    """A regular file of text, with any line ends as \\n. Raises OSError, UnicodeDecodeError."""
    # Editors on Windows put a mark before the first line.
    text = files.read(path, MOST_BYTES).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _names(directory: Path) -> list[str]:
    """What lies in a folder; nothing where there is none, or where we may not look."""
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - iterdir fails later, on the first name
    except OSError:
        return []


def _read(path: Path, name: str) -> str:
    try:
        return text_of(path).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        advice = _advice(path) if isinstance(error, PermissionError) else ""
        raise SettingsError(
            f"{name} is to come from the file {path}, which cannot be read ({reason}); expected a readable text file."
            f"{advice}"
        ) from None


def _advice(path: Path) -> str:
    """How its owner lets this user read it and nobody else: mode 600 allows the owner only."""
    return (
        f" Let the user {os.getuid()} read it: chgrp {os.getgid()} {path.parent} {path};"
        f" chmod 750 {path.parent}; chmod 640 {path}."
    )
