"""Each form of model is changed in the running service: promotion, canary, shadow, rollback; no caller of any loses."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch

from app.engine.client import EngineClient
from app.errors import EngineAwayError
from app.model_code import adding
from app.model_code.adding import NewCode
from app.runtimes.importing import network_process
from app.runtimes.importing.add_network import NewNetwork, add_network
from tests import instance_networks, onnx_files, servers, stores
from tests.servers import ROOT, Server
from tests.vision.test_add_network import in_this_process

PATIENCE_SECONDS = 60.0
MAX_REQUESTS = 5000
COLOURS = ("red", "green", "blue")
JPEG, JSON = {"Content-Type": "image/jpeg"}, {"Content-Type": "application/json"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """One kind of model. ``write``: its file in a folder, for a version. ``seen``: of a result, what tells versions."""

    name: str
    task: str
    write: Callable[[Path, str], Path]
    seen: Callable[[Row], Any]
    labels: tuple[str, ...] = COLOURS

    @property
    def address(self) -> str:
        is_asked_by_name = self.task in ("tensor", "code")
        return f"/v1/models/{self.name}/predict" if is_asked_by_name else f"/v1/{self.task}?model={self.name}"

    def add(self, store: Path, version: str) -> None:
        folder = store.parent / f"{self.name}-{version}"
        folder.mkdir()
        path = self.write(folder, version)
        if self.task == "code":
            adding.add(NewCode(path, self.name, version), store)
            return
        # Labels end in the version, so that an answer says whose it is.
        labels = tuple(f"{each}-{version}" for each in self.labels) or None
        add_network(NewNetwork(path, self.task, labels, self.name, version), store)


def classifier(folder: Path, version: str) -> Path:
    (folder / "a.onnx").write_bytes(onnx_files.classifier())
    return folder / "a.onnx"


def detector(folder: Path, version: str) -> Path:
    (folder / "a.onnx").write_bytes(onnx_files.colours())
    return folder / "a.onnx"


def embedder(folder: Path, version: str) -> Path:
    (folder / "a.onnx").write_bytes(onnx_files.classifier(4 + int(version)))
    return folder / "a.onnx"


def table(folder: Path, version: str) -> Path:
    (folder / "a.onnx").write_bytes(onnx_files.table())
    return folder / "a.onnx"


def segmenter(folder: Path, version: str) -> Path:
    """The colour that a pixel has most of, as OpenVINO's own format."""
    content = onnx_files.model(
        [onnx_files.node("Conv", ["images", "w"], ["scores"], kernel_shape=[1, 1])],
        {"w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)},
        [onnx_files.value("images", ["n", 3, 32, 32])],
        [onnx_files.value("scores", ["n", 3, 32, 32])],
    )
    (folder / "a.onnx").write_bytes(content)
    openvino.save_model(openvino.convert_model(folder / "a.onnx"), folder / "a.xml")
    return folder / "a.xml"


def masks(folder: Path, version: str) -> Path:
    instance_networks.save(folder / "a.pt2")
    return folder / "a.pt2"


def traced(folder: Path, version: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        torch.jit.save(torch.jit.trace(pooled, torch.zeros(1, 3, 224, 224)), folder / "a.pt")
    return folder / "a.pt"


def tickets(folder: Path, version: str) -> Path:
    shutil.copytree(ROOT / "examples" / "models" / "tickets", folder / "tickets")
    (folder / "tickets" / "words.txt").write_text(f"queue-{version}: parcel late\n")
    return folder / "tickets"


def ends(rows: str) -> Callable[[Row], Any]:
    """The labels' last letters."""
    return lambda result: {each["label"][-1] for each in result[rows]}


FORMS = (
    Form("onnx-classify", "classify", classifier, ends("predictions")),
    Form("onnx-detect", "detect", detector, ends("detections")),
    Form("onnx-embed", "embed", embedder, lambda result: {str(len(result["embedding"]) - 4)}, ()),
    Form("onnx-tensor", "tensor", table, lambda result: result == {"scores": [1, 2, 3.5], "best": 2}, ()),
    Form("openvino-segment", "segment", segmenter, ends("segments")),
    Form("pt2-instances", "instances", masks, ends("instances")),
    Form("torchscript-classify", "classify", traced, ends("predictions")),
    Form("code", "code", tickets, lambda result: {result[0]["label"][-1]}, ()),
)


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    folder = servers.make_state_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_process, "convert", in_this_process)
        place = stores.make(folder)
        for form, version in itertools.product(FORMS, "12"):
            form.add(place, version)
        for form in FORMS:
            # Not there yet when the service starts.
            (place / form.name).rename(folder / form.name)
        yield place
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    """Loads with every change, since nothing is kept that no role needs; refuses nobody because the machine is busy."""
    settings = {"MODELS_KEEP_PREVIOUS_SECONDS": "0", "REQUEST_MAX_WAIT_SECONDS": "60", "CACHE": "off"}
    with servers.running("test", MODELS_DIR=str(store), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def body() -> bytes:
    """Green with red beside it, as everyone sees."""
    return (ROOT / "models" / "samples" / "cone.jpg").read_bytes()


class Callers:
    """One caller of each form, from its first version until the end."""

    def __init__(self, server: Server, image: bytes) -> None:
        self._server, self._image = server, image
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []
        # Of each answer: the version, or what was wrong.
        self.found: dict[str, list[str]] = {}

    def ask(self, form: Form) -> str:
        if form.task == "tensor":
            answer = self._server.ask(form.address, json.dumps({"features": [1, 2, 3, 4]}).encode(), JSON)
        elif form.task == "code":
            answer = self._server.ask(form.address, json.dumps({"text": "My parcel is late"}).encode(), JSON)
        else:
            answer = self._server.ask(form.address, self._image, JPEG)
        if answer.status != 200:
            return f"{answer.status} {answer.body[:200]!r}"
        version: str = answer.json["model"]["version"]
        seen = form.seen(answer.json["results"][0])
        # What finds nothing in a picture says nothing of its version.
        return version if seen in (True, set(), {version}) else f"{version} answered {seen}"

    def begin(self, form: Form) -> None:
        self.found[form.name] = []
        self._threads.append(threading.Thread(target=self._run, args=(form,)))
        self._threads[-1].start()

    def wait_for(self, form: Form, *versions: str) -> None:
        """Until each of these versions has answered after now."""
        begin = len(self.found[form.name])
        servers.wait_until(
            lambda: set(versions) <= set(self.found[form.name][begin:]), PATIENCE_SECONDS, f"{form.name} {versions}"
        )

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, form: Form) -> None:
        for _ in range(MAX_REQUESTS):
            if self._is_over.is_set():
                return
            self.found[form.name].append(self.ask(form))


@contextmanager
def callers(server: Server, image: bytes) -> Iterator[Callers]:
    made = Callers(server, image)
    try:
        yield made
    finally:
        made.end()


def test_every_form_is_changed_under_the_load_of_all(server: Server, store: Path, body: bytes) -> None:
    client = EngineClient(server.state_dir / "run" / "engine.sock")

    def change(action: str, form: Form, version: str = "", share: float = 0.0) -> None:
        client.change(action, form.name, version, share, say=lambda line: None)

    def compared(form: Form) -> bool:
        try:
            row = client.status()["shadows"].get(form.name, {})
        except EngineAwayError:
            # It had no core for a second.
            return False
        return int(row.get("compared", 0)) > 0 and not row.get("failed", 0)

    with callers(server, body) as load:
        for form in FORMS:
            (store.parent / form.name).rename(store / form.name)
            change("promote", form, "1")
            servers.wait_until(lambda form=form: load.ask(form) == "1", PATIENCE_SECONDS, form.name)
            load.begin(form)
        for form in FORMS:
            change("promote", form, "2")
            load.wait_for(form, "2")
            change("canary", form, "1", 50)
            load.wait_for(form, "1", "2")
            change("canary", form)
            change("shadow", form, "1")
            servers.wait_until(lambda form=form: compared(form), PATIENCE_SECONDS, f"a comparison of {form.name}")
            change("shadow", form)
            change("rollback", form)
            load.wait_for(form, "1")
    client.close()

    print({name: len(rows) for name, rows in load.found.items()})
    assert {name: set(rows) for name, rows in load.found.items()} == {form.name: {"1", "2"} for form in FORMS}
