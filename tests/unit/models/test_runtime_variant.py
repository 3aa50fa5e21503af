"""How the engine tells the web processes in which form it computes each model."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.engine.worker import Workers
from app.models import builds, runtime_variant
from app.models.manifests import Manifest
from app.models.runtime_variant import Forms
from tests import fakes
from tests.fakes import FakeModel, RunningEngine, eventually, pixels


def test_whatever_shapes_an_answer_changes_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        runtime_variant.digest(*each)
        for each in [("a fp32", "cpu", ""), ("a int8", "cpu", ""), ("a fp32", "cuda:0", "T4")]
    }
    monkeypatch.setattr(builds, "versions", lambda: {"openvino": "of tomorrow"})
    found.add(runtime_variant.digest("a fp32", "cpu", ""))
    monkeypatch.setattr(builds, "processor", lambda: "another")
    found.add(runtime_variant.digest("a fp32", "cpu", ""))

    assert len(found) == 5


def test_web_process_follows_what_is_written(tmp_path: Path) -> None:
    known = Forms(tmp_path)

    assert known.of("sha256:a") == ""
    runtime_variant.write(tmp_path, {"sha256:a": "one"})
    assert known.of("sha256:a") == "one"
    runtime_variant.write(tmp_path, {"sha256:a": "two", "sha256:b": "three"})
    assert [known.of("sha256:a"), known.of("sha256:b"), known.of("sha256:c")] == ["two", "three", ""]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["forms.json"]


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_file_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "forms.json").write_text(text)

    assert Forms(tmp_path).of("sha256:a") == ""


def test_engine_tells_of_each_change_and_names_the_form_with_each_answer(tmp_path: Path, manifest: Manifest) -> None:
    told: list[dict[str, str]] = []
    models = iter(("torch fp32", "openvino int8"))

    def load(each: Manifest) -> FakeModel:
        model = FakeModel(each)
        model.computed_by = next(models)
        return model

    workers = Workers(
        [manifest],
        load,
        threads=1,
        max_queue_size=4,
        limits=lambda _: fakes.Limits(),
        form_of=lambda model: f"form of {model.computed_by}",
        announce=told.append,
    )
    server = fakes.Server(tmp_path / "engine.sock", workers)
    client = fakes.EngineClient(tmp_path / "engine.sock")
    server.start()
    try:
        eventually(lambda: bool(told), "the model to load")
        before = client.predict(manifest, [pixels(1)], [manifest.default_options()], time.monotonic() + 60)
        workers.hold(manifest)
        after = client.predict(manifest, [pixels(1)], [manifest.default_options()], time.monotonic() + 60)
    finally:
        client.close()
        server.stop(1)

    assert [before[0].form, after[0].form] == ["form of torch fp32", "form of openvino int8"]
    assert told[0] == {manifest.digest: before[0].form}
    assert told[-1] == {manifest.digest: after[0].form}


def test_engine_that_cannot_write_serves_all_the_same(running: RunningEngine, manifest: Manifest) -> None:
    def full(_: dict[str, str]) -> None:
        raise OSError("no space left on device")

    running.workers._announce = full
    running.workers.hold(manifest)

    assert running.workers.holds(manifest)
