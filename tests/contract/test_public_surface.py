"""Package ``cask`` is a promise: a name, signature or type may change only together with ``API_VERSION``.

After a change on purpose: raise the number, and write the file anew: ``python -m tests.contract.test_public_surface``.
"""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest
from werkzeug.datastructures import FileStorage

import cask
from app.cli import reference_document
from app.config import ROOT
from cask import web

SURFACE = Path(__file__).with_name("public_surface.txt")
MODULES = sorted(f"cask.{path.stem}" for path in (ROOT / "cask").glob("[!_]*.py"))


def described(name: str) -> list[str]:
    """A public name as it stands in the file: its signature, and what a class has beside."""
    value = getattr(cask, name)
    if not callable(value):
        return [f"{name} = {value!r}"]
    lines = [f"{name}{inspect.signature(value)}"]
    if inspect.isclass(value):
        public = [key for key in sorted(vars(value)) if not key.startswith("_")]
        methods = [(key, vars(value)[key]) for key in public if inspect.isfunction(vars(value)[key])]
        lines += [f"{name}.{key}{inspect.signature(method)}" for key, method in methods]
        lines += [f"{name}.{key}: {kind}" for key, kind in sorted(inspect.get_annotations(value).items())]
    return lines


def surface() -> str:
    return "".join(f"{line}\n" for name in sorted(cask.__all__) for line in described(name))


def test_surface_is_as_promised() -> None:
    assert surface() == SURFACE.read_text()


@pytest.mark.parametrize("name", [name for name in cask.__all__ if name != "API_VERSION"])
def test_public_name_says_what_it_is_with_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(getattr(cask, name)) or "")


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_are_true(module: str) -> None:
    loaded = __import__(module, fromlist=["_"])

    assert doctest.testmod(loaded, optionflags=doctest.ELLIPSIS).failed == 0


def test_loads_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import cask;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["cask"]


def test_wrong_limits_are_refused_where_they_are_written() -> None:
    wrong = [
        lambda: cask.Range(5, 1),
        lambda: cask.Range(float("nan")),
        lambda: cask.Text(min_length=3, max_length=2),
        lambda: cask.Text(pattern="("),
        lambda: cask.Choice(),
        lambda: cask.Shape(0, 3),
        lambda: cask.batch(max_size=0),
        lambda: cask.batch(max_wait_ms=-1),
    ]
    for make in wrong:
        with pytest.raises(ValueError, match=r"expected|empty|fits|regular|offers|needs"):
            make()


def test_reference_says_what_the_docstrings_say() -> None:
    assert (ROOT / reference_document.DOCUMENT).read_text() == reference_document.document(), "Run `make docs`."
    assert set(re.findall(r"^### (\w+)$", reference_document.document(), re.M)) == {*cask.__all__} - {"API_VERSION"}


def test_examples_are_checked_as_strictly_as_the_package() -> None:
    """``make check`` does it: mypy once for all takes seconds, and once more here would take as many again."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    strict = next(row for row in settings["overrides"] if "cask.*" in row["module"])

    assert {"examples/models", "examples/templates"} <= {*settings["files"]}
    assert {"examples.models.*", "examples.templates.*"} <= {*strict["module"]}


def test_uploaded_file_is_an_input_for_mypy_too() -> None:
    """``predict("damage", request.files["photo"])`` is what plugins write first."""
    assert FileStorage in typing.get_args(web.Input)


def test_package_says_that_it_has_types() -> None:
    assert (ROOT / "cask" / "py.typed").exists()


if __name__ == "__main__":
    SURFACE.write_text(surface())
