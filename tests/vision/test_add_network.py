"""Whole networks from files: what becomes of usual ones, and the sentence that each lie gets."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import openvino
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import cask
from app.cli.model import command
from app.errors import CaskError
from app.inference.results import ClassifyOptions
from app.model_code import kinds
from app.models import manifests
from app.models.builds import LEAST_IMAGES
from app.models.manifests import InputSpec, Manifest
from app.runtimes.build import array_samples
from app.runtimes.build.build import BuildOptions, build_model
from app.runtimes.importing import network_conversion, network_files, network_process, network_tensors
from app.runtimes.importing.add_network import NewNetwork, add_network
from app.runtimes.importing.network_wanted import Converted, Wanted
from app.runtimes.registry import Plan, load_model
from app.tasks.embed import EmbedOptions
from tests import onnx_files

LABELS = ("cat", "dog", "owl")
Add = Callable[..., Manifest]


def in_this_process(wanted: Wanted, folder: Path, *, limit_seconds: float, memory_mb: int) -> Converted:
    """In the place of ``network_process.convert``: it saves a second each time."""
    kind = network_tensors if wanted.task == manifests.TENSOR else network_conversion
    with warnings.catch_warnings():
        # As the process apart does: libraries warn of each other.
        warnings.simplefilter("ignore")
        return kind.convert(Wanted.from_json(wanted.to_json()), folder)


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Add this file for a task, to a store of its own."""
    monkeypatch.setattr(network_process, "convert", in_this_process)

    def added(content: bytes | Path, task: str = "classify", name: str = "network.onnx", **changes) -> Manifest:
        path = content if isinstance(content, Path) else tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        given = {"labels": LABELS, "limit_seconds": 120} | changes
        labels = given.pop("labels")
        return add_network(NewNetwork(path, task, labels, "mine", "1", **given), tmp_path / "models")

    return added


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)


def probabilities(manifest: Manifest, picture: np.ndarray) -> dict[str, float]:
    (answer,) = load_model(manifest).predict([picture], [ClassifyOptions(3)])
    return {each.label: each.score for each in answer}


def expected(
    picture: np.ndarray, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), unit: float = 255
) -> np.ndarray:
    """The planted classifier by torch, from a picture, uint8 [32, 32, C]."""
    channels = picture.shape[2]
    kernel, linear, bias = planted(channels, 3)
    pixels = (picture / unit - np.float32(mean)[:channels]) / np.float32(std)[:channels]
    values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    found = torch.relu(torch.conv2d(values, kernel, stride=2)).mean((2, 3)) @ linear.T + bias
    return torch.softmax(found, 1)[0].numpy()


def planted(channels: int, outputs: int) -> list[torch.Tensor]:
    """The weights of ``onnx_files.classifier``."""
    random = np.random.default_rng(5)
    sizes = (8, channels, 3, 3), (outputs, 8), (outputs,)
    return [torch.from_numpy(random.normal(size=size).astype(np.float32)) for size in sizes]


def check(manifest: Manifest, picture: np.ndarray, shares: np.ndarray, tolerance: float = 1e-5) -> None:
    found = probabilities(manifest, picture)
    assert [found[label] for label in LABELS] == pytest.approx(list(shares), abs=tolerance)


# ── usual files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_onnx_answers_what_torch_computes_of_the_same_weights(add: Add, picture: np.ndarray) -> None:
    manifest = add(onnx_files.classifier())

    assert (manifest.architecture, manifest.weights, manifest.is_network) == ("onnx", "network.xml", True)
    assert manifest.input == InputSpec("crop", size=32, resize_size=37)
    check(manifest, picture, expected(picture))


def test_mean_and_std_of_bytes_blue_first(add: Add, picture: np.ndarray) -> None:
    wanted = {"values": "0-255", "channels": "bgr", "mean": (104.0, 117.0, 123.0), "std": (58.0, 57.0, 56.0)}

    manifest = add(onnx_files.classifier(), wanted=wanted)

    check(manifest, picture, expected(picture[..., ::-1], wanted["mean"], wanted["std"], 1))


@pytest.mark.parametrize(
    ("shape", "kind", "tolerance"),
    [
        (("n", 32, 32, 3), onnx_files.FLOAT, 1e-5),
        ((1, 3, 32, 32), onnx_files.FLOAT, 1e-5),
        (("n", 3, "h", "w"), onnx_files.FLOAT, 1e-5),
        (("n", 3, 32, 32), onnx_files.FLOAT16, 0.01),
    ],
    ids=["height, width, channels", "one picture at a time", "open sides", "fp16"],
)
def test_inputs_that_exporters_write(add: Add, picture: np.ndarray, shape, kind: int, tolerance: float) -> None:
    manifest = add(onnx_files.classifier(shape=shape, kind=kind), wanted={"size": 32})

    check(manifest, picture, expected(picture), tolerance)
    assert len(load_model(manifest).predict([picture] * 3, [ClassifyOptions()] * 3)) == 3


def test_bytes_are_not_normalised(add: Add, picture: np.ndarray) -> None:
    manifest = add(onnx_files.classifier(kind=onnx_files.UINT8))

    check(manifest, picture, expected(picture, (0, 0, 0), (1, 1, 1), 1))


def test_a_grey_network_gets_grey_pictures(add: Add, picture: np.ndarray) -> None:
    manifest = add(onnx_files.classifier(shape=("n", 1, 32, 32)), wanted={"values": "0-1"})

    grey = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    check(manifest, picture, expected(grey, (0, 0, 0), (1, 1, 1)), 0.02)


def test_a_batch_that_is_written_into_the_network_is_noticed(add: Add, picture: np.ndarray) -> None:
    """OpenVINO opens the side of the batch, and the mean over it would mix what callers send."""
    ends = [onnx_files.node("ReduceMean", ["scores"], ["mixed"], axes=[0], keepdims=1)]

    manifest = add(onnx_files.classifier(ends=ends, output="mixed", shape=(1, 3, 32, 32)))

    assert manifest.serve.max_batch_size == 1
    other = 255 - picture
    both = load_model(manifest).predict([picture, other], [ClassifyOptions(3)] * 2)
    assert [each.score for each in both[0]] == pytest.approx(sorted(expected(picture), reverse=True), abs=1e-5)


def test_softmax_is_not_applied_twice(add: Add, picture: np.ndarray) -> None:
    ends = [onnx_files.node("Softmax", ["scores"], ["shares"], axis=1)]

    check(add(onnx_files.classifier(ends=ends, output="shares")), picture, expected(picture))


def test_labels_that_the_exporter_wrote_into_the_file(add: Add) -> None:
    notes = {"names": "{0: 'ant', 1: 'bee', 2: 'fly'}", "task": "classify"}

    assert add(onnx_files.classifier(notes=notes), labels=None).labels == ("ant", "bee", "fly")


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    layers = torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return torch.nn.Sequential(*layers, torch.nn.Linear(8, 3)).eval()


def by_torch(picture: np.ndarray) -> np.ndarray:
    pixels = (picture / 255 - np.float32((0.485, 0.456, 0.406))) / np.float32((0.229, 0.224, 0.225))
    with torch.inference_mode():
        scores = network()(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])
    return torch.softmax(scores, 1)[0].numpy()


def test_programs_of_torch_export_and_torchscript(add: Add, picture: np.ndarray, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    example = torch.zeros(2, 3, 32, 32)
    torch.export.save(torch.export.export(network(), (example,), dynamic_shapes=({0: batch},)), tmp_path / "a.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(network(), example).save(tmp_path / "a.pt")

    for name, wanted in (("a.pt2", {}), ("a.pt", {"size": 32})):
        check(add(tmp_path / name, wanted=wanted), picture, by_torch(picture))
        (tmp_path / "models" / "mine" / "1").rename(tmp_path / name.replace(".", "-"))


def test_a_program_that_takes_its_picture_by_name(add: Add, picture: np.ndarray, tmp_path: Path) -> None:
    """As Hugging Face's networks are exported: pixel_values is no positional input, and the answer is a table."""

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.inner(pixel_values)}

    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = {"pixel_values": {0: batch}}
    example = {"pixel_values": torch.zeros(2, 3, 32, 32)}
    torch.export.save(torch.export.export(Named().eval(), (), example, dynamic_shapes=shapes), tmp_path / "a.pt2")

    check(add(tmp_path / "a.pt2"), picture, by_torch(picture))


def test_torchscript_of_fp16_is_served_as_fp32(add: Add, picture: np.ndarray, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(network().half(), torch.zeros(1, 3, 32, 32).half()).save(tmp_path / "a.pt")

    check(add(tmp_path / "a.pt", wanted={"size": 32}), picture, by_torch(picture), 1e-3)


def test_openvinos_own_files_and_the_command(picture: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(onnx_files.classifier())
    openvino.save_model(openvino.Core().read_model(tmp_path / "a.onnx"), tmp_path / "a.xml", compress_to_fp16=False)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    arguments = ["add", "--file", "a.xml", "--task", "classify", "--labels", "labels.txt", "--name", "mine"]
    arguments = [str(tmp_path / each) if each in ("a.xml", "labels.txt") else each for each in arguments]

    ran = CliRunner().invoke(command, [*arguments, "--version", "1", "--store", str(tmp_path / "models")])

    assert ran.exit_code == 0, ran.output
    assert "1 picture compared with OpenVINO fp32, reading the file itself: the largest difference is" in ran.output
    check(manifests.read(tmp_path / "models" / "mine" / "1"), picture, expected(picture))


@pytest.mark.parametrize("is_normalised", [True, False])
def test_a_vector_for_each_picture(add: Add, picture: np.ndarray, is_normalised: bool) -> None:
    manifest = add(onnx_files.classifier(8), "embed", labels=None, wanted={"options": {"normalised": is_normalised}})
    model = load_model(manifest)

    (whole,), (short,) = model.predict([picture] * 2, [EmbedOptions(), EmbedOptions(4)])

    kernel, linear, bias = planted(3, 8)
    pixels = (picture / 255 - np.float32((0.485, 0.456, 0.406))) / np.float32((0.229, 0.224, 0.225))
    values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    vector = (torch.relu(torch.conv2d(values, kernel, stride=2)).mean((2, 3)) @ linear.T + bias)[0].numpy()
    length = np.linalg.norm(vector) if is_normalised else 1
    assert whole.vector == pytest.approx(list(vector / length), abs=1e-5)
    assert np.linalg.norm(short.vector) == pytest.approx(1 if is_normalised else np.linalg.norm(vector[:4]), rel=1e-4)
    assert len(short.vector) == 4
    model.golden_check()


def test_classes_of_pixels_also_from_a_smaller_map(add: Add) -> None:
    """The best class of each pixel is the colour that it has most of."""
    kernel = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [
        onnx_files.node("AveragePool", ["images"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        onnx_files.node("Conv", ["small", "w"], ["scores"], kernel_shape=[1, 1]),
    ]
    content = onnx_files.model(
        nodes,
        {"w": kernel},
        [onnx_files.value("images", ["n", 3, 32, 32])],
        [onnx_files.value("scores", ["n", 3, 16, 16])],
    )
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:16, :, 0] = picture[16:, :16, 1] = picture[16:, 16:, 2] = 200

    manifest = add(content, "segment", wanted={"values": "0-1"})

    ((answer,),) = load_model(manifest).predict([picture], [manifest.default_options()])
    assert manifest.input.kind == "letterbox"
    assert answer.labels == {0: "cat", 1: "dog", 2: "owl"}
    assert (answer.numbers[:15] == 0).all()
    assert (answer.numbers[17:, :15] == 1).all()
    assert (answer.numbers[17:, 17:] == 2).all()


def test_int8_and_bf16_are_built_and_compared_with_openvino_fp32(add: Add, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    (tmp_path / "samples").mkdir()
    for number in range(2 * LEAST_IMAGES):
        pixels = random.integers(0, 256, (1, 1, 3)) + random.integers(-20, 20, (40, 40, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "samples" / f"{number:03}.png")
    manifest = add(onnx_files.classifier(), sample_pictures=tmp_path / "samples")

    report = build_model(manifest, tmp_path, BuildOptions(rounds=1), progress=lambda line: None)

    rows = {each.name: each for each in report.candidates}
    assert list(rows) == ["openvino fp32", "openvino bf16", "openvino int8"]
    assert all(each.is_measured for each in rows.values()), rows
    assert rows["openvino int8"].agreement > 0.9
    for precision in ("fp32", "bf16", "int8"):
        model = load_model(manifest, Plan(tmp_path, precision=precision))
        model.golden_check()
        assert model.computed_by == f"openvino {precision}"


@pytest.mark.parametrize("kind", ["export", "trace"])
@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(3)])
def test_network_that_was_exported_while_it_trained_says_so(
    add: Add, tmp_path: Path, kind: str, layer: torch.nn.Module
) -> None:
    example = torch.rand(2, 3, 32, 32)
    network = torch.nn.Sequential(layer, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "export":
            torch.export.save(torch.export.export(network, (example,)), tmp_path / "a.pt2")
        else:
            torch.jit.save(torch.jit.trace(network, example, check_trace=False), tmp_path / "a.pt")

    with pytest.raises(CaskError, match="was exported in training mode: aten") as raised:
        add(tmp_path / ("a.pt2" if kind == "export" else "a.pt"), wanted={"size": 32})

    assert "Call network.eval()" in raised.value.hint


# ── arrays as they are ───────────────────────────────────────────────────────────────────────────────────────────────


class Item(NamedTuple):
    """What one caller sends."""

    values: list[Any]


def asked(manifest: Manifest, *items: list[Any]) -> list[Any]:
    """The answers of a tensor model, or why an item has none."""
    answers = load_model(manifest).predict([Item(each) for each in items], [{}] * len(items))
    return [json.loads(each) if isinstance(each, bytes) else each.message for each in answers]


@pytest.mark.parametrize("batch", ["n", 1])
def test_arrays_in_and_out_as_they_are(add: Add, batch: int | str) -> None:
    manifest = add(onnx_files.table(batch), "tensor", labels=None)

    found = asked(manifest, [[1, 2, 3, 4]], [[2.0, 0, 0, 0]])

    assert found == [{"scores": [1, 2, 3.5], "best": 2}, {"scores": [2, 0, 0.5], "best": 0}]
    assert list(manifest.signature["inputs"]) == ["features"]
    assert list(manifest.signature["answer"]["properties"]) == ["scores", "best"]
    assert manifest.architecture_options == {"batch": "rows", "dtypes": ["float32"]}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
def test_an_array_is_described_as_for_a_model_with_code(dtype: str) -> None:
    sides = (None, 3)

    found = network_tensors.schema_of(array_samples.Input("a", dtype, sides))

    assert found == kinds.kind_of(Annotated[np.ndarray, cask.Shape(*sides, dtype=dtype)], Path()).schema


def test_a_network_that_mixes_its_items_gets_one_at_a_time(add: Add) -> None:
    nodes = [
        onnx_files.node("ReduceSum", ["a"], ["whole"], keepdims=1),
        onnx_files.node("Add", ["a", "whole"], ["sum"]),
    ]
    content = onnx_files.model(nodes, {}, [onnx_files.value("a", ["n", 2])], [onnx_files.value("sum", ["n", 2])])

    manifest = add(content, "tensor", labels=None)

    assert asked(manifest, [[1, 2]], [[10, 20]]) == [{"sum": [4, 5]}, {"sum": [40, 50]}]
    assert manifest.architecture_options["batch"] == "one"


def test_several_inputs_of_any_length_and_an_array_without_items(add: Add) -> None:
    content = onnx_files.model(
        [onnx_files.node("Add", ["a", "b"], ["sum"]), onnx_files.node("ReduceMax", ["sum"], ["most"], keepdims=0)],
        {},
        [onnx_files.value("a", ["rows", "columns"]), onnx_files.value("b", ["columns"])],
        [onnx_files.value("sum", ["rows", "columns"]), onnx_files.value("most", [])],
    )

    manifest = add(content, "tensor", labels=None)
    found = asked(manifest, [[[1, 2], [3, 4]], [10, 20]], [[[1, 2, 3]], [0, 0, 0]], [[[1, 2]], [0, 0, 0]])

    assert found[:2] == [{"sum": [[11, 22], [13, 24]], "most": 24}, {"sum": [[1, 2, 3]], "most": 3}]
    assert "it does not compute arrays of [1, 2], [3]" in found[2]
    assert manifest.architecture_options["batch"] == "whole"


def test_texts_cannot_be_sent_as_arrays(add: Add) -> None:
    content = onnx_files.model(
        [onnx_files.node("Identity", ["texts"], ["same"])],
        {},
        [onnx_files.value("texts", ["n", 2], onnx_files.STRING)],
        [onnx_files.value("same", ["n", 2], onnx_files.STRING)],
    )

    assert "texts need a model with code" in refusal(add, content, "tensor", labels=None)


def test_a_program_of_torch_with_two_inputs(add: Add, tmp_path: Path) -> None:
    class Both(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a * 2 + b

    batch = torch.export.Dim("batch", min=1, max=64)
    examples = torch.zeros(2, 3), torch.zeros(2, 3)
    program = torch.export.export(Both(), examples, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, tmp_path / "a.pt2")

    manifest = add(tmp_path / "a.pt2", "tensor", labels=None)

    (answer,) = asked(manifest, [[1, 2, 3], [0, 0, 1]])
    assert list(answer.values()) == [[2, 4, 7]]


# ── files that lie ───────────────────────────────────────────────────────────────────────────────────────────────────


def refusal(add: Add, *given, **changes) -> str:
    with pytest.raises(CaskError) as refused:
        add(*given, **changes)
    return f"{refused.value.message} {refused.value.hint}"


def external(location: str) -> bytes:
    """A network whose one weight lies in another file."""
    return onnx_files.model(
        [onnx_files.node("Gemm", ["images", "w"], ["scores"])],
        {},
        [onnx_files.value("images", ["n", 4])],
        [onnx_files.value("scores", ["n", 3])],
        tensors=[onnx_files.external("w", [4, 3], location)],
    )


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("/etc/passwd", "wants weights from '/etc/passwd', which is outside of its folder"),
        ("../weights", "wants weights from '../weights', which is outside of its folder"),
        ("weights", "wants weights from 'weights', which is not beside it"),
        ("short", "short has 4 bytes; network.onnx wants 48 from it"),
        ("link", "link is a link"),
    ],
)
def test_weights_in_another_file(add: Add, tmp_path: Path, location: str, words: str) -> None:
    (tmp_path / "short").write_bytes(b"four")
    (tmp_path / "link").symlink_to("/etc/hostname")

    assert words in refusal(add, external(location))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (onnx_files.classifier()[:-400], "it is cut off, damaged or something else"),
        (b"", "is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x80\x02}q\x00.", "is a pickle, which runs code when it is read"),
        (b"<!DOCTYPE html><html>", "is a web page, no network"),
        (b"hello", "begins with b'hello', as no network does"),
    ],
)
def test_content_that_is_none(add: Add, content: bytes, words: str) -> None:
    assert words in refusal(add, content, name="network.onnx" if content[:1] == b"\x08" else "network")
    if content != b"hello":
        # Whatever its name says.
        assert words in refusal(add, content, name="network.onnx")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": 5}, "network.onnx scores 5 labels, LABELS has 3"),
        ({"shape": ("n", 4, 32, 32)}, "4 channels"),
        ({"shape": (4, 3, 32, 32)}, "4 pictures at once, no less. Export it with a batch of 1"),
        ({"shape": ("n", 3, 24, 32)}, "32 × 24 pixels"),
    ],
)
def test_a_network_for_something_else(add: Add, changes, words: str) -> None:
    assert words in refusal(add, onnx_files.classifier(**changes))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"size": 64}, "32 pixels, not 64"),
        ({"output": "logits"}, "has no output 'logits'. There are: scores f32 [n, 3]"),
        ({"mean": (123.7, 116.3, 103.5)}, "are not of [0, 1]. For values from 0 to 255: --values 0-255"),
        ({"input_kind": "fit"}, "letterbox keeps the whole picture"),
    ],
)
def test_options_that_do_not_fit(add: Add, wanted, words: str) -> None:
    assert words in refusal(add, onnx_files.classifier(), wanted=wanted)


def test_labels_that_nobody_gives(add: Add) -> None:
    assert "does not name its 3 labels" in refusal(add, onnx_files.classifier(), labels=None)


def test_operators_that_openvino_lacks(add: Add) -> None:
    content = onnx_files.model(
        [onnx_files.node("Magic", ["images"], ["scores"], domain="acme")],
        {},
        [onnx_files.value("images", ["n", 3, 32, 32])],
        [onnx_files.value("scores", ["n", 3])],
        domain="acme",
    )

    assert "has operators that OpenVINO lacks: acme.Magic (its opset is 17)" in refusal(add, content)


def test_an_operator_that_does_not_fit_its_input_is_no_damaged_download(add: Add) -> None:
    found = refusal(add, onnx_files.classifier(shape=(3, 32, 32)))

    assert "has operators that do not fit their inputs: Conv" in found
    assert "A picture is an input [n, 3, height, width]" in found


@pytest.mark.parametrize("version", [7, 12])
def test_another_version_of_openvinos_files(add: Add, version: int) -> None:
    found = refusal(add, f'<?xml version="1.0"?>\n<net name="a" version="{version}"></net>'.encode(), name="a.xml")

    assert f"is OpenVINO IR version {version}; 10 and 11 are read" in found


def test_two_inputs(add: Add) -> None:
    content = onnx_files.model(
        [onnx_files.node("Add", ["a", "b"], ["sum"])],
        {},
        [onnx_files.value("a", ["n", 3]), onnx_files.value("b", ["n", 3])],
        [onnx_files.value("sum", ["n", 3])],
    )

    assert "takes 2 inputs: a f32 [n, 3], b f32 [n, 3]" in refusal(add, content)


def test_an_archive_that_unpacks_to_much_more(add: Add) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 4_000_000)

    assert "would unpack to 4000000" in refusal(add, buffer.getvalue(), name="network.pt2")


def test_a_program_of_another_torch(add: Add, tmp_path: Path) -> None:
    torch.export.save(torch.export.export(network(), (torch.zeros(2, 3, 32, 32),)), tmp_path / "a.pt2")
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive, zipfile.ZipFile(tmp_path / "b.pt2", "w") as other:
        for name in archive.namelist():
            changed = archive.read(name)
            if name.endswith("models/model.json"):
                changed = changed.replace(b'"schema_version":', b'"schema_version": {"major": 99, "minor": 0}, "x":', 1)
            other.writestr(name, changed)

    words = refusal(add, tmp_path / "b.pt2")

    assert f"cannot be read by torch {torch.__version__}" in words
    assert "Save it with the torch of this machine" in words


def test_a_link_and_a_fifo_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").symlink_to("b.onnx")
    os.mkfifo(tmp_path / "c.onnx")

    for name, words in (("a.onnx", "is a link to b.onnx"), ("c.onnx", "a FIFO"), ("d.onnx", "does not exist")):
        with pytest.raises(CaskError, match=words):
            network_files.look(tmp_path / name)


def test_a_conversion_has_an_end_and_a_size(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(onnx_files.classifier())
    given = tmp_path / "a.onnx", "classify", LABELS, "mine", "1"

    for limits, words in (({"limit_seconds": 0.01}, "within 0.01 s"), ({"memory_mb": 50}, "--memory-mb")):
        with pytest.raises(CaskError) as refused:
            add_network(NewNetwork(*given, **limits), tmp_path / "models")
        assert words in f"{refused.value.message} {refused.value.hint}"
    assert not list((tmp_path / "models").glob("*"))


def test_a_changed_byte_keeps_it_from_loading(add: Add) -> None:
    manifest = add(onnx_files.classifier())
    path = manifest.directory / "network.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)

    with pytest.raises(CaskError, match=r"network\.xml and its \.bin have SHA-256"):
        load_model(manifest)
