"""int8 and bf16 of whole networks of every task: judged by the task's own measure, the fastest faithful one chosen."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app import tasks
from app.errors import ModelLoadError
from app.models.builds import Candidate
from app.models.manifests import Manifest
from app.runtimes.build import array_samples, build, conversion, samples
from app.runtimes.build.build import BuildOptions, build_model
from app.runtimes.build.trial_process import Bench
from app.runtimes.registry import Plan, load_model
from examples.models.drawn_shapes import LABELS, SIDE, draw
from tests import instance_networks, onnx_files
from tests.servers import ROOT
from tests.vision.test_add_network import Add, add  # noqa: F401 - a fixture

# Half calibrate, half are compared; a build for people wants 100.
PICTURES = 24
LISTED = 20


class InThisProcess:
    """In the place of a process for each candidate: loading the libraries for each takes far longer than the trial."""

    def __init__(self, manifest: Manifest, limit_seconds: float, device: str) -> None:
        self.bench = Bench(manifest, device)

    def of(self, candidate: Candidate) -> InThisProcess:
        return self

    def ask(self, do: str, candidate: Candidate, **words: Any) -> Any:
        return json.loads(json.dumps(getattr(self.bench, do)(candidate, **words)))

    once = ask

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Listed(nn.Module):
    """A detector that lists its best boxes itself: many scores are nearly equal, so rounding changes their order."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = instance_networks.Coloured(is_suppressed=False, has_maps=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (found,) = self.inner(images)
        best, label = found[:, 4:].max(1)
        scores, places = best.topk(LISTED)
        boxes = found[:, :4].mT.gather(1, places[..., None].expand(-1, -1, 4))
        corners = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)
        return torch.cat([corners, scores[..., None], label.gather(1, places)[..., None].float()], -1)


def exported(network: nn.Module, side: int, path: Path) -> Path:
    example, batch = torch.zeros(2, 3, side, side), torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},)), path)
    return path


def suppressed(folder: Path) -> Path:
    return exported(Listed(), instance_networks.SIDE_PX, folder / "listed.pt2")


def with_masks(folder: Path) -> Path:
    instance_networks.save(folder / "masks.pt2")
    return folder / "masks.pt2"


def segmenter(folder: Path) -> Path:
    """Red, green and blue are three classes: a convolution that mixes the channels."""
    network = nn.Conv2d(3, 3, 5, padding=2)
    with torch.no_grad():
        network.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 5, 5) / 25 - 0.01)
        network.bias.zero_()
    return exported(network, SIDE, folder / "segmenter.pt2")


def embedder(folder: Path) -> Path:
    (folder / "embedder.onnx").write_bytes(onnx_files.classifier(8))
    return folder / "embedder.onnx"


def shapes(_: Path) -> Path:
    return ROOT / "examples" / "models" / "yolo" / "yolo.onnx"


def measured(manifest: Manifest, models: dict[str, Any], precision: str) -> float:
    """What the report calls agreement, by other code: of two models' answers to the pictures that were compared."""
    pictures = samples.read(manifest).comparison
    options = manifest.default_options()
    pairs = [[models[name].predict([each], [options])[0] for name in ("fp32", precision)] for each in pictures]
    if manifest.task == "embed":
        first, second = (np.array([pair[side][0].vector for pair in pairs]) for side in (0, 1))
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        return float(((first * second).sum(1) / lengths).mean())
    assert manifest.task == "segment"
    return float(np.mean([classes_iou(*(side[0].numbers for side in pair)) for pair in pairs]))


def classes_iou(first: np.ndarray, second: np.ndarray) -> float:
    there = [each for each in range(3) if ((first == each) | (second == each)).sum() > first.size / 1000]
    return float(
        np.mean(
            [((first == each) & (second == each)).sum() / ((first == each) | (second == each)).sum() for each in there]
        )
    )


@pytest.mark.parametrize(
    ("task", "make", "labels", "changes"),
    [
        ("segment", segmenter, LABELS, {}),
        ("embed", embedder, None, {}),
        ("detect", shapes, LABELS, {}),
        ("detect", suppressed, LABELS, {}),
        ("instances", with_masks, LABELS, {}),
    ],
)
def test_every_task_has_other_precisions(
    add: Add,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    make: Callable[[Path], Path],
    labels: tuple[str, ...] | None,
    changes: dict[str, Any],
) -> None:
    monkeypatch.setattr(build, "Trials", InThisProcess)
    monkeypatch.setattr(build, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(samples, "LEAST", PICTURES // 2)
    (tmp_path / "samples").mkdir()
    rng = random.Random(7)  # noqa: S311
    for number in range(PICTURES):
        draw(rng, 3)[0].save(tmp_path / "samples" / f"{number:03}.png")

    manifest = add(make(tmp_path), task, labels=labels, sample_pictures=tmp_path / "samples", **changes)
    report = build_model(manifest, tmp_path / "state", BuildOptions(rounds=2), progress=lambda line: None)

    rows = {each.precision: each for each in report.candidates}
    assert list(rows) == ["fp32", "bf16", "int8"]
    assert all(each.is_measured for each in rows.values()), rows
    faithful = [each for each in rows.values() if each.is_faithful]
    assert report.chosen is max(faithful, key=lambda each: each.images_per_second)
    for each in rows.values():
        if each is report.chosen:
            assert each.verdict.startswith("chosen on ")
        elif each.is_faithful:
            assert each.verdict == f"slower than {report.chosen.name}"
        else:
            assert "is needed" in each.verdict or "are allowed" in each.verdict
        assert each.is_faithful == (
            each.agreement >= manifest.tolerance.agreement and each.map_loss <= manifest.tolerance.map_loss
        )
    models = {precision: load_model(manifest, Plan(tmp_path / "state", precision=precision)) for precision in rows}
    for model in models.values():
        model.golden_check()
    if not tasks.BY_NAME[task].has_boxes:
        for precision, row in rows.items():
            assert row.agreement == pytest.approx(measured(manifest, models, precision), abs=1e-3)


def scorer(folder: Path) -> Path:
    """Two tables of numbers and one of places in a table, to scores and a best one."""

    class Scorer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Embedding(8, 16)
            self.inner = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

        def forward(self, row: torch.Tensor, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores = self.inner(torch.cat([row, self.places(place)], 1))
            return scores, scores.argmax(1)

    torch.manual_seed(1)
    batch = torch.export.Dim("batch", min=1, max=64)
    examples = torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)
    program = torch.export.export(Scorer().eval(), examples, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, folder / "scorer.pt2")
    return folder / "scorer.pt2"


def kept_variance(first: np.ndarray, second: np.ndarray) -> float:
    return float(1 - ((first - second) ** 2).sum() / ((first - first.mean(0)) ** 2).sum())


def test_arrays_have_other_precisions_where_there_are_sample_arrays(
    add: Add,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "Trials", InThisProcess)
    monkeypatch.setattr(build, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(conversion, "LEAST", PICTURES // 2)
    monkeypatch.setattr(samples, "LEAST", PICTURES // 2)
    rng, given = np.random.default_rng(1), tmp_path / "samples"
    given.mkdir()
    rows, places = rng.normal(size=(PICTURES - 1, 4)), rng.integers(0, 8, PICTURES - 1)
    np.savez(given / "many.npz", row=rows, place=places)
    (given / "one.json").write_text(json.dumps({"row": [1, 2, 3, 4.5], "place": 7}))

    manifest = add(scorer(tmp_path), "tensor", labels=None, sample_pictures=given)
    report = build_model(manifest, tmp_path / "state", BuildOptions(rounds=1), progress=lambda line: None)

    found = {each.precision: each for each in report.candidates}
    assert list(found) == ["fp32", "bf16", "int8"]
    assert all(each.is_measured for each in found.values()), found
    assert (report.images, report.calibration_images) == (PICTURES // 2, PICTURES // 2)
    models = {each: load_model(manifest, Plan(tmp_path / "state", precision=each)) for each in found}
    answers = {}
    for precision, model in models.items():
        model.golden_check()
        items = samples.read(manifest).comparison
        answers[precision] = [json.loads(each) for each in model.predict(items, [{}] * len(items))]
        assert model.computed_by == f"openvino {precision}"
    for precision, each in found.items():
        scores, best = (
            [np.array([list(answer.values())[place] for answer in answers[one]]) for one in ("fp32", precision)]
            for place in (0, 1)
        )
        assert each.agreement == pytest.approx(min(kept_variance(*scores), float((best[0] == best[1]).mean())))
        assert each.is_faithful == (each.agreement >= manifest.tolerance.agreement)
    assert found["int8"].agreement < 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npz", {"row": np.zeros((3, 4))}, "it has row; expected row, place"),
        (
            "a.npz",
            {"row": np.zeros((3, 5)), "place": np.zeros(3, int)},
            "row is float64 [3, 5]; expected [4] of float32",
        ),
        ("a.npz", {"row": np.zeros((3, 4)), "place": np.zeros(2, int)}, "different numbers of items (row 3, place 2)"),
        ("a.npz", {"row": np.zeros((3, 4)), "place": np.zeros(3)}, "place is of float64; expected int64"),
        ("a.npz", {"row": np.full((3, 4), np.nan), "place": np.zeros(3, int)}, "row has NaN"),
        ("a.npz", {"row": np.array([{}] * 4), "place": np.zeros(1, int)}, "Object arrays cannot be loaded"),
        ("a.npy", np.zeros((3, 4)), "a .npy holds one array, and the network takes row, place"),
        ("a.npz", b"no archive", "File is not a zip file"),
        ("a.npy", b"no array", "it is no file of numpy.save"),
        ("a.json", b'{"row": ["x", 2, 3, 4], "place": 1}', "row is no numbers; expected float32"),
        ("a.json", b"{", "Expecting property name"),
    ],
)
def test_sample_arrays_that_do_not_fit_are_refused_by_name(tmp_path: Path, name: str, content: Any, words: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    else:
        np.save(tmp_path / name, content)

    with pytest.raises(ModelLoadError) as refused:
        array_samples.read(
            tmp_path, [array_samples.Input("row", "float32", (4,)), array_samples.Input("place", "int64", ())]
        )

    assert refused.value.message.startswith(f"{tmp_path / name}")
    assert words in refused.value.message
