"""The entry of a version in the store: its manifest as text, its name checked, its folder put in place whole."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.errors import ManifestError
from app.models import manifests
from app.models.manifests import Manifest, ToleranceSpec


def check_free(target: Path, *, force: bool) -> None:
    """Raises ManifestError where the version exists, unless it is to be replaced."""
    if target.exists() and not force:
        raise ManifestError(
            f"{target} exists already.", hint="Give another VERSION; --force replaces it, which a server may notice."
        )


def check_name(manifest: Manifest) -> None:
    """Raises ManifestError for a name or version that is no folder's."""
    for value, what in ((manifest.name, "NAME"), (manifest.version, "VERSION")):
        if not manifests.NAME_PATTERN.fullmatch(value):
            raise ManifestError(
                f"{what} {value!r} is not usable.", hint="Lower-case letters, digits, '.', '_' and '-', at most 64."
            )


@contextlib.contextmanager
def adding(store: Path, target: Path) -> Iterator[Path]:
    """A folder to make a version in, which becomes ``target`` by rename at the end of the block; else nothing stays."""
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=store) as scratch:
        made = Path(scratch) / target.relative_to(store)
        made.mkdir(parents=True)
        yield made
        target.parent.mkdir(exist_ok=True)
        # Whatever the umask: the engine runs as another user.
        made.chmod(0o755)
        if target.exists():
            target.rename(made.parent / "replaced")
        made.rename(target)


def to_toml(manifest: Manifest) -> str:
    """The manifest as the text of its file: only what differs from a default, besides what is always told."""
    top = {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "architecture": manifest.architecture,
        "weights": manifest.weights,
        "sha256": manifest.sha256,
        "golden": manifest.golden,
        "description": manifest.description,
        "demonstration": manifest.demonstration,
        "random_weights": manifest.random_weights,
        "labels": list(manifest.labels),
    }
    sizes = {key: value for key, value in asdict(manifest.input).items() if value != 0}
    tables = {
        "aliases": manifest.aliases,
        "input": {} if manifest.code else sizes,
        "serve": {key: value for key, value in asdict(manifest.serve).items() if value is not None},
        "tolerance": {} if manifest.tolerance == ToleranceSpec() else asdict(manifest.tolerance),
        "architecture_options": manifest.architecture_options,
        "held_out": manifest.held_out,
        "code": asdict(manifest.code) if manifest.code else {},
    }
    return toml({key: value for key, value in top.items() if value not in ("", False)}, tables)


def toml(top: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> str:
    """A TOML document with tables that have no tables inside; empty ones are left out."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in top.items()]
    for table, entries in tables.items():
        if entries:
            lines += ["", f"[{table}]", *(f"{key} = {_toml_value(value)}" for key, value in entries.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # TOML's basic strings and JSON's agree, but for DEL, which JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, list | tuple):
        parts = [_toml_value(part) for part in value]
        short = f"[{', '.join(parts)}]"
        return short if len(short) <= 100 else "[\n" + "".join(f"    {part},\n" for part in parts) + "]"
    return repr(value)
