"""Adding a model: from a file, published, random; what is refused leaves the store as it was."""

from __future__ import annotations

import io
import tomllib
import urllib.error

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from app.cli.model import command
from app.errors import ManifestError, ModelLoadError
from app.inference.results import ClassifyOptions
from app.models import manifests, roles
from app.models.manifests import InputSpec
from app.models.roles import Roles
from app.runtimes import architectures
from app.runtimes.importing import add, published
from app.runtimes.importing.add import NewModel, add_model
from app.runtimes.registry import load_model


@pytest.fixture
def store(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("cat\n\n  dog \nbird\n")
    return path


def trained(classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(5)
    return architectures.find("narrow_resnet10").builder(num_classes=classes).eval()


def no_network(url: str):
    raise urllib.error.URLError("Name or service not known")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 7},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model_ema": state, "model": {}},
    ],
)
def test_pth_of_any_common_form_becomes_a_model(store, labels, tmp_path, wrap):
    network = trained()
    torch.save(wrap(network.state_dict()), tmp_path / "mine.pth")

    manifest = add_model(NewModel("narrow_resnet10", str(tmp_path / "mine.pth"), labels, "mine", "1"), store)

    image = np.random.default_rng(1).integers(0, 255, (128, 128, 3), np.uint8)
    mean, std = (torch.tensor(v) for v in (manifest.input.mean, manifest.input.std))
    normalised = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    expected = torch.softmax(network(normalised), 1)[0].tolist()
    answer = load_model(manifest).predict([image], [ClassifyOptions(top_k=3)])[0]
    assert {p.label: p.score for p in answer} == pytest.approx(
        dict(zip(("cat", "dog", "bird"), expected, strict=True)), abs=1e-5
    )


def test_safetensors_become_a_model_and_the_store_reads_it(store, labels, tmp_path):
    digest = add.weights.write(tmp_path / "mine.safetensors", trained().state_dict())

    manifest = add_model(NewModel("narrow_resnet10", str(tmp_path / "mine.safetensors"), labels, "mine", "2.1"), store)

    assert manifest.sha256 == digest
    assert manifests.read(store / "mine" / "2.1") == manifest
    assert sorted(p.name for p in manifest.directory.iterdir()) == [
        "golden.safetensors",
        "manifest.toml",
        "weights.safetensors",
    ]
    assert [p.name for p in store.iterdir()] == ["mine"]


def test_random_weights_are_marked_and_the_same_each_time(store):
    done = []
    first = add_model(NewModel("narrow_resnet10", "random", None, "noise", "1"), store, advance=lambda: done.append(1))
    second = add_model(NewModel("narrow_resnet10", "random", None, "noise", "2"), store)

    assert len(done) == add.STEPS
    assert first.random_weights
    assert first.sha256 == second.sha256
    assert len(first.labels) == add.RANDOM_CLASSES


def test_published_weights_without_a_network_say_what_to_do(store):
    with pytest.raises(ModelLoadError, match=r"downloaded from .*: Name or service not known") as caught:
        add_model(NewModel("resnet18", "DEFAULT", None, "imagenet", "1"), store, open_url=no_network)

    assert "WEIGHTS=resnet18-" in caught.value.hint
    assert "WEIGHTS=random" in caught.value.hint
    assert not (store / "imagenet").exists()
    assert list(store.iterdir()) == []


def test_published_weights_that_arrive_altered_are_refused(store):
    with pytest.raises(ModelLoadError, match="should begin with"):
        add_model(NewModel("resnet18", "DEFAULT", None, "x", "1"), store, open_url=lambda url: io.BytesIO(b"altered"))


def test_published_weights_bring_labels_and_sizes():
    known = published.describe(architectures.find("mobilenet_v3_small"))

    assert len(known.labels) == 1000
    assert (known.input.kind, known.input.size, known.input.resize_size) == ("crop", 224, 256)


def test_download_is_told_ten_times_at_most(tmp_path):
    said = []
    source = io.BytesIO(bytes(100 << 20))
    source.headers = {"Content-Length": str(100 << 20)}

    published._copy("https://example.test/x", tmp_path / "x", said.append, lambda url: source)

    assert (len(said), said[0], said[-1]) == (10, "downloaded 10 of 105 MB", "downloaded 105 of 105 MB")


def test_published_weights_downloaded_by_hand_need_no_labels(store, tmp_path):
    known = published.describe(architectures.find("squeezenet1_1"))
    network = architectures.find("squeezenet1_1").builder(weights=None)
    torch.save(network.state_dict(), tmp_path / known.file_name)
    spec = InputSpec("crop", size=64, resize_size=64)

    manifest = add_model(
        NewModel("squeezenet1_1", str(tmp_path / known.file_name), None, "s", "1", input_spec=spec), store
    )

    assert manifest.labels == known.labels
    assert not manifest.random_weights


def test_only_https_is_downloaded():
    with pytest.raises(ModelLoadError, match="not an https address"):
        published.open_url("file:///etc/hostname")


def test_own_architectures_have_nothing_published(store):
    with pytest.raises(ModelLoadError, match="LABELS is missing"):
        add_model(NewModel("narrow_fcos", "DEFAULT", None, "x", "1"), store)
    with pytest.raises(ModelLoadError, match="publishes no weights"):
        add_model(NewModel("narrow_fcos", "DEFAULT", ("a",), "x", "1"), store)


def test_existing_version_is_kept_unless_forced(small):
    manifest = small()

    with pytest.raises(ManifestError, match="exists already") as caught:
        small()
    assert "--force" in caught.value.hint
    assert small(force=True, half=True).sha256 != manifest.sha256


def test_pickled_model_is_refused_with_a_way_out(store, labels, tmp_path):
    torch.save(trained(), tmp_path / "whole.pth")

    with pytest.raises(ModelLoadError, match="Python objects besides tensors") as caught:
        add_model(NewModel("narrow_resnet10", str(tmp_path / "whole.pth"), labels, "mine", "1"), store)
    assert "state_dict()" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"PK\x03\x04 not a zip", "cannot be read"),
        (b"hello", "cannot be read"),
    ],
)
def test_files_that_hold_no_weights_are_refused(store, labels, tmp_path, content, message):
    (tmp_path / "bad.pth").write_bytes(content)

    with pytest.raises(ModelLoadError, match=message):
        add_model(NewModel("narrow_resnet10", str(tmp_path / "bad.pth"), labels, "mine", "1"), store)
    assert not (store / "mine").exists()


def test_checkpoint_without_tensors_is_refused(store, labels, tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")

    with pytest.raises(ModelLoadError, match="holds no state_dict"):
        add_model(NewModel("narrow_resnet10", str(tmp_path / "empty.pth"), labels, "mine", "1"), store)


def test_wrong_number_of_labels_is_refused(store, labels, tmp_path):
    torch.save(trained(classes=4).state_dict(), tmp_path / "four.pth")

    with pytest.raises(ModelLoadError, match=r"\[4, 224\], \[3, 224\] is expected"):
        add_model(NewModel("narrow_resnet10", str(tmp_path / "four.pth"), labels, "mine", "1"), store)


def test_missing_file_and_labels_are_refused(store, tmp_path):
    with pytest.raises(ModelLoadError, match="is not a file of weights"):
        add_model(NewModel("narrow_resnet10", str(tmp_path / "none.pth"), ("a",), "mine", "1"), store)
    with pytest.raises(ModelLoadError, match="LABELS is missing"):
        add_model(NewModel("narrow_resnet10", str(tmp_path / "none.pth"), None, "mine", "1"), store)
    with pytest.raises(ModelLoadError, match="cannot be read"):
        add_model(NewModel("narrow_resnet10", "random", tmp_path / "none.txt", "mine", "1"), store)


@pytest.mark.parametrize("name", ["../up", "Upper", "", "a" * 65])
def test_unusable_names_are_refused(store, name):
    with pytest.raises(ManifestError, match="is not usable"):
        add_model(NewModel("narrow_resnet10", "random", None, name, "1"), store)


def test_detectors_that_count_a_background_get_it_as_first_label():
    assert architectures.output_names(architectures.find("ssd300_vgg16"), ("cone",)) == ("__background__", "cone")
    assert architectures.output_names(architectures.find("fcos_resnet50_fpn"), ("cone",)) == ("cone",)


def test_manifest_survives_difficult_text(small):
    manifest = small(description='He said "ä\\\n" \x7f', held_out={"map_50": 0.5, "pictures": 3, "is_quick": True})

    table = tomllib.loads((manifest.directory / "manifest.toml").read_text())

    assert table["description"] == manifest.description == 'He said "ä\\\n" \x7f'
    assert manifest.held_out == {"map_50": 0.5, "pictures": 3, "is_quick": True}


def test_command_adds_and_says_how_to_serve(store, labels):
    arguments = ["--arch", "narrow_resnet10", "--weights", "random", "--labels", str(labels), "--name", "tiny"]
    arguments += ["--store", str(store), "--size", "64", "--resize-size", "72", "--mean", "0.1", "0.2", "0.3"]

    done = CliRunner().invoke(command, ["add", *arguments, "--version", "1", "--top-k", "2"])

    assert (done.exit_code, done.stderr) == (0, "")
    assert "make model-promote MODEL=tiny VERSION=1" in done.stdout
    added = manifests.read(store / "tiny" / "1")
    assert (added.input.size, added.input.mean, added.serve.top_k) == (64, (0.1, 0.2, 0.3), 2)


def test_command_says_how_a_further_version_gets_to_serve(store, labels):
    arguments = ["--arch", "narrow_resnet10", "--weights", "random", "--labels", str(labels), "--name", "tiny"]
    arguments += ["--store", str(store), "--size", "64", "--resize-size", "72"]

    done = [CliRunner().invoke(command, ["add", *arguments, "--version", version]) for version in "12"]

    assert [each.exit_code for each in done] == [0, 0]
    assert "make model-promote MODEL=tiny VERSION=2" in done[1].stdout.splitlines()[-1]


def test_command_refuses_in_two_lines(store):
    arguments = ["--arch", "resnet5O", "--weights", "random", "--name", "x", "--version", "1", "--store", str(store)]

    done = CliRunner().invoke(command, ["add", *arguments])

    assert done.exit_code == 1
    assert done.stderr.startswith("FAIL: The architecture 'resnet5O' is unknown.\nNext: ")


def test_command_says_which_model_answers_by_default(store, labels, monkeypatch, tmp_path):
    monkeypatch.setenv("ENV", "test")
    monkeypatch.setenv("MODELS_DIR", str(store))
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    arguments = ["--arch", "narrow_resnet10", "--weights", "random", "--labels", str(labels), "--version", "1"]
    arguments += ["--size", "64", "--resize-size", "72"]

    first = CliRunner().invoke(command, ["add", *arguments, "--name", "m"])
    roles.write(tmp_path / "state", {"m": Roles("1")})
    second = CliRunner().invoke(command, ["add", *arguments, "--name", "a"])

    assert [first.exit_code, second.exit_code] == [0, 0], second.stderr
    for done in (first, second):
        assert "Requests to classify that name no model are answered by m (MODELS_DEFAULT=<name>" in done.stdout
