"""A model may bring libraries of its own; the bundle's are there too, and stay as they are."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from app.engine.calls import Item
from app.errors import ModelLoadError
from app.model_code import adding, environments, served
from app.model_code.adding import NewCode
from app.models import manifests
from app.models.manifests import Manifest

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


def answer(manifest: Manifest) -> list[str]:
    model = served.load(manifest, is_allowed=True, threads=1)
    try:
        (found,) = model.predict([Item(["a"])], [{}])
    finally:
        model.close()
    words: list[str] = json.loads(found)
    return words


def locked(manifest: Manifest) -> list[str]:
    """The names and versions in the lock; the first line apart."""
    lines = (manifest.directory / "requirements.lock").read_text().splitlines()
    return [line.split(" --hash=sha256:")[0] for line in lines if "==" in line]


def test_what_the_bundle_has_is_not_installed_again(tmp_path: Path) -> None:
    made = source(tmp_path, "words_for_tests==1.0", "numpy", "torch")
    (made / "model.py").write_text(MODEL.replace("import click", "import words_for_tests as click"))
    wheel(tmp_path / "wheels", "words_for_tests", "1.0", "WORD = 'own'\n", "Requires-Dist: torch\n")
    manifest = adding.add(NewCode(made, "mine", "1"), tmp_path / "store")

    import numpy

    assert locked(manifest) == ["words_for_tests==1.0"]
    assert answer(manifest) == ["own", "own", numpy.__version__]
    packages = environments.place(manifest.directory)
    assert {path.name.split("-")[0] for path in packages.iterdir()} == {
        "words_for_tests",
        "words_for_tests.py",
        "__pycache__",
    }


def test_conflict_with_the_bundle_gets_an_environment_alone_and_says_so(tmp_path: Path) -> None:
    before, said = importlib.metadata.version("click"), list[str]()
    made = source(tmp_path, "words_for_tests==1.0", "click==0.1")
    (made / "model.py").write_text(
        MODEL.replace("import numpy", "import importlib.util").replace(
            "numpy.__version__", "str(importlib.util.find_spec('numpy') or importlib.util.find_spec('torch'))"
        )
    )
    manifest = adding.add(NewCode(made, "mine", "1"), tmp_path / "store", say=said.append)

    assert answer(manifest) == ["own", "another click", "None"]
    assert importlib.metadata.version("click") == before != "0.1"
    assert locked(manifest) == ["click==0.1", "words_for_tests==1.0"]
    (told,) = [line for line in said if "without Cask's packages" in line]
    assert "click==0.1" in told


def test_environment_works_at_another_path_and_is_made_anew_from_its_lock_alone(tmp_path: Path) -> None:
    made = source(tmp_path, "words_for_tests==1.0")
    (made / "model.py").write_text(MODEL.replace("import click", "import words_for_tests as click"))
    adding.add(NewCode(made, "mine", "1"), tmp_path / "store")
    moved = (tmp_path / "store").rename(tmp_path / "elsewhere")
    manifest = manifests.read(moved / "mine" / "1")
    assert answer(manifest)[0] == "own"

    shutil.rmtree(manifest.directory / "environment")
    with pytest.raises(ModelLoadError, match="has no environment for") as raised:
        served.load(manifest, is_allowed=True, threads=1)
    assert "flask model environment mine 1" in str(raised.value.hint)
    environments.install(manifest.directory)
    assert answer(manifest)[0] == "own"


def test_other_bytes_under_the_same_version_are_not_installed(tmp_path: Path) -> None:
    made = source(tmp_path, "words_for_tests==1.0")
    (made / "model.py").write_text(MODEL.replace("import click", "import words_for_tests as click"))
    manifest = adding.add(NewCode(made, "mine", "1"), tmp_path / "store")
    wheel(tmp_path / "wheels", "words_for_tests", "1.0", "WORD = 'evil'\n")

    with pytest.raises(ModelLoadError, match=r"requirements\.lock cannot be installed"):
        environments.install(manifest.directory)


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

    assert locked(manifest) == ["old_for_tests==1.0", "words_for_tests==1.0"]
