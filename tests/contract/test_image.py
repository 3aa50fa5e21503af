"""What an image is given is what runs there: a stage or image that knows few of our files has all that those import."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
STAGE = "model-builds-yes"
LOADTEST_FILES = ROOT / "docker" / "loadtest.Dockerfile.dockerignore"
IMPORT_ALL = """
import importlib, json, pkgutil, sys
import loadtest
for module in pkgutil.iter_modules(loadtest.__path__):
    if module.name not in ("__main__", "locustfile"):
        importlib.import_module(f"loadtest.{module.name}")
print(json.dumps([module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ("app", "cask")]))
"""


def copied() -> set[Path]:
    """The Python files of ours that the stage has which builds models."""
    stage = re.search(rf"^FROM \S+ AS {STAGE}$(.*?)^FROM ", DOCKERFILE.read_text(), re.M | re.S)
    assert stage
    found: set[Path] = set()
    for line in re.findall(r"^COPY (app/.*)$", stage[1].replace("\\\n", " "), re.M):
        for source in line.split()[:-1]:
            path = ROOT / source
            found |= {path} if path.is_file() else set(path.rglob("*.py"))
    return found


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports from the app, but for what it does as a program of its own."""
    module = ast.parse(path.read_text())
    body = [node for node in module.body if "__main__" not in ast.dump(node)]
    for node in (each for statement in body for each in ast.walk(statement)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "app":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("app."))


def file_of(name: str) -> Path | None:
    """The file of a module; None where the name is something in a module."""
    path = ROOT.joinpath(*name.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()), None)


def test_stage_that_builds_models_has_all_that_building_imports() -> None:
    there = copied()
    wanted = {(path, file) for path in there for name in imports(path) if (file := file_of(name))}

    assert ROOT / "app" / "runtimes" / "build" / "build.py" in there
    assert len(wanted) > 20
    assert {f"{path.name} imports {file.relative_to(ROOT)}" for path, file in wanted if file not in there} == set()


def test_image_of_the_load_test_lets_in_what_it_imports() -> None:
    allowed = [line[1:] for line in LOADTEST_FILES.read_text().splitlines() if line.startswith("!")]

    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = [str(path).removeprefix(f"{ROOT}/") for path in json.loads(done.stdout)]

    assert imported
    assert [path for path in imported if not any(path == each or path.startswith(f"{each}/") for each in allowed)] == []


def test_nothing_that_serving_needs_is_taken_out_of_the_image() -> None:
    line = re.search(r"pip .*uninstall --quiet --yes (.+?) *\\?$", DOCKERFILE.read_text(), re.M)
    assert line
    locks = "".join((ROOT / "requirements" / name).read_text() for name in ("serve.txt", "apache.txt"))

    assert [name for name in line[1].split() if re.search(rf"^{name}==", locks, re.M)] == []
