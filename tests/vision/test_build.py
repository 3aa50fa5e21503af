"""Other runtimes built from a model: faithful, chosen, served without torch, refused when they are not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import nn

from app.config import ROOT
from app.errors import ModelLoadError
from app.models import builds, manifests
from app.models.builds import Candidate, Report
from app.models.manifests import InputSpec, Manifest
from app.runtimes import batchnorm_folding
from app.runtimes.build import build, conversion, samples
from app.runtimes.build.build import BuildOptions
from app.runtimes.build.samples import Samples
from app.runtimes.build.trial import Trial, TrialError
from app.runtimes.registry import Plan, load_model

CLASSIFIER = "site-safety-classifier"
DETECTOR = "site-safety-detector"
BUILT = ("torch-fused bf16", "openvino fp32", "openvino bf16", "openvino int8")


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module", params=[CLASSIFIER, DETECTOR])
def manifest(request: pytest.FixtureRequest) -> Manifest:
    return find(request.param)


@pytest.fixture(scope="module")
def report(manifest: Manifest, state_dir: Path) -> Report:
    return build.build_model(manifest, state_dir, BuildOptions(only=BUILT, rounds=2), progress=lambda words: None)


def find(name: str) -> Manifest:
    return manifests.find(ROOT / "models", (name,))[0]


def pictures(manifest: Manifest, count: int = 12) -> list[np.ndarray]:
    return samples.read(manifest).comparison[:count]


def test_every_candidate_is_measured_and_one_is_chosen(report: Report) -> None:
    assert [each.name for each in report.candidates] == ["torch fp32", *BUILT]
    assert sum(each.is_chosen for each in report.candidates) == 1
    assert all(each.is_measured and each.verdict for each in report.candidates)


def test_what_calibrates_is_not_compared(report: Report, manifest: Manifest) -> None:
    known = samples.read(manifest)

    assert (report.images, report.calibration_images) == (100, 100)
    assert not {each.tobytes() for each in known.calibration} & {each.tobytes() for each in known.comparison}


def test_detectors_are_measured_against_the_true_boxes(report: Report, manifest: Manifest) -> None:
    precisions = [each.map_50 for each in report.candidates]

    if manifest.task == "classify":
        assert precisions == [None] * len(precisions)
    else:
        assert report.truth == "objects"
        assert all(each is not None and each > 0.9 for each in precisions)


def test_fp32_elsewhere_agrees_fully(report: Report) -> None:
    fp32 = next(each for each in report.candidates if each.name == "openvino fp32")

    assert fp32.agreement == 1
    assert fp32.largest_difference < 1e-3


def test_the_chosen_one_is_within_the_tolerance(report: Report, manifest: Manifest) -> None:
    assert report.chosen.agreement >= manifest.tolerance.agreement
    assert report.chosen.map_loss <= manifest.tolerance.map_loss


@pytest.mark.usefixtures("report")
@pytest.mark.parametrize(
    ("runtime", "precision"), [("openvino", "fp32"), ("openvino", "int8"), ("torch", "fp32"), ("torch-fused", "bf16")]
)
def test_a_wished_runtime_serves_and_keeps_its_stored_answers(
    manifest: Manifest, state_dir: Path, runtime: str, precision: str
) -> None:
    model = load_model(manifest, plan=Plan(state_dir, workers=2, runtime=runtime, precision=precision))

    model.warm_up()
    model.golden_check()
    assert model.predict(pictures(manifest, 2), [manifest.default_options()] * 2)


@pytest.mark.usefixtures("report")
def test_answers_do_not_mix_between_threads(manifest: Manifest, state_dir: Path) -> None:
    model = load_model(manifest, plan=Plan(state_dir, workers=2))
    inputs = pictures(manifest)
    options = manifest.default_options()
    alone = [model.predict([picture], [options])[0] for picture in inputs]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda picture: model.predict([picture], [options])[0], inputs * 5))

    for number, answer in enumerate(together):
        expected = alone[number % len(alone)]
        assert [row.label for row in answer] == [row.label for row in expected]
        assert [row.score for row in answer] == pytest.approx([row.score for row in expected], abs=1e-4)


def test_one_flipped_bit_in_a_built_file_is_refused(report: Report, manifest: Manifest, state_dir: Path) -> None:
    int8 = next(each for each in report.candidates if each.precision == "int8")
    path = report.path(int8, manifest).with_suffix(".bin")
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)

    try:
        with pytest.raises(ModelLoadError, match="was altered after it was built"):
            load_model(manifest, plan=Plan(state_dir, precision="int8"))
    finally:
        path.write_bytes(sound)


def test_a_wish_that_was_not_built_is_refused_with_what_there_is(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is: torch fp32"):
        load_model(manifest, plan=Plan(tmp_path, precision="int8"))


@pytest.mark.usefixtures("report")
def test_a_built_model_is_served_without_torch(manifest: Manifest, state_dir: Path) -> None:
    code = f"""
import sys, json
from pathlib import Path
from app.models import manifests
from app.runtimes.registry import Plan, load_model
manifest = manifests.read(Path({str(manifest.directory)!r}))
model = load_model(manifest, plan=Plan(Path({str(state_dir)!r}), runtime="openvino"))
model.warm_up()
model.golden_check()
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "nncf"))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []


# ── candidates that cannot be, crash or hang ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("candidate", "kind", "count", "words"),
    [
        (Candidate("openvino", "fp32"), "fit", 100, "its pictures keep their shape"),
        (Candidate("openvino", "bf16"), "letterbox", 49, "at least 50 samples"),
        (Candidate("torch-fused", "bf16"), "letterbox", 49, "at least 50 samples"),
        (Candidate("openvino", "int8"), "letterbox", 60, "100 samples are needed"),
        (Candidate("torch-fused", "fp32"), "fit", 1, ""),
    ],
)
def test_what_cannot_be_built_says_why(candidate: Candidate, kind: str, count: int, words: str) -> None:
    shaped = replace(find(DETECTOR), input=InputSpec(kind, size=320, min_size=320, max_size=640))  # type: ignore[arg-type]
    given = Samples([], [np.zeros((8, 8, 3), np.uint8)] * count)

    why_not = conversion.obstacle(candidate, shaped, given, is_dense=True, has_file=False)

    assert words in why_not
    assert bool(why_not) is bool(words)


def test_what_a_model_brings_is_built_once(
    small: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a stage of the image's build does it: beside the manifest, few forms, and not again where it is there."""
    manifest = small(input_spec=InputSpec("crop", size=64, resize_size=64))
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    options = ["--into-store", "--missing", "--rounds", "1", "--only", "openvino fp32"]

    assert build.main(options) == 0
    report = builds.read(tmp_path / "state", manifest)
    printed = capsys.readouterr().out
    assert build.main(options) == 0

    assert report is not None
    assert report.folder == manifest.directory / "built"
    assert [each.name for each in report.candidates if each.is_measured] == ["torch fp32", "openvino fp32"]
    assert "timed, round 1 of 1" in printed
    assert capsys.readouterr().out == "small@1 has a report for this machine.\n"
    assert builds.read(tmp_path / "state", manifest) == report


def test_without_a_compiler_machine_code_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    build_options, done = BuildOptions(only=("aotinductor fp32",), rounds=1), []

    report = build.build_model(find(CLASSIFIER), tmp_path, build_options, lambda words: None, lambda: done.append(1))

    # One that is left out is a step too, so that a bar gets to its end.
    assert len(done) == build.steps(build_options) == 3
    assert report.candidates[1].verdict == "left out: there is no C++ compiler (g++) here"
    assert report.chosen.name == "torch fp32"


def test_detectors_that_list_boxes_inside_stay_with_torch() -> None:
    two_stage = replace(find(DETECTOR), architecture="fasterrcnn_resnet50_fpn")
    given = Samples([], [np.zeros((8, 8, 3), np.uint8)] * 100)

    why_not = conversion.obstacle(Candidate("openvino", "fp32"), two_stage, given, is_dense=False, has_file=False)

    assert "lists boxes inside the network" in why_not


def test_a_candidate_that_hangs_is_given_up() -> None:
    trial = Trial(find(CLASSIFIER), limit_seconds=0.001)

    with pytest.raises(TrialError, match=r"longer than 0\.001 s"):
        trial.ask("load", Candidate("torch", "fp32"), path="")
    with pytest.raises(TrialError, match="gone"):
        trial.ask("outcome", Candidate("torch", "fp32"))


def test_a_candidate_that_crashes_says_how() -> None:
    # What glibc does when it finds the heap damaged.
    trial = Trial(find(CLASSIFIER), limit_seconds=30)
    os.kill(trial.pid, signal.SIGABRT)

    with pytest.raises(TrialError, match="SIGABRT"):
        trial.ask("load", Candidate("torch", "fp32"), path="")
    trial.close()


# ── other machines ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("manifest", [CLASSIFIER], indirect=True)
@pytest.mark.usefixtures("report")
def test_a_machine_without_vnni_and_bf16_chooses_for_itself(
    manifest: Manifest, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO's bf16 crashes there: the plug-in asks the processor, the oneDNN in it asks its switch."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert builds.read(state_dir, manifest) is None

    hidden = build.build_model(
        manifest, state_dir, BuildOptions(only=BUILT, is_reusing=True, rounds=2), progress=lambda words: None
    )

    rates = {each.name: each.images_per_second for each in hidden.candidates}
    assert hidden.chosen.precision != "bf16"
    assert hidden.chosen.agreement >= manifest.tolerance.agreement
    assert rates["openvino bf16"] < rates["openvino fp32"]
    assert builds.read(state_dir, manifest) == hidden


@pytest.mark.usefixtures("report")
def test_a_built_file_serves_on_a_machine_where_nothing_was_measured(
    manifest: Manifest, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "processor", lambda: "another")

    model = load_model(manifest, plan=Plan(state_dir))

    model.warm_up()
    model.golden_check()
    assert model.computed_by == "openvino int8"


def test_a_file_that_computes_otherwise_on_another_machine_is_not_served_there(
    report: Report, manifest: Manifest, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stored answers tell: here two pictures have changed places, so that the answers fit no more."""
    monkeypatch.setattr(builds, "processor", lambda: "another")
    int8 = next(each for each in report.candidates if each.name == "openvino int8")
    path = report.golden_path(int8)
    sound = path.read_bytes()
    path.write_bytes(_with_pictures_exchanged(path))

    try:
        assert load_model(manifest, plan=Plan(state_dir)).computed_by == "openvino fp32"
        with pytest.raises(ModelLoadError, match="cannot be computed as requested"):
            load_model(manifest, plan=Plan(state_dir, precision="int8"))
    finally:
        path.write_bytes(sound)


def _with_pictures_exchanged(path: Path) -> bytes:
    with safe_open(path, framework="numpy") as stored:
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - it is no dictionary
        metadata = stored.metadata()
    arrays["picture_0"], arrays["picture_1"] = arrays["picture_1"], arrays["picture_0"]
    return save(arrays, metadata)


# ── forms of torch ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Branches(nn.Module):
    """A convolution that feeds a normalisation and something else, and one that feeds only a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 1)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        y = self.shared(x)
        z: torch.Tensor = self.first(y) + self.second(y)
        return z


def test_only_normalisations_with_a_convolution_of_their_own_are_folded() -> None:
    network = _Branches().eval()
    for norm in (network.norm, network.first, network.second):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    example = torch.rand(2, 3, 8, 8)
    before = network(example)

    assert batchnorm_folding.fold_batch_norm(network, network, example) == 1
    assert torch.allclose(network(example), before, atol=1e-5)


def test_machine_code_made_ahead_serves_any_batch_without_the_compilers_side(
    small: Callable[..., Manifest], tmp_path: Path
) -> None:
    manifest = small(input_spec=InputSpec("crop", size=64, resize_size=64))
    report = build.build_model(manifest, tmp_path, BuildOptions(only=("aotinductor fp32",), rounds=1), progress=print)
    assert report.candidates[1].is_measured, report.candidates[1].verdict

    code = f"""
import sys, json
from pathlib import Path
import numpy as np
from app.models import manifests
from app.runtimes.registry import Plan, load_model
manifest = manifests.read(Path({str(manifest.directory)!r}))
model = load_model(manifest, plan=Plan(Path({str(tmp_path)!r}), runtime="aotinductor"))
model.warm_up()
model.golden_check()
for size in (1, 3):
    model.predict([np.zeros((64, 64, 3), np.uint8)] * size, [manifest.default_options()] * size)
inductor = [name for name in sys.modules if name.startswith(("torch._inductor", "torch._dynamo"))]
print(json.dumps([model.computed_by, inductor]))
"""
    # No compiler can be found either.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": str(tmp_path)}
    )

    assert json.loads(done.stdout) == ["aotinductor fp32", []]
