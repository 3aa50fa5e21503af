"""ARCH=timm:NAME: built and converted where timm is installed, served without; compared with timm's own transform."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from app.cli.model import command
from app.inference import images
from app.inference.results import ClassifyOptions
from app.models import manifests
from app.models.manifests import InputSpec
from app.runtimes import operators  # noqa: F401 - stands for what torchvision lacks, before timm imports it
from app.runtimes.importing import network_process, timm_networks
from app.runtimes.registry import load_model
from app.tasks.embed import EmbedOptions
from tests.servers import ROOT
from tests.vision.conftest import LIMITS
from tests.vision.test_add_network import in_this_process

NAME = "timm:resnet10t.c3_in1k"
LABELS = "cat\ndog\nowl\n"


@pytest.fixture(scope="module")
def timm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The locked timm, installed as the message to people says, for these tests only."""
    folder = str(tmp_path_factory.mktemp("timm"))
    words = [each for each in timm_networks.INSTALL.split() if each.startswith("-")]
    pip = (sys.executable, "-m", "pip", "--retries", "1", "--timeout", "20", "install", "--target", folder, *words)
    done = subprocess.run((*pip, "requirements/timm.txt"), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"timm cannot be installed: {done.stderr[-200:]}")
    sys.path.insert(0, folder)
    yield importlib.import_module("timm")
    sys.path.remove(folder)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(network_process, "convert", in_this_process)
    (tmp_path / "labels.txt").write_text(LABELS)
    return tmp_path


def add(folder: Path, architecture: str, weights: str, *options: str) -> Result:
    arguments = ["add", "--arch", architecture, "--weights", weights, "--name", "mine", "--version", "1"]
    return CliRunner().invoke(command, [*arguments, "--store", str(folder / "models"), *options])


def saved(timm: Any, folder: Path, labels: int = 3) -> Any:
    torch.manual_seed(4)
    network = timm.create_model(NAME.removeprefix("timm:"), num_classes=labels).eval()
    torch.save({"state_dict": network.state_dict()}, folder / "weights.pth")
    return network


def test_its_answers_are_those_of_timms_own_transform(timm: Any, given: Path) -> None:
    network = saved(timm, given)
    # A picture at the scale of the input: nothing is left to the kind of interpolation.
    side, size = 182, 160
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (side, side, 3), np.uint8))
    config = {**timm.data.resolve_model_data_config(network), "input_size": (3, size, size)}
    with torch.inference_mode():
        pixels = timm.data.create_transform(**config, is_training=False)(picture)[None]
        expected = torch.softmax(network(pixels), 1)[0].tolist()

    done = add(given, NAME, str(given / "weights.pth"), "--labels", str(given / "labels.txt"), "--size", "160")

    assert done.exit_code == 0, done.output
    assert "timm scales bicubic for these weights; here pictures are scaled bilinear" in done.output
    manifest = manifests.read(given / "models" / "mine" / "1")
    assert (manifest.architecture, manifest.is_network) == (NAME, True)
    assert manifest.input == InputSpec("crop", size=size, resize_size=side)
    read = images.from_pixels(np.asarray(picture), manifest.input, LIMITS)
    (answer,) = load_model(manifest).predict([read.pixels], [ClassifyOptions(3)])
    found = {each.label: each.score for each in answer}
    assert [found[label] for label in LABELS.split()] == pytest.approx(expected, abs=1e-4)


def test_a_vector_is_what_stands_before_the_labels(timm: Any, given: Path) -> None:
    network = saved(timm, given, 7)

    done = add(given, NAME, str(given / "weights.pth"), "--task", "embed", "--not-normalised", "--size", "64")

    assert done.exit_code == 0, done.output
    manifest = manifests.read(given / "models" / "mine" / "1")
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    ((found,),) = load_model(manifest).predict([picture], [EmbedOptions()])
    pixels = (picture / 255 - np.float32(manifest.input.mean)) / np.float32(manifest.input.std)
    with torch.inference_mode():
        features = network.forward_features(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])
        expected = network.forward_head(features, pre_logits=True)[0].tolist()
    assert found.vector == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("architecture", "words", "hint"),
    [
        ("timm:resnet1o", "cannot build resnet1o: Unknown model", "Near it: "),
        ("timm:resnet18.zzz", "Invalid pretrained tag (zzz) for resnet18", "resnet18.a1_in1k"),
    ],
)
def test_what_timm_refuses_is_said_in_two_lines(timm: Any, given: Path, architecture: str, words: str, hint: str):
    saved(timm, given)

    done = add(given, architecture, str(given / "weights.pth"), "--labels", str(given / "labels.txt"))

    assert done.exit_code == 1
    assert words in done.stderr
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_random_weights_need_no_file(timm: Any, given: Path) -> None:
    done = add(given, NAME, "random", "--labels", str(given / "labels.txt"), "--size", "64")

    assert done.exit_code == 0, done.output
    assert manifests.read(given / "models" / "mine" / "1").random_weights


@pytest.mark.parametrize(
    ("architecture", "options", "words"),
    [
        ("timm:resnet18", (), "is of timm, which is not installed here.\nNext: It is needed to add"),
        ("timm:resnet18", ("--task", "detect"), "whose networks are not for TASK=detect"),
        ("hf-hub:timm/resnet18.a1_in1k", (), "nothing is fetched by name here.\nNext: Download its model.safetensors"),
        ("timm:hf_hub:timm/resnet18.a1_in1k", (), "give ARCH=timm:resnet18.a1_in1k WEIGHTS=model.safetensors"),
        ("raft_large", (), "raft_large is a network of torchvision for something else (optical_flow)"),
        ("torchvision:ResNet50", (), "is unknown.\nNext: Near it: resnet50"),
    ],
)
def test_what_cannot_be_had_here_gets_its_sentence(
    given: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    done = add(given, architecture, "x.pth", "--labels", str(given / "labels.txt"), *options)

    assert done.exit_code == 1
    assert words in done.stderr
