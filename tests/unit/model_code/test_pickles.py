"""What a pickle would import is told by name, and nothing of it is run."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.errors import ModelLoadError
from app.model_code import adding, pickles
from app.model_code.adding import NewCode
from tests.unit.model_code import folders


class Evil:
    """Runs a command when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return subprocess.check_output, (["true"],)


def _legacy(path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "protocol 4": ("a.bin", lambda path: path.write_bytes(pickle.dumps(Evil(), 4)), "subprocess.check_output"),
    # As Python 2 called it; Python 3 reads it as subprocess.
    "protocol 2": ("a.bin", lambda path: path.write_bytes(pickle.dumps(Evil(), 2)), "commands.check_output"),
    "protocol 0": ("a.pkl", lambda path: path.write_bytes(pickle.dumps(os.system, 0)), "posix.system"),
    "names in the memo": (
        "a.bin",
        lambda path: path.write_bytes(pickle.dumps(["posix", "system", os.system, OrderedDict])),
        "collections.OrderedDict, posix.system",
    ),
    "torch": ("a.bin", lambda path: torch.save({"a": torch.zeros(3)}, path), "torch._utils._rebuild_tensor_v2"),
    "torch before 1.6": ("a.pth", _legacy, "torch._utils._rebuild_tensor_v2"),
    "numbers": ("a.pkl", lambda path: path.write_bytes(pickle.dumps([1, "a"])), "imports nothing"),
    "joblib": (
        "a.joblib",
        # A pickle, the numbers of an array, and the rest of the pickle.
        lambda path: path.write_bytes(b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n\xff\xff\xff"),
        "imports joblib.numpy_pickle.NumpyArrayWrapper, and what comes behind its first array cannot be listed",
    ),
    "junk": ("a.pkl", lambda path: path.write_bytes(b"junk"), "cannot be read as a pickle"),
    "compressed": ("a.pkl.gz", lambda path: path.write_bytes(gzip.compress(pickle.dumps(Evil()))), "cannot be read"),
    # Published ways around scanners: the memo holds another thing than the text that was pushed last.
    "a memo that lies": (
        "a.bin",
        lambda path: path.write_bytes(b"\x80\x04N\x8c\x0bcollections0q\0\x8c\x06system\x93h\0\x8c\x06system\x93."),
        pickles.UNKNOWN,
    ),
    "computed": ("a.bin", lambda path: path.write_bytes(b"\x80\x04N\x8c\x01a\x93."), pickles.UNKNOWN),
}


@pytest.mark.parametrize("what", FILES)
def test_what_a_pickle_imports_is_told(tmp_path: Path, what: str) -> None:
    name, write, said = FILES[what]
    write(tmp_path / name)

    assert said in pickles.found(tmp_path)[name]


def test_weights_that_run_nothing_are_no_pickles(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (tmp_path / "words.txt").write_text("cos\nsystem\n")

    assert pickles.found(tmp_path) == {}


def test_whoever_trusts_is_told_what_was_found(tmp_path: Path) -> None:
    source = folders.tickets(tmp_path / "source")
    (source / "weights.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelLoadError, match=r"weights\.bin imports subprocess\.check_output"):
        adding.add(NewCode(source, "tickets", "1"), tmp_path / "store")

    said: list[str] = []
    adding.add(NewCode(source, "tickets", "1", is_trusted=True), tmp_path / "store", say=said.append)
    assert "trusted: weights.bin imports subprocess.check_output" in said
