"""Stand-ins with the interfaces of the real things, a model store to read, and pictures to send. For every test."""

from __future__ import annotations

import functools
import io
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask
from PIL import Image

from app import config, tasks
from app.config import SecretStr
from app.engine.batcher import Limits
from app.engine.client import CallAnswer, EngineAnswer, EngineClient
from app.engine.server import Server
from app.engine.worker import Workers
from app.errors import CaskError
from app.factory import create_app
from app.inference.mask_patches import Patch
from app.inference.results import (
    Answer,
    Box,
    ClassifyOptions,
    Detection,
    ExplainOptions,
    Explanation,
    Options,
    Prediction,
)
from app.models import manifests
from app.models.manifests import Manifest
from app.tasks.embed import Embedding, EmbedOptions
from app.tasks.instances import FoundInstance
from app.tasks.segment import ClassMap, SegmentOptions

# Longer than any of these tests should wait for anything; a test that waits so long has failed.
PATIENCE_SECONDS = 60.0
_AGES = itertools.count(1000)

INPUTS: dict[str, dict[str, Any]] = {
    **{name: {"kind": "letterbox", "size": 32} for name in tasks.NAMES},
    "classify": {"kind": "crop", "size": 8, "resize_size": 8},
    "segment": {"kind": "fit", "min_size": 32, "max_size": 64},
    "embed": {"kind": "crop", "size": 8, "resize_size": 8},
}


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class FakeClock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def eventually(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Return as soon as it holds; for what other threads do without telling us. Raises AssertionError."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError(f"waited {PATIENCE_SECONDS:g} s for {what}")


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_model(models_dir: Path, name: str = "demo", version: str = "1", task: str = "classify", **keys: Any) -> Path:
    """Write a manifest; ``keys`` replace or add, None leaves out. Returns the folder <models_dir>/<name>/<version>."""
    table: dict[str, Any] = {
        "name": name,
        "version": version,
        "task": task,
        "architecture": "fake",
        "weights": "model.safetensors",
        "sha256": "0" * 64,
        "labels": ["cone", "helmet", "person"],
        "input": INPUTS.get(task, {}),
        **keys,
    }
    folder = models_dir / name / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifests.FILE_NAME).write_text(_toml({key: value for key, value in table.items() if value is not None}))
    return folder


def make_manifest(models_dir: Path, name: str = "demo", version: str = "1", **keys: Any) -> Manifest:
    """A manifest that was written and read again."""
    return manifests.read(write_model(models_dir, name, version, **keys))


def _toml(table: dict[str, Any]) -> str:
    # Texts, numbers, truths and lists look alike in TOML and JSON.
    flat = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            flat += [f"[{key}]", *(f"{json.dumps(name)} = {json.dumps(each)}" for name, each in value.items())]
    return "\n".join(flat) + "\n"


class FakeModel:
    """Names each image by the colour of its first pixel, so that a mix-up shows. Can be held, and can fail."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.computed_by = "fake fp32"
        self.device, self.processor, self.best_batch_size = "cpu", "", 0
        self.batches: list[int] = []
        self.seen: list[str] = []
        self.kinds: list[set[type]] = []
        self.entered = threading.Semaphore(0)  # released each time that predict begins
        self.gate = threading.Event()  # predict waits for it
        self.gate.set()
        self.warm_up_error: Exception | None = None
        self.golden_error: CaskError | None = None
        self.prove_error: CaskError | None = None
        self.predict_error: Exception | None = None
        self.answer: Callable[[np.ndarray, Options], Answer] = self._answer

    def warm_up(self) -> None:
        if self.warm_up_error:
            raise self.warm_up_error

    def golden_check(self) -> None:
        if self.golden_error:
            raise self.golden_error

    def prove(self, say: Callable[[str], None]) -> None:
        if self.prove_error:
            raise self.prove_error

    def predict(self, images: Sequence[np.ndarray], options: Sequence[Options]) -> list[Answer]:
        self.batches.append(len(images))
        self.seen += [name_of(image) for image in images]
        self.kinds.append({type(requested) for requested in options})
        self.entered.release()
        assert self.gate.wait(PATIENCE_SECONDS), "nobody opened the gate"
        if self.predict_error:
            raise self.predict_error
        return [self.answer(image, requested) for image, requested in zip(images, options, strict=True)]

    def wait_until_busy(self) -> None:
        """Return when a batch has arrived in predict."""
        assert self.entered.acquire(timeout=PATIENCE_SECONDS), "no batch came"

    def _answer(self, image: np.ndarray, requested: Options) -> Answer:
        if isinstance(requested, ExplainOptions):
            return [Explanation(requested.label or name_of(image), 0.5, "cam", [[0.0, 1.0], [0.25, 0.5]])]
        if isinstance(requested, ClassifyOptions):
            return [Prediction(name_of(image), 1.0)]
        if isinstance(requested, SegmentOptions):
            return [ClassMap(np.zeros(image.shape[:2], np.uint8), {0: self.manifest.labels[0]})]
        if isinstance(requested, EmbedOptions):
            return [Embedding([float(image[0, 0, 2]), 1.0, 0.0])]
        task = tasks.BY_NAME[self.manifest.task]
        if not task.has_boxes:
            # Any other task answers as its description says.
            return task.answer_of(task.example["results"][0])
        height, width = image.shape[:2]
        whole = Detection(name_of(image), 1.0, Box(0.0, 0.0, float(width), float(height)))
        found = [whole] if requested.label in ("", whole.label) else []
        if self.manifest.task != "instances":
            return found
        patch = Patch(np.full((2, 2), 255, np.uint8), whole.box, whole.box)
        return [FoundInstance(row.label, row.score, row.box, patch) for row in found]


def pixels(number: int, height: int = 4, width: int = 4) -> np.ndarray:
    """An image whose first pixel says its number."""
    image = np.zeros((height, width, 3), np.uint8)
    image[0, 0] = number >> 16 & 255, number >> 8 & 255, number & 255
    return image


def name_of(image: np.ndarray) -> str:
    """The number of an image that ``pixels`` made."""
    red, green, blue = (int(value) for value in image[0, 0])
    return str(red << 16 | green << 8 | blue)


# ── engine ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Asked:
    """What somebody asked of the FakeEngine."""

    manifest: Manifest
    images: list[np.ndarray]
    options: list[Options]
    deadline: float


@dataclass
class FakeEngine:
    """The door to an engine that is always there and always right, unless ``error`` is set."""

    manifests: list[Manifest] = field(default_factory=list)
    error: CaskError | None = None
    states: dict[str, str] = field(default_factory=dict)
    oldest_batch_seconds: float = 0.0
    pid: int | None = field(default_factory=os.getpid)
    asked: list[Asked] = field(default_factory=list)
    status_count: int = 0
    form: str = ""
    shadowed: list[tuple[Manifest, np.ndarray, Options, dict[str, Any]]] = field(default_factory=list)

    def predict(
        self,
        manifest: Manifest,
        images: Sequence[np.ndarray],
        options: Sequence[Options],
        deadline: float,
        sizes: Sequence[tuple[int, int]] = (),
    ) -> list[EngineAnswer]:
        self.asked.append(Asked(manifest, list(images), list(options), deadline))
        if self.error:
            raise self.error
        model = FakeModel(manifest)
        return [EngineAnswer(each, 1.0, 2.0, len(images), self.form) for each in model.predict(images, options)]

    def call(
        self,
        manifest: Manifest,
        items: Sequence[tuple[Sequence[Any], bytes | memoryview]],
        options: dict[str, Any],
        deadline: float,
    ) -> list[CallAnswer]:
        if self.error:
            raise self.error
        told = [{"values": values, "bytes": len(data), **options} for values, data in items]
        return [CallAnswer(json.dumps(each).encode(), 1.0, 2.0, len(items)) for each in told]

    def status(self) -> dict[str, Any]:
        self.status_count += 1
        if self.error:
            raise self.error
        return {
            "pid": self.pid,
            "models": [self._row(each) for each in self.manifests],
            "oldest_batch_seconds": self.oldest_batch_seconds,
        }

    def shadow(self, manifest: Manifest, image: np.ndarray, options: Options, about: dict[str, Any]) -> None:
        self.shadowed.append((manifest, image, options, about))

    def peer_pid(self) -> int | None:
        return self.pid

    def _row(self, manifest: Manifest) -> dict[str, Any]:
        state = self.states.get(manifest.key, "ready")
        error = "its weights are missing" if state == "failed" else ""
        known = {"name": manifest.name, "version": manifest.version, "digest": manifest.digest}
        return {**known, "state": state, "warm": state == "ready", "error": error, "load_seconds": 0.1}


@dataclass
class RunningEngine:
    """A real server with FakeModels on a real socket, and a client of it."""

    server: Server
    workers: Workers
    client: EngineClient
    models: dict[str, FakeModel]

    @property
    def model(self) -> FakeModel:
        return next(iter(self.models.values()))


@contextmanager
def running_engine(
    socket_path: Path,
    chosen: Sequence[Manifest],
    *,
    threads: int = 1,
    max_queue_size: int = 64,
    limits: Limits | None = None,
) -> Iterator[RunningEngine]:
    """Serve FakeModels until the block ends."""
    models = {each.key: FakeModel(each) for each in chosen}
    workers = Workers(
        chosen,
        lambda manifest: models[manifest.key],
        threads=threads,
        max_queue_size=max_queue_size,
        limits=lambda _: limits or Limits(),
    )
    server, client = Server(socket_path, workers), EngineClient(socket_path)
    server.start()
    try:
        eventually(lambda: all(slot.state != "loading" for slot in workers.slots.values()), "the models to load")
        yield RunningEngine(server, workers, client, models)
    finally:
        for model in models.values():
            model.gate.set()
        client.close()
        server.stop(PATIENCE_SECONDS)


# ── the app ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_settings(state_dir: Path, models_dir: Path, **changes: Any) -> config.Settings:
    """The settings of ENV=test, with a state folder and a model store of one's own."""
    changes = {"state_dir": state_dir, "models_dir": models_dir, "secret_key": SecretStr("for tests only"), **changes}
    changes.setdefault("plugins_dir", state_dir / "no-plugins")
    changes.setdefault("engine_socket", state_dir / "run" / "engine.sock")
    return _described().model_copy(update=changes)


@functools.cache
def _described() -> config.Settings:
    """Read once for all tests: that takes as long as half an app does."""
    return config.describe("test")


@contextmanager
def logging_kept() -> Iterator[None]:
    """Afterwards, logging is as it was; ``create_app`` sets up that of its process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)


def make_app(folder: Path, engine: FakeEngine | None = None, **changes: Any) -> Flask:
    """The real app with a classifier and a detector, and a FakeEngine that holds both."""
    models_dir, state_dir = folder / "models", folder / "state"
    state_dir.mkdir(exist_ok=True)
    if not models_dir.exists():
        write_model(models_dir, "classifier", task="classify")
        write_model(models_dir, "detector", task="detect")
    engine = engine or FakeEngine()
    app = create_app(make_settings(state_dir, models_dir, **changes), engine)
    engine.manifests = app.extensions["predictor"].manifests
    return app


def settle_jobs(app: Flask) -> None:
    """As if the last change of a job were long ago, never the same number of seconds."""
    journal = app.extensions["jobs"].folder / "jobs.sqlite3-wal"
    moment = time.time() - next(_AGES)
    os.utime(journal, (moment, moment))


def picture(
    width: int = 64, height: int = 48, kind: str = "JPEG", colour: Any = (200, 30, 30), mode: str = "RGB"
) -> bytes:
    """An encoded picture of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height), colour).save(buffer, kind)
    return buffer.getvalue()
