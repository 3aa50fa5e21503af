"""A model may bring libraries of its own; the bundle's are there too, and stay as they are."""

from __future__ import annotations

import importlib.metadata
import json
import zipfile
from pathlib import Path

import pytest

from app.engine.calls import Item
from app.errors import ModelLoadError
from app.model_code import adding, served
from app.model_code.adding import NewCode

MODEL = """
import click
import numpy
import words_for_tests

from cask import Model


class Mine(Model):
    def predict(self, text: list[str]) -> list[list[str]]:
        return [[words_for_tests.WORD, click.WORD, numpy.__version__] for _ in text]
"""


def wheel(folder: Path, name: str, version: str, code: str, wants: str = "") -> None:
    """A wheel with one module, as the specification of binary distributions has it."""
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", code)
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wants}")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")


def source(folder: Path, *requirements: str) -> Path:
    made, wheels = folder / "source", folder / "wheels"
    made.mkdir()
    wheels.mkdir()
    wheel(wheels, "words_for_tests", "1.0", "WORD = 'own'\n")
    wheel(wheels, "click", "0.1", "WORD = 'another click'\n")
    (made / "model.py").write_text(MODEL)
    (made / "requirements.txt").write_text("\n".join(("--no-index", f"--find-links {wheels}", *requirements)))
    return made


def test_own_libraries_come_first_and_the_bundle_stays_as_it_is(tmp_path: Path) -> None:
    before = importlib.metadata.version("click")
    made = source(tmp_path, "words_for_tests==1.0", "click==0.1")
    manifest = adding.add(NewCode(made, "mine", "1"), tmp_path / "store")
    model = served.load(manifest, is_allowed=True, threads=1)
    try:
        (answer,) = model.predict([Item(["a"])], [{}])
    finally:
        model.close()

    import numpy

    assert json.loads(answer) == ["own", "another click", numpy.__version__]
    assert importlib.metadata.version("click") == before != "0.1"
    assert (manifest.directory / "requirements.lock").read_text().split() == ["click==0.1", "words_for_tests==1.0"]


def test_requirement_that_cannot_be_had_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    made = source(tmp_path, "nowhere-to-be-found-for-tests==3")

    with pytest.raises(ModelLoadError, match="No matching distribution found for nowhere-to-be-found-for-tests==3"):
        adding.add(NewCode(made, "mine", "1"), tmp_path / "store")
    assert not list((tmp_path / "store").glob("*"))


def test_package_that_asks_for_old_versions_is_installed_without_them(tmp_path: Path) -> None:
    """And torchvision, which needs a .pth file of the bundle where torch is a build for the CPU, can be imported."""
    made = source(tmp_path, "words_for_tests==1.0")
    wheel(tmp_path / "wheels", "old_for_tests", "1.0", "WORD = 'own'\n", "Requires-Dist: torch <2.3.0,>=2.2.0\n")
    lists = (made / "requirements.txt").read_text()
    (made / "requirements-no-deps.txt").write_text(lists.replace("words_for_tests", "old_for_tests"))
    (made / "model.py").write_text(
        MODEL.replace("import click", "import old_for_tests as click").replace(
            "import numpy", "import torchvision as numpy"
        )
    )

    manifest = adding.add(NewCode(made, "mine", "1"), tmp_path / "store")

    lock = (manifest.directory / "requirements.lock").read_text().split()
    assert lock == ["old_for_tests==1.0", "words_for_tests==1.0"]
