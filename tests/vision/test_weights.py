"""Weights that were altered, are missing or do not fit are refused, with the value and what to do."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch

from app.errors import GoldenCheckError, ModelLoadError
from app.runtimes import weights
from app.runtimes.importing import weight_files
from app.runtimes.registry import load_model


def flip_bit(path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 0x10
    path.write_bytes(raw)


def with_new_digest(manifest):
    return replace(manifest, sha256=hashlib.sha256(manifest.weights_path.read_bytes()).hexdigest())


@pytest.mark.parametrize("position", [0, 9, 5000, -1])
def test_one_flipped_bit_is_refused(small, position):
    manifest = small()
    flip_bit(manifest.weights_path, position)

    with pytest.raises(ModelLoadError, match=f"the manifest expects {manifest.sha256}") as caught:
        load_model(manifest)
    assert "Restore it" in caught.value.hint


def test_weights_that_were_cut_off_are_refused(small):
    manifest = small()
    manifest.weights_path.write_bytes(manifest.weights_path.read_bytes()[:-100])

    with pytest.raises(ModelLoadError, match="has SHA-256"):
        load_model(manifest)


def test_missing_weights_are_named(small):
    manifest = small()
    manifest.weights_path.unlink()

    with pytest.raises(ModelLoadError, match=r"weights\.safetensors do not exist"):
        load_model(manifest)


def test_a_file_that_is_no_safetensors_is_refused_even_with_its_digest(small):
    manifest = small()
    torch.save({"w": torch.zeros(2)}, manifest.weights_path)

    with pytest.raises(ModelLoadError, match="is not a safetensors file"):
        load_model(with_new_digest(manifest))


def test_weights_of_another_number_of_labels_are_refused(small):
    manifest = replace(small(), labels=("a", "b"))

    with pytest.raises(ModelLoadError, match=r"fc\.weight is \[3, 224\], \[2, 224\] is expected") as caught:
        load_model(manifest)
    assert "2 labels" in caught.value.hint


def test_weights_of_another_architecture_are_refused(small):
    manifest = replace(small(), architecture="resnet18")

    with pytest.raises(ModelLoadError, match="is missing"):
        load_model(manifest)


def test_unknown_architecture_names_its_neighbours(small):
    with pytest.raises(ModelLoadError, match="'resnet51' is unknown") as caught:
        load_model(replace(small(), architecture="resnet51"))
    assert "resnet50" in caught.value.hint


def test_architecture_of_another_task_is_refused(small):
    with pytest.raises(ModelLoadError, match="is for task 'classify'"):
        load_model(replace(small(), task="detect"))


def test_options_that_the_builder_does_not_know_are_refused(small):
    with pytest.raises(ModelLoadError, match="wings") as caught:
        load_model(replace(small(), architecture_options={"wings": 2}))
    assert "architecture_options" in caught.value.hint


@pytest.mark.parametrize("factor", [1.5, float("nan")])
def test_golden_check_notices_other_weights(small, factor):
    manifest = small()
    tensors = weight_files.read(manifest.weights_path)
    tensors["fc.bias"] = (tensors["fc.bias"] + 1) * torch.tensor([factor, 1, 1])
    weights.write(manifest.weights_path, tensors)

    with pytest.raises(GoldenCheckError, match="does not give its stored answers: a score"):
        load_model(with_new_digest(manifest)).golden_check()


def test_golden_check_notices_another_normalisation(detector):
    other = replace(detector.manifest, input=replace(detector.manifest.input, mean=(0.1, 0.9, 0.1)))

    with pytest.raises(GoldenCheckError, match="does not give its stored answers"):
        load_model(other).golden_check()


def test_golden_check_refuses_a_damaged_file(small):
    manifest = small()
    manifest.golden_path.write_bytes(b"not safetensors")

    with pytest.raises(GoldenCheckError, match="cannot be read"):
        load_model(manifest).golden_check()


def test_without_a_golden_file_nothing_is_compared(small):
    load_model(replace(small(), golden="")).golden_check()


def test_fp16_weights_are_served_as_fp32(small):
    manifest = small(half=True)

    stored = weight_files.read(manifest.weights_path)

    assert stored["fc.weight"].dtype == torch.float16
    load_model(manifest).golden_check()
