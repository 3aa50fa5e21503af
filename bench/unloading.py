"""``python -m bench.unloading``: memory of the service before a model with code is loaded, with it, and after it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.engine.client import EngineClient
from app.model_code import adding
from bench import contenders, load, memory, model, pictures, requests

ASKED_SECONDS, REST_SECONDS, PATIENCE_SECONDS, PERIOD_SECONDS = 3.0, 4.0, 60.0, 0.2
CALLERS = 8


def main() -> int:
    """Load a second version beside the one that serves, ask it, unload it. Exit status 0."""
    model.ensure()
    (contender,) = (each for each in contenders.with_code() if each.name == contenders.WITH_CODE)
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        store = Path(scratch) / "models"
        first = shutil.copytree(model.STORE / model.CODE_NAME / "1", store / model.CODE_NAME / "1")
        settings = {"MODELS_DIR": str(store), "MODELS_KEEP_PREVIOUS_SECONDS": "0"}
        changed = replace(contender, environment={**contender.environment, **settings})
        with contenders.running(changed) as server:
            _measure(server, store, first)
    return 0


def _measure(server: contenders.Running, store: Path, first: Path) -> None:
    engine = EngineClient(server.folder / "state" / "run" / "engine.sock")
    _until(lambda: _workers(server) == 1 and _ask(server, 1, 1.0) > 0, "the first version")
    _tell(server, "one version, asked")
    adding.add(adding.NewCode(_folder(first), model.CODE_NAME, "2"), store)
    engine.change("canary", model.CODE_NAME, "2", 50, say=lambda line: None)
    _tell(server, "a second version as canary, asked")
    engine.change("canary", model.CODE_NAME, "2", 0, say=lambda line: None)
    _until(lambda: _workers(server) == 1, "the second version's process to end")
    _tell(server, "the second version unloaded")


def _folder(added: Path) -> Path:
    """What its owner wrote, without what model-add did."""
    target = added.parents[2] / "folder"
    return shutil.copytree(added, target, ignore=shutil.ignore_patterns("manifest.toml", "__pycache__"))


def _ask(server: contenders.Running, callers: int, seconds: float) -> int:
    made = requests.picture_requests(
        server.contender.predict_path, server.contender.form, pictures.held_out(), model.reference()
    )
    run = load.closed(server.port, made, server.contender.label_of, callers, seconds)
    return run.count("right") + run.count("wrong")


def _workers(server: contenders.Running) -> int:
    """Processes of models with code."""
    lines = (memory.PROC / str(pid) / "cmdline" for pid in memory.tree(server.pid))
    return sum(b"app.model_code.child" in line.read_bytes() for line in lines if line.exists())


def _tell(server: contenders.Running, what: str) -> None:
    _ask(server, CALLERS, ASKED_SECONDS)
    busy = memory.tree_pss_mb(server.pid)
    time.sleep(REST_SECONDS)
    rest = memory.tree_pss_mb(server.pid)
    print(f"{what}: {_workers(server)} processes of models, PSS {busy:.0f} MB, at rest {rest:.0f} MB", flush=True)


def _until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE_SECONDS:g} s for {what}")
        time.sleep(PERIOD_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
