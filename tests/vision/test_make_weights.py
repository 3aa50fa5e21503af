"""The script that made the examples' small weights still makes them, each time the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from examples.models import make_weights

HERE = make_weights.HERE
# Training as it was takes minutes, and its last digits depend on the processor; these show that it runs and repeats.
PICTURES, STEPS = 40, 3


def made(make: Callable[[Path, random.Random], None], folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    torch.manual_seed(1)
    make(folder, random.Random(1))  # noqa: S311
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (each.get_dtype(), each.get_shape()) for name, each in slices.items()}


def test_the_table_is_what_the_example_ships(tmp_path: Path) -> None:
    files = made(make_weights.table, tmp_path / "table")

    assert files == {"weights.json": (HERE / "table" / "weights.json").read_bytes()}


def test_the_segmenter_is_made_twice_the_same_in_the_shape_that_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_weights, "PICTURES", PICTURES)
    train = make_weights.train
    monkeypatch.setattr(make_weights, "train", lambda *given: train(*given[:3], STEPS))

    first, second = (made(make_weights.segment, tmp_path / name) for name in ("first", "second"))

    assert first == second
    assert first["labels.txt"] == (HERE / "segment" / "labels.txt").read_bytes()
    shipped = HERE / "segment" / "weights.safetensors"
    assert tensors(tmp_path / "first" / "weights.safetensors") == tensors(shipped)
    assert first["weights.safetensors"] != shipped.read_bytes()


def test_the_detector_answers_as_the_file_that_is_shipped_takes_it() -> None:
    torch.manual_seed(1)
    with torch.inference_mode():
        found = make_weights.Detector().eval()(torch.zeros(2, 3, make_weights.SIDE, make_weights.SIDE))

    # Columns of boxes and labels, as the head of YOLO is known by.
    cells = (make_weights.SIDE // make_weights.CELL) ** 2
    assert found.shape == (2, 4 + len(make_weights.LABELS), cells)
    centres = found[0, :2]
    assert torch.isfinite(centres).all()
