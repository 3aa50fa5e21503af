"""The service as operators run it, for a proof: settings of staging, models built for this machine, any share of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from loadtest import harness
from loadtest.harness import Ran
from tests import servers
from tests.servers import ROOT, Server

FOLDER = ROOT / "build" / "proofs"
STATE_DIR = FOLDER / "state"
ENV = "staging"
# Signs nothing here; staging refuses to start without one.
SECRET_KEY = "only-for-a-measurement-on-loopback-7f3a9c51"  # noqa: S105
# As the image is built; what else could be tried takes minutes, and these win where OpenVINO runs.
CANDIDATES = "openvino fp32,openvino bf16,openvino int8"


def built_state() -> Path:
    """A state folder with the models built for this machine; made once, some minutes."""
    if not (STATE_DIR / ".complete").exists():
        print(f"Building the models for this machine into {STATE_DIR.relative_to(ROOT)}; a minute or two.", flush=True)
        STATE_DIR.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "app.runtimes.build.build", "--missing", "--rounds", "2", "--only", CANDIDATES]
        environ = servers.environment("test", STATE_DIR=str(STATE_DIR), DEVICE="cpu")
        subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
        (STATE_DIR / ".complete").touch()
    return STATE_DIR


@contextlib.contextmanager
def serving(
    root: Path = ROOT, cores: frozenset[int] | None = None, *, is_built: bool = True, **settings: str
) -> Iterator[Server]:
    """Serve from a checkout or a copy of it, on some cores only where they are named, until the block ends.

    ``is_built``: with models built for this machine; otherwise torch computes, slowly, and nothing is built first.
    """
    state_dir = servers.make_state_dir()
    if is_built:
        shutil.copytree(built_state() / "built", state_dir / "built")
    log_path, port, token = state_dir / "server.log", servers.free_port(), servers.make_token(state_dir)
    mine = {"SECRET_KEY": SECRET_KEY, "PORT": str(port), "STATE_DIR": str(state_dir), "MODEL_BUILD": "off"}
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [root / "apache" / "serve.sh"],
            cwd=root,
            env=servers.environment(ENV, **(mine | settings)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
        )
    server = Server(f"http://127.0.0.1:{port}", port, state_dir, process, log_path, token)
    try:
        servers.wait_until(lambda: process.poll() is not None or server.is_ready(), servers.START_SECONDS, "/readyz")
        assert process.poll() is None, f"it ended with {process.returncode}:\n{server.log()}"
        yield server
    finally:
        server.stop()
        shutil.rmtree(state_dir, ignore_errors=True)


def run(server: Server, *options: str, folder: Path | None = None, **settings: str) -> Ran:
    """One run of the tool against it."""
    return harness.run(server.url, *options, env=ENV, folder=folder, **(allowing(server) | settings))


def allowing(server: Server) -> dict[str, str]:
    """Settings that let the tool load it."""
    return {"LOADTEST_ALLOW": "yes", "LOADTEST_TOKEN": server.token}


@contextlib.contextmanager
def on(cores: frozenset[int]) -> Iterator[None]:
    """What this process starts runs on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cask-proof-") as folder:
        yield Path(folder)


def table(rows: list[list[str]]) -> str:
    """Columns under each other, indented."""
    from loadtest import summary

    return "\n".join(f"  {line}" for line in summary.table(rows))


def percentiles(ran: Ran, kind: str = "response_ms") -> Mapping[str, float]:
    """Milliseconds of one run. Raises AssertionError with what it printed where there was no verdict."""
    assert ran.figures, ran.printed
    return dict(ran.figures[kind])
