"""Where torch is not installed, built models are served, and whatever needs torch says so in words."""

from __future__ import annotations

import importlib.abc
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import terminal
from app.errors import ModelLoadError
from app.host import machine
from app.models import manifests
from app.runtimes import devices, registry
from app.runtimes.registry import Plan
from tests.servers import ROOT


class NoTorch(importlib.abc.MetaPathFinder):
    """Finds nothing, as where it is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in terminal.TORCH:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in terminal.TORCH]:
        monkeypatch.delitem(sys.modules, name)
    finder = NoTorch()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.setattr(machine, "has_torch", lambda: False)


def test_model_that_was_not_built_is_refused_in_words(tmp_path: Path) -> None:
    manifest = manifests.read(ROOT / "models" / "site-safety-classifier" / "1")

    with pytest.raises(ModelLoadError, match="this is a slim image, which serves models that were built"):
        registry.load_model(manifest, Plan(state_dir=tmp_path))


def test_gpu_is_refused_in_words() -> None:
    with pytest.raises(ModelLoadError, match="a slim image, without torch"):
        devices.resolve("cuda:0")


def test_command_that_needs_torch_says_so() -> None:
    command = terminal.Command("probe", callback=lambda: __import__("torch"))
    done = CliRunner().invoke(command)

    assert done.exit_code == terminal.REFUSED
    assert "This command needs torch, and this image has none" in done.output
    assert "Next: Run it where torch is" in done.output


def test_command_that_lacks_another_module_is_not_explained_so() -> None:
    done = CliRunner().invoke(terminal.Command("probe", callback=lambda: __import__("nosuch_module")))

    assert isinstance(done.exception, ModuleNotFoundError)
