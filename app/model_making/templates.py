"""What ``make model-new`` writes: a folder with a model that works, to be changed into one's own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from app.config import ROOT
from app.errors import ManifestError
from app.models.manifests import NAME_PATTERN

PLACE = ROOT / "examples" / "templates"
CLASS_NAME = "Template"
DOC = re.compile(r'^ +"""(.+?)\.?"""$', re.M)


def known() -> dict[str, str]:
    """What each does, as its class says; those first that need nothing besides. Empty outside of a checkout."""
    folders = {path.parent.name: path.parent for path in PLACE.glob("*/model.py")}
    order = sorted(folders, key=lambda name: ((folders[name] / "requirements.txt").exists(), name))
    docs = {name: DOC.search((folders[name] / "model.py").read_text()) for name in order}
    return {name: found[1] if found else "" for name, found in docs.items()}


def write(name: str, template: str, folder: Path) -> list[Path]:
    """Copy a template under another name; returns the files. Raises ManifestError, and then has written nothing."""
    if template not in known():
        there = ", ".join(known()) or "none, as this is no checkout"
        hint = "make model-new NAME=tickets TEMPLATE=text"
        raise ManifestError(f"TEMPLATE is {template!r}; there are: {there}.", hint=hint)
    if not NAME_PATTERN.fullmatch(name):
        raise ManifestError(
            f"NAME is {name!r}; expected lower-case letters, digits, '.', '_' and '-'.",
            hint=f"make model-new NAME=tickets TEMPLATE={template}",
        )
    if folder.exists() or folder.is_symlink():
        raise ManifestError(
            f"{folder} is there already; nothing was touched.", hint=f"Try it: make model-test MODEL={folder}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(PLACE / template, folder, ignore=shutil.ignore_patterns("__pycache__"))
    model = folder / "model.py"
    model.write_text(model.read_text().replace(f"class {CLASS_NAME}(", f"class {class_name(name)}("))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def class_name(name: str) -> str:
    """``my-tickets.2`` → ``MyTickets2``."""
    words = "".join(word.capitalize() for word in re.split(r"[._-]+", name))
    return words if words[:1].isalpha() else f"Model{words}"
