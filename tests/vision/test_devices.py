"""Processor or GPU: found without torch, refused with a reason, and the same answers. What needs a GPU is skipped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.config import ROOT
from app.engine import service
from app.errors import GpuOutOfMemoryError, ModelLoadError
from app.host import machine
from app.inference.results import ClassifyOptions
from app.models import builds, manifests
from app.models.builds import Candidate
from app.models.manifests import Manifest
from app.runtimes import devices, streams, torch_runtime
from app.runtimes.build import build, conversion, samples
from app.runtimes.build.build import BuildOptions
from app.runtimes.classifier import Classifier
from app.runtimes.device_memory import BoundedModel
from app.runtimes.model import Images
from app.runtimes.registry import Plan, load_candidate, load_model
from tests import fakes

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason=f"needs a GPU; torch {torch.__version__} finds none here"
)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said where there is no GPU")


@pytest.fixture(params=["site-safety-classifier", "site-safety-detector"])
def manifest(request: pytest.FixtureRequest) -> Manifest:
    return manifests.find(ROOT / "models", (request.param,))[0]


def find(name: str) -> Manifest:
    return manifests.find(ROOT / "models", (name,))[0]


# ── found, or refused with a reason ──────────────────────────────────────────────────────────────────────────────────


def test_the_processor_is_found_without_torch() -> None:
    code = (
        "import sys; from app.host import machine; machine.has_gpu = lambda: False;"
        "from app.runtimes import devices; from app.engine import service; from app import config;"
        "settings = config.load({'ENV': 'test', 'DEVICE': 'auto'});"
        "print(devices.resolve('auto'), devices.resolve('cpu'), devices.out_of_memory('cpu'),"
        " service._processor(settings) == devices.processor('cpu'), 'torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.stdout.split() == ["cpu", "cpu", "()", "True", "False"], done.stderr


@without_gpu
@pytest.mark.parametrize("requested", ["cuda", "cuda:1"])
def test_a_wished_gpu_that_cannot_be_used_is_refused(requested: str) -> None:
    with pytest.raises(
        ModelLoadError, match=f"DEVICE is {requested}, and torch cannot use it: torch .+; expected"
    ) as caught:
        devices.resolve(requested)

    assert "DEVICE=cpu" in caught.value.hint


@without_gpu
def test_auto_takes_the_processor_and_says_so_where_a_visible_gpu_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "has_gpu", lambda: True)

    assert devices.resolve("auto") == "cpu"
    assert "a GPU is visible but torch cannot use it: torch" in caplog.text


@without_gpu
def test_an_engine_with_a_wish_for_a_gpu_serves_nothing_on_the_processor(tmp_path: Path) -> None:
    manifest = fakes.make_manifest(tmp_path / "models")
    settings = fakes.make_settings(tmp_path / "state", tmp_path / "models", device="cuda")
    workers = service.build(settings)._workers

    workers.start()
    fakes.eventually(workers.is_started.is_set, "the models to load")
    workers.drain(0)

    slot = workers.slots[manifest.key]
    assert slot.state == "failed"
    assert slot.error.startswith("DEVICE is cuda, and torch cannot use it:")


def test_a_wish_that_was_not_built_names_the_device(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="PRECISION=fp16, DEVICE=cpu"):
        load_model(find("site-safety-classifier"), Plan(tmp_path, precision="fp16"))


# ── a build for a GPU ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_computes_on_the_processor_is_left_out_for_a_gpu(manifest: Manifest) -> None:
    known = samples.read(manifest)
    why = {
        each.name: conversion.obstacle(each, manifest, known, is_dense=True, has_file=False, device="cuda:0")
        for each in build.GPU_CANDIDATES
    }

    assert [name for name, words in why.items() if not words] == [
        "torch fp32",
        *(f"torch-channels-last {precision}" for precision in ("fp32", "fp16", "bf16")),
        *(f"torch-fused {precision}" for precision in ("fp32", "fp16", "bf16")),
        *(f"torch-graphs {precision}" for precision in ("fp32", "fp16", "bf16") if manifest.task == "classify"),
    ]
    if manifest.task == "detect":
        assert why["torch-graphs fp16"] == "it makes its anchors anew for each batch, which cannot be recorded"
    assert why["openvino int8"] == "it computes on the processor, and this build is for cuda:0"


@pytest.mark.parametrize(("device", "most", "sizes"), [("cpu", 8, [1, 4, 8]), ("cuda:0", 64, [8, 16, 32, 64])])
def test_sizes_of_batches_suit_the_device(tmp_path: Path, device: str, most: int, sizes: list[int]) -> None:
    manifest = find("site-safety-classifier")
    one = build._Build(manifest, tmp_path, tmp_path, BuildOptions(device=device), print)
    assert one._batch_sizes() == sizes

    limited = replace(manifest, serve=replace(manifest.serve, max_batch_size=2, max_gpu_batch_size=4))
    assert build._Build(limited, tmp_path, tmp_path, BuildOptions(device=device), print)._batch_sizes() == (
        [1] if device == "cpu" else [4]
    )


def test_a_report_for_a_gpu_does_not_serve_the_processor(tmp_path: Path) -> None:
    manifest = find("site-safety-classifier")
    fast = Candidate("torch-fused", "bf16", images_per_second=9000.0, best_batch_size=64, is_chosen=True)
    name = "A GPU, compute capability 9.0"
    report = builds.Report(manifest.key, manifest.digest, name, builds.versions(), 100, (fast,), device="cuda:0")
    builds.write(builds.folder(tmp_path, manifest), report)

    found = builds.read(tmp_path, manifest, name)

    assert found is not None
    assert found.device == "cuda:0"
    assert builds.standing(tmp_path, manifest, name).state == "current"
    assert builds.standing(tmp_path, manifest).state == "elsewhere"
    assert load_model(manifest, Plan(tmp_path)).computed_by == "torch fp32"


# ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", ["torch-channels-last", "torch-fused"])
def test_fp16_agrees_with_fp32(runtime: str) -> None:
    manifest = find("site-safety-classifier")
    batch = np.stack(samples.read(manifest).comparison[:8])
    reference, half = (
        load_candidate(manifest, Candidate(form, precision), Path(), 1)
        for form, precision in (("torch", "fp32"), (runtime, "fp16"))
    )
    assert isinstance(reference, Classifier)
    assert isinstance(half, Classifier)

    expected, found = reference.probabilities(batch), half.probabilities(batch)

    assert found.dtype == np.float32
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert np.abs(found - expected).max() < 0.01


def test_the_processors_lane_copies_nothing() -> None:
    images = np.zeros((2, 4, 6, 3), np.uint8)
    stream = streams.to("cpu")

    with stream.open():
        sent = stream.send(images)
        (received,) = stream.receive(sent)

    assert tuple(sent.shape) == (2, 3, 4, 6)
    assert np.shares_memory(received, images)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_torchs_own_error_halves_a_batch_and_the_answers_stay_right() -> None:
    manifest = find("site-safety-classifier")
    run = torch_runtime.load(manifest, "cpu")
    tried: list[int] = []

    def with_little_memory(images: Images) -> list[np.ndarray]:
        tried.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(images)

    pictures: Sequence[np.ndarray] = samples.read(manifest).comparison[:10]
    options = [ClassifyOptions(top_k=1)] * len(pictures)
    expected = Classifier(manifest, run).predict(pictures, options)
    bounded = BoundedModel(Classifier(manifest, with_little_memory), devices.out_of_memory("cuda:0"), lambda: None)

    found = bounded.predict(pictures, options)

    assert tried == [10, 5, 3, 2, 3, 2]
    assert not any(isinstance(answer, GpuOutOfMemoryError) for answer in found)
    assert [answer[0].label for answer in found] == [answer[0].label for answer in expected]  # type: ignore[index]


# ── on a GPU ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_gpu
def test_a_gpu_gives_the_processors_answers_from_several_threads(manifest: Manifest) -> None:
    pictures = samples.read(manifest).comparison[:24]
    options = manifest.default_options()
    expected = load_model(manifest).predict(pictures, [options] * len(pictures))
    on_gpu = load_model(manifest, Plan(device="cuda"))
    on_gpu.warm_up()
    on_gpu.golden_check()

    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda i: on_gpu.predict(pictures[i : i + 4], [options] * 4), range(0, 24, 4)))

    assert on_gpu.device == "cuda:0"
    for answer, other in zip([answer for part in parts for answer in part], expected, strict=True):
        assert [row.label for row in answer] == [row.label for row in other]
        assert [row.score for row in answer] == pytest.approx([row.score for row in other], abs=0.01)


@needs_gpu
def test_a_build_for_a_gpu_chooses_a_form_and_the_size_of_its_batches(manifest: Manifest, tmp_path: Path) -> None:
    report = build.build_model(manifest, tmp_path, BuildOptions(device="cuda:0", rounds=2), progress=lambda words: None)

    assert report.processor == devices.processor("cuda:0")
    assert report.chosen.best_batch_size in build.GPU_BATCH_SIZES
    assert load_model(manifest, Plan(tmp_path, device="cuda")).best_batch_size == report.chosen.best_batch_size


@needs_gpu
def test_a_gpu_without_memory_answers_what_fits_and_lives_on() -> None:
    manifest = find("site-safety-classifier")
    model = load_model(manifest, Plan(device="cuda"))
    pictures = samples.read(manifest).comparison[:64]
    expected = [answer[0].label for answer in model.predict(pictures, [ClassifyOptions()] * 64)]
    torch.cuda.empty_cache()
    room = torch.cuda.memory_allocated(0) + 16 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        found = model.predict(pictures, [ClassifyOptions()] * 64)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert isinstance(model, BoundedModel)
    assert model.max_batch_size is not None
    labels = [None if isinstance(answer, GpuOutOfMemoryError) else answer[0].label for answer in found]
    assert all(label in (None, right) for label, right in zip(labels, expected, strict=True))
    assert [answer[0].label for answer in model.predict(pictures, [ClassifyOptions()] * 64)] == expected
