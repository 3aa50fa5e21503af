"""Other runtimes built from a model: faithful, chosen, served without torch, refused when they are not there."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app import manifests
from app.config import ROOT
from app.errors import ModelLoadError
from app.manifests import Manifest
from app.vision import build, built
from app.vision.built import Report
from app.vision.registry import Plan, load_model

CLASSIFIER = "site-safety-classifier"
DETECTOR = "site-safety-detector"


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module", params=[CLASSIFIER, DETECTOR])
def manifest(request: pytest.FixtureRequest) -> Manifest:
    return manifests.find(ROOT / "models", (request.param,))[0]


@pytest.fixture(scope="module")
def report(manifest: Manifest, state_dir: Path) -> Report:
    return build.build_model(manifest, state_dir, progress=lambda text: None)


def pictures(manifest: Manifest, count: int = 12) -> list[np.ndarray]:
    return build._samples(manifest)[:count]


def test_every_candidate_is_measured_and_one_is_chosen(report: Report) -> None:
    names = [each.name for each in report.candidates]

    assert names == ["torch fp32", "openvino fp32", "openvino bf16", "openvino int8"]
    assert sum(each.is_chosen for each in report.candidates) == 1
    assert all(each.images_per_second > 0 and each.verdict for each in report.candidates)
    assert report.images >= 200


def test_fp32_elsewhere_agrees_fully(report: Report) -> None:
    fp32 = next(each for each in report.candidates if each.name == "openvino fp32")

    assert fp32.agreement == 1
    assert fp32.largest_difference < 1e-3


def test_the_chosen_one_is_within_the_tolerance(report: Report, manifest: Manifest) -> None:
    assert report.chosen.agreement >= manifest.tolerance.agreement
    assert report.chosen.map_loss <= manifest.tolerance.map_loss


@pytest.mark.usefixtures("report")
@pytest.mark.parametrize(("runtime", "precision"), [("openvino", "fp32"), ("openvino", "int8"), ("torch", "fp32")])
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


@pytest.mark.usefixtures("report")
def test_one_flipped_bit_in_a_built_file_is_refused(manifest: Manifest, state_dir: Path) -> None:
    path = built.folder(state_dir, manifest) / "int8.bin"
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
from app import manifests
from app.vision.registry import Plan, load_model
manifest = manifests.read(Path({str(manifest.directory)!r}))
model = load_model(manifest, plan=Plan(Path({str(state_dir)!r}), runtime="openvino"))
model.warm_up()
model.golden_check()
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "nncf"))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []
