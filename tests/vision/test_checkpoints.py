"""Checkpoints as training scripts leave them: each becomes a model with the same answers, or gets its own sentence."""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from app.errors import ModelLoadError
from app.inference.results import ClassifyOptions
from app.runtimes import architectures
from app.runtimes.importing import checkpoints, weight_files
from app.runtimes.importing.add import NewModel, add_model
from app.runtimes.registry import load_model

LABELS = ("cat", "dog", "bird")

State = dict[str, torch.Tensor]


def trained(classes: int = 3) -> nn.Module:
    torch.manual_seed(5)
    return architectures.find("narrow_resnet10").builder(num_classes=classes).eval()


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


class Module(nn.Module):
    """As Lightning's: the network is an attribute, the criterion and a metric stand beside it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        setattr(self, name, trained())
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(3))
        self.register_buffer("accuracy_total", torch.tensor(7))


class Callback:
    """A class that the reader of the file does not know."""

    def __init__(self) -> None:
        self.best = 0.9


def lightning(name: str) -> Any:
    state = Module(name).state_dict()
    return {"state_dict": state, "epoch": 3, "callbacks": {"best": Callback()}, "hyper_parameters": {"lr": 0.1}}


def averaged() -> Any:
    model = torch.optim.swa_utils.AveragedModel(trained())
    other = under("", {name: torch.zeros_like(value) for name, value in trained().state_dict().items()})
    options = argparse.Namespace(lr=0.1, output=Path("x"))
    return {"model": other, "model_ema": model.state_dict(), "args": options, "epoch": np.float64(3)}


def with_optimizer(state: State) -> Any:
    network = trained()
    optimizer = torch.optim.AdamW(network.parameters())
    sum(p.sum() for p in network.parameters()).backward()
    optimizer.step()
    return {"net": state, "optimizer": optimizer.state_dict(), "best": torch.tensor(0.9)}


# What a training script saved, made from the network's state_dict.
SHAPES: dict[str, Callable[[State], Any]] = {
    "state_dict": lambda state: state,
    "OrderedDict": lambda state: OrderedDict(state),
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.3},
    "with an optimizer": with_optimizer,
    "DDP": lambda state: {"model": under("module.", state)},
    "compiled": lambda state: under("_orig_mod.", state),
    "compiled in DDP": lambda state: under("_orig_mod.module.", state),
    "DDP of compiled": lambda state: {"state_dict": under("module._orig_mod.", state)},
    "model._orig_mod.": lambda state: under("model._orig_mod.", state),
    "model.module.": lambda state: {"checkpoint": {"state_dict": under("model.module.", state)}},
    "parts compiled": lambda state: {
        name.replace("body.", "body._orig_mod.").replace("fc.", "fc._orig_mod."): value for name, value in state.items()
    },
    "FSDP with checkpointing": lambda state: under(
        "_fsdp_wrapped_module.",
        {
            name.replace("body.", "body._fsdp_wrapped_module._checkpoint_wrapped_module."): v
            for name, v in state.items()
        },
    ),
    "in a tuple with the epoch": lambda state: (state, 3),
    "Lightning model.": lambda state: lightning("model"),
    "Lightning net.": lambda state: lightning("net"),
    "Lightning backbone.": lambda state: lightning("backbone"),
    "torchvision's model_ema": lambda state: averaged(),
    "timm's state_dict_ema": lambda state: {
        "state_dict": {name: torch.zeros_like(value) for name, value in state.items()},
        "state_dict_ema": state,
    },
    "bf16": lambda state: {name: v.bfloat16() if v.is_floating_point() else v for name, v in state.items()},
    "fp16": lambda state: {name: v.half() if v.is_floating_point() else v for name, v in state.items()},
    "fp64": lambda state: {name: v.double() if v.is_floating_point() else v for name, v in state.items()},
    "parameters": lambda state: {name: nn.Parameter(v) if v.is_floating_point() else v for name, v in state.items()},
    "a criterion at the top": lambda state: {**state, "criterion.weight": torch.ones(3), "total": torch.tensor(4)},
    "a profiler's counters": lambda state: {**state, "fc.total_ops": torch.zeros(1), "fc.total_params": torch.ones(1)},
    "without counters of BatchNorm": lambda state: {
        name: value for name, value in state.items() if not name.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("wrap", SHAPES.values(), ids=SHAPES)
def test_each_becomes_a_model_with_the_networks_answers(tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    torch.save(wrap(trained().state_dict()), tmp_path / "mine.pth")

    manifest = add_model(
        NewModel("narrow_resnet10", str(tmp_path / "mine.pth"), LABELS, "mine", "1"), tmp_path / "models"
    )

    image = np.random.default_rng(1).integers(0, 255, (128, 128, 3), np.uint8)
    mean, std = (torch.tensor(v) for v in (manifest.input.mean, manifest.input.std))
    normalised = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    expected = torch.softmax(trained()(normalised), 1)[0].tolist()
    answer = load_model(manifest).predict([image], [ClassifyOptions(top_k=3)])[0]
    assert {p.label: p.score for p in answer} == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=0.01)


def test_legacy_file_and_safetensors_of_another_name_are_read(tmp_path: Path) -> None:
    state = trained().state_dict()
    torch.save({"state_dict": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "really_safetensors.pth")

    for name in ("old.pth", "really_safetensors.pth"):
        found = checkpoints.fitting(trained(), weight_files.read(tmp_path / name), name, LABELS)
        assert set(found.tensors) == set(state)


# ── other files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def archive(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as made:
            for name in names:
                made.writestr(name, b"x")

    return write


def cut_off(path: Path) -> None:
    torch.save(trained().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_safetensors(path: Path) -> None:
    safetensors.torch.save_file(trained().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def evil(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            import os

            return os.system, (f"touch {path.parent}/pwned",)

    path.write_bytes(pickle.dumps(Evil()))


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


OTHERS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "Git LFS pointer": ("w.pth", raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "Git LFS pointer"),
    "LFS pointer named safetensors": ("w.safetensors", raw(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "ONNX": ("w.pth", raw(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x90\x01"), "is an ONNX file"),
    "TorchScript": ("w.pth", torchscript, "it is TorchScript"),
    "whole module": ("w.pth", lambda path: torch.save(trained(), path), "Python objects besides tensors"),
    "whole module in a checkpoint": ("w.pt", lambda path: torch.save({"model": trained()}, path), "whole object of"),
    "Keras h5": ("w.h5", raw(b"\x89HDF\r\n\x1a\n" + bytes(64)), "HDF5 file, as Keras"),
    "Keras 3": ("w.pth", archive("config.json", "model.weights.h5"), "a model of Keras"),
    "TorchServe": ("w.pth", archive("MAR-INF/MANIFEST.json", "w.pth"), "archive for TorchServe"),
    "another zip": ("w.pth", archive("a.txt"), "a zip archive of something else (a.txt)"),
    "HTML": ("w.pth", raw(b"\n<!DOCTYPE html><html>404</html>"), "is a web page"),
    "empty": ("w.pth", raw(b""), "is empty (0 bytes)"),
    "cut off": ("w.pth", cut_off, "cut off or damaged"),
    "cut off safetensors": ("w.safetensors", cut_safetensors, "cut off or damaged"),
    "gzip": ("w.pth", raw(b"\x1f\x8b\x08\x00rest"), "is compressed by gzip"),
    "text": ("w.pth", raw(b"hello, world"), "it begins with b'hello, world'"),
    "not safetensors": ("w.safetensors", raw(b"hello, world"), "is named safetensors and is none"),
    "runs code": ("w.pth", evil, "Python objects besides tensors"),
    "no tensors": ("w.pth", lambda path: torch.save({"epoch": 3}, path), "holds no state_dict"),
}


@pytest.mark.parametrize(("name", "write", "words"), OTHERS.values(), ids=OTHERS)
def test_each_other_file_gets_its_own_sentence(
    tmp_path: Path, name: str, write: Callable[[Path], None], words: str
) -> None:
    write(tmp_path / name)

    with pytest.raises(ModelLoadError) as caught:
        add_model(NewModel("narrow_resnet10", str(tmp_path / name), LABELS, "mine", "1"), tmp_path / "models")

    assert words in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "pwned").exists()
    assert list((tmp_path / "models").iterdir()) == []


# ── tensors that do not fit ───────────────────────────────────────────────────────────────────────────────────────────


def refusal(network: nn.Module, tensors: State) -> str:
    with pytest.raises(ModelLoadError) as caught:
        checkpoints.fitting(network, tensors, "w.pth", LABELS)
    return f"{caught.value.message} {caught.value.hint}"


# What copying would silently make other numbers of, or end with a traceback.
NO_WEIGHTS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "int8": (lambda value: value.to(torch.int8), "holds numbers of torch.int8"),
    "fp8": (lambda value: value.to(torch.float8_e4m3fn), "holds numbers of torch.float8_e4m3fn"),
    "complex": (lambda value: value.to(torch.complex64), "holds numbers of torch.complex64"),
    "quantised": (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "holds numbers of torch.qint8"),
    "sparse": (lambda value: value.to_sparse(), "is stored as torch.sparse_coo"),
    "meta": (lambda value: value.to("meta"), "has a shape and no numbers"),
    "NaN": (lambda value: torch.full_like(value, float("nan")), "holds numbers that are NaN or infinite"),
    "one infinity": (
        lambda value: value.clone().fill_diagonal_(float("inf")),
        "holds numbers that are NaN or infinite",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "words"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_numbers_that_are_no_weights_are_refused_by_name(
    make: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    tensors = trained().state_dict()
    tensors["fc.weight"] = make(tensors["fc.weight"])

    with pytest.raises(ModelLoadError, match=f"w.pth does not fit: fc.weight {words}"):
        checkpoints.fitting(trained(), tensors, "w.pth", LABELS)


def test_another_architecture_is_named_with_what_the_file_has() -> None:
    wanted = architectures.find("resnet18").builder(weights=None)
    state = under("module.", architectures.find("resnet34").builder(weights=None).state_dict())

    words = refusal(wanted, dict(state))

    assert "is not part of the architecture" in words
    assert "Nearest to it is ARCH=resnet34: 100% of its tensors" in words


def test_what_is_missing_is_told_with_what_is_there() -> None:
    state = dict(trained().state_dict())
    del state["fc.bias"]

    words = refusal(trained(), state)

    assert "fc.bias is missing (and 0 more of" in words
    assert f"The file has {len(state)} tensors: body.* (" in words


def test_number_of_labels_is_told_in_words() -> None:
    words = refusal(trained(3), dict(trained(4).state_dict()))

    assert "fc.weight is [4, 224], [3, 224] is expected" in words
    assert "The file has 4 outputs there and the list of labels makes 3" in words


def test_grey_network_is_told_how_it_becomes_one_for_rgb() -> None:
    state = dict(trained().state_dict())
    first = "body.stem.0.0.weight"
    state[first] = state[first].sum(1, keepdim=True)

    words = refusal(trained(), state)

    assert "It takes pictures of 1 channel(s); only RGB is supported" in words


def test_vision_transformer_of_another_size_is_told_the_option() -> None:
    build = architectures.find("vit_b_32").builder

    words = refusal(build(weights=None), dict(build(weights=None, image_size=384).state_dict()))

    assert '"image_size": 384' in words


def test_a_network_that_lies_there_twice_is_told() -> None:
    state = dict(trained().state_dict())

    found = checkpoints.fitting(trained(), {**under("student.", state), **under("ema.", state)}, "w.pth", LABELS)

    assert found.notes[0] == "the network lies under 'ema.' in the file"
    assert "also under 'student.'" in found.notes[1]
