"""A first start: the service answers at once, builds beside, and swaps in what was built without losing a request."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.models.manifests import InputSpec
from app.runtimes.build import build
from app.runtimes.build.build import BuildOptions
from app.runtimes.importing.add import NewModel, add_model
from tests import servers
from tests.servers import Server
from tests.versioned import versioned

NAME = "small"
JPEG = {"Content-Type": "image/jpeg"}
BUILD_SECONDS = 300


@pytest.fixture
def server() -> Iterator[Server]:
    """A small model, with no picture to compare: fp32 forms only."""
    state_dir, store = servers.make_state_dir(), servers.make_state_dir()
    add_model(
        NewModel(
            *("narrow_resnet10", "random", ("a", "b", "c"), NAME, "1"),
            input_spec=InputSpec("crop", size=64, resize_size=64),
        ),
        store,
    )
    settings = {"MODELS_DIR": str(store), "MODEL_BUILD": "background"}
    with servers.start("test", servers.free_port(), state_dir, **settings) as running:
        servers.wait_until(running.is_ready, 60, "the eager model")
        yield running
    for folder in (state_dir, store):
        shutil.rmtree(folder, ignore_errors=True)


def build_of(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.ask(f"/v1/models/{NAME}").json
    return found


def builders(pid: int) -> list[int]:
    """All that descend from a process, whichever of its threads started them."""
    children = [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in _read(path).split()]
    return [each for child in children for each in (child, *builders(child))]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        # It ended just now.
        return ""


def test_first_start_serves_at_once_and_swaps_in_what_it_builds(server: Server, sample_path: Path) -> None:
    before = build_of(server)
    statuses: Counter[int] = Counter()
    is_done = threading.Event()

    def ask() -> None:
        while not is_done.is_set():
            statuses[server.ask("/v1/classify", sample_path.read_bytes(), JPEG).status] += 1
            # The build yields to every request: without a pause it would get half of a core at most.
            is_done.wait(0.1)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        servers.wait_until(lambda: build_of(server)["build"]["state"] == "running", 60, "the build to begin")
        servers.wait_until(
            lambda: build_of(server)["computed_by"] != "torch fp32", BUILD_SECONDS, f"a swap; the log: {server.log()}"
        )
    finally:
        is_done.set()
        asking.join()

    after = build_of(server)
    chosen = next(each for each in after["build"]["report"]["candidates"] if each["is_chosen"])
    assert before["computed_by"] == "torch fp32"
    assert before["build"]["report"] is None
    assert after["build"]["state"] == "current"
    assert after["computed_by"] == f"{chosen['runtime']} {chosen['precision']}"
    assert set(statuses) == {200}


def test_a_build_ends_with_the_engine(server: Server) -> None:
    engine = server.engine_pid()
    servers.wait_until(lambda: len(builders(engine)) >= 2, 60, "a build with a candidate on trial")
    pids = builders(engine)

    server.stop()

    servers.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 30, "the build to end")


def test_a_form_built_meanwhile_is_loaded_beside_the_old_one_and_swapped_in(sample_path: Path) -> None:
    requested = BuildOptions(only=("openvino fp32",), rounds=1)
    with versioned() as service:
        before = service.versions()["1"]["computed_by"]
        build.build_model(service.manifests["1"], service.server.state_dir, requested, progress=lambda words: None)

        service.change("reload", "1")

        assert (before, service.versions()["1"]["computed_by"]) == ("torch fp32", "openvino fp32")
        assert service.check(service.classify(sample_path.read_bytes())) == "1"
