"""Builds in the background: a real child each, whose end, failure and death are seen; what it built is swapped in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.config import ROOT
from app.engine import builder
from app.engine.builder import Builder
from app.errors import ChangeRefusedError, ModelLoadError
from app.models import builds
from app.models.builds import Candidate, Report
from app.models.manifests import Manifest
from tests import fakes
from tests.fakes import eventually

# Writes the report that is ready in the folder of its own argument, as a build does at its end.
WRITE = "import os, sys; print('openvino int8: made'); os.rename(sys.argv[1] + '/made', sys.argv[1] + '/report.json')"
FOR_EVER = "import sys; print('begun', flush=True); sys.stdin.read()"


class Engine:
    """What the builder asks of the engine."""

    def __init__(self, *manifests: Manifest) -> None:
        self.manifests = list(manifests)
        self.reloaded: list[str] = []
        self.refusals: list[Exception] = []

    def held(self) -> Sequence[Manifest]:
        return self.manifests

    def reload(self, manifest: Manifest) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.reloaded.append(manifest.key)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return fakes.make_manifest(tmp_path / "models")


@pytest.fixture
def place(tmp_path: Path, manifest: Manifest) -> Path:
    """The folder of the model's builds, with a report that only needs its name."""
    folder = builds.folder(tmp_path, manifest)
    candidates = (Candidate("torch", "fp32", images_per_second=1.0, is_chosen=True),)
    report = Report(manifest.key, manifest.digest, builds.processor(), builds.versions(), 1, candidates)
    builds.write(folder, report).rename(folder / "made")
    return folder


def make(tmp_path: Path, engine: Engine, code: str, *arguments: object) -> Builder:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return Builder(tmp_path, engine.held, engine.reload, lambda manifest: command)


def test_what_was_built_is_swapped_in(tmp_path: Path, manifest: Manifest, place: Path) -> None:
    engine = Engine(manifest)

    make(tmp_path, engine, WRITE, place).build_missing()

    assert engine.reloaded == [manifest.key]


def test_what_the_build_says_is_logged(
    tmp_path: Path, manifest: Manifest, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        make(tmp_path, Engine(manifest), WRITE, place).build_missing()

    assert f"build of {manifest.key}: openvino int8: made" in caplog.text


def test_a_model_with_a_report_is_left_alone(tmp_path: Path, manifest: Manifest, place: Path) -> None:
    (place / "made").rename(place / builds.REPORT_FILE)
    engine = Engine(manifest)

    make(tmp_path, engine, "raise SystemExit('must not run')").build_missing()

    assert engine.reloaded == []


def test_a_failed_build_is_logged_and_not_tried_again(
    tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    tried = tmp_path / "tried"
    engine = Engine(manifest)
    failing = make(tmp_path, engine, "import sys; open(sys.argv[1], 'a').write('x'); raise SystemExit(3)", tried)

    failing.build_missing()
    failing.build_missing()

    assert tried.read_text() == "x"
    assert engine.reloaded == []
    assert f"building {manifest.key} failed with status 3; the current form keeps serving" in caplog.text


def test_a_version_with_another_digest_is_built_too(tmp_path: Path, manifest: Manifest) -> None:
    tried = tmp_path / "tried"
    engine = Engine(manifest)
    building = make(tmp_path, engine, "import sys; open(sys.argv[1], 'a').write('x')", tried)
    building.build_missing()

    engine.manifests.append(replace(manifest, digest="sha256:other"))
    building.build_missing()

    assert tried.read_text() == "xx"


def test_a_swap_waits_while_an_operator_changes_versions(
    tmp_path: Path, manifest: Manifest, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "PERIOD_SECONDS", 0.0)
    engine = Engine(manifest)
    engine.refusals = [ChangeRefusedError("Another change of versions is under way.")] * 2

    make(tmp_path, engine, WRITE, place).build_missing()

    assert engine.reloaded == [manifest.key]


def test_a_build_that_cannot_be_loaded_leaves_what_serves(
    tmp_path: Path, manifest: Manifest, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(manifest)
    engine.refusals = [ModelLoadError("The file was altered.")]

    make(tmp_path, engine, WRITE, place).build_missing()

    assert engine.reloaded == []
    assert "is not swapped in: The file was altered." in caplog.text


def test_stopping_ends_the_child(tmp_path: Path, manifest: Manifest) -> None:
    engine = Engine(manifest)
    building = make(tmp_path, engine, FOR_EVER)
    building.start()
    eventually(lambda: building._child is not None)
    child = building._child
    assert child is not None

    building.stop()

    eventually(lambda: child.poll() is not None)
    assert engine.reloaded == []


def test_the_real_child_yields_to_all_and_ends_with_its_parent() -> None:
    code = (
        "import os, sys, time; from app.runtimes.build import background; background.begin();"
        "print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE, open('/proc/self/oom_score_adj').read().strip(),"
        " flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline().split() == ["19", "True", "1000"]

        child.stdin.close()

        assert child.wait(fakes.PATIENCE_SECONDS) == 1


def test_the_command_runs_this_python_on_this_model(manifest: Manifest) -> None:
    python, *arguments = builder.command(manifest)

    assert os.access(python, os.X_OK)
    assert arguments[-1] == manifest.key
