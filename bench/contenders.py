"""Who is measured: how each is started on a port, how it wants its pictures, and where its answer names the label."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from apache import known_app
from app.engine import monitor
from bench import environment, memory, model, own_priority, requests
from bench.peers import network
from bench.requests import Form

ROOT = environment.ROOT
STOP_SECONDS = 20.0
ORPHAN_SECONDS, ORPHAN_PERIOD_SECONDS = 2.0, 0.05
CORES = os.cpu_count() or 1
# Signs nothing here; prod refuses to start without one.
SECRET_KEY = "only-for-a-measurement-on-loopback-7f3a9c51"  # noqa: S105

# Port and a folder of its own to the command that serves there.
Command = Callable[[int, Path], list[str]]


@dataclass(frozen=True)
class Contender:
    """One server. ``kind``: ours, minimal (our engine without our app), square (ours, pictures as for a model with
    code), code (a model with code), guarded (ours, with tokens) or peer.

    Paths are of the URL; an empty one: it has no such route.

    ``stop_signal`` ends it as its documentation says, requests in flight included. ``state``: what one of ours starts
    with, a folder of which it gets a copy.
    """

    name: str
    title: str
    command: Command
    predict_path: str
    form: Form
    label_of: Callable[[bytes], str]
    health_path: str
    kind: str = "peer"
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    plain_path: str = ""
    # A route through Flask and all guards, where the plain one is answered before them.
    flask_path: str = ""
    static_path: str = ""
    state: Path = model.BUILT_STATE


@dataclass(frozen=True)
class Running:
    """A contender that was started. ``began``: when its command did, a moment of ``time.perf_counter``."""

    contender: Contender
    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    log_path: Path
    began: float

    @property
    def pid(self) -> int:
        """The first of its processes."""
        return self.process.pid

    def log_end(self, characters: int = 2000) -> str:
        """The last of what it wrote."""
        return self.log_path.read_text(errors="replace")[-characters:]


@contextlib.contextmanager
def running(contender: Contender) -> Iterator[Running]:
    """Start a contender on a free port with a folder of its own; stop it at the end by the pid that was started."""
    folder = Path(tempfile.mkdtemp(prefix="cask-bench-"))
    # Ours serves as another user, who must be able to enter.
    folder.chmod(0o755)
    if contender.kind != "peer":
        shutil.copytree(contender.state, folder / "state")
        # To the disk now: 120 MB that wait for it would be in the way of the start.
        os.sync()
    port = free_port()
    log_path = folder / "log"
    with log_path.open("wb") as log:
        # The copy above is ours alone, and no part of a start.
        began = time.perf_counter()
        process = subprocess.Popen(
            contender.command(port, folder),
            cwd=ROOT,
            env=_environment(contender, port, folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A scheduling group of its own (sched(7), autogroup), which the load generator's priority does not touch.
            start_new_session=True,
            preexec_fn=own_priority.give_back,
        )
    try:
        yield Running(contender, port, process, folder, log_path, began)
    finally:
        _stop(process, contender.stop_signal)
        if contender.kind != "peer":
            _keep_learnt(folder / "state", contender.state)
        shutil.rmtree(folder, ignore_errors=True)


def _keep_learnt(state: Path, built_state: Path) -> None:
    """What is kept over a restart is kept here too, so not made in each round: what was learnt of the model's samples,
    and the facts of the app for Apache's configuration. So all rounds but the first see a warm start.
    """
    for learnt in (*(state / monitor.FOLDER).glob("*.json"), *state.glob(str(known_app.FILE))):
        kept = built_state / learnt.relative_to(state)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(learnt, kept)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(contender: Contender, port: int, folder: Path) -> dict[str, str]:
    """The same for all: nothing of this shell but what programs need to be found."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SERVICE_USER") if name in os.environ}
    common = {"HOME": str(folder), "PYTHONPATH": str(ROOT)}
    own = {name: value.format(port=port, folder=folder) for name, value in contender.environment.items()}
    return {**kept, **common, **own}


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """End the process, and what it started and left behind: it would take processor time from the next contender."""
    family = memory.tree(process.pid)
    for sign in (how, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        process.send_signal(sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    for orphan in _still_there(family[1:]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)


def _still_there(pids: list[int]) -> list[int]:
    """Those that are left after a moment."""
    end = time.monotonic() + ORPHAN_SECONDS
    left = pids
    while left and time.monotonic() < end:
        left = [pid for pid in left if Path(f"/proc/{pid}").exists()]
        time.sleep(ORPHAN_PERIOD_SECONDS)
    return left


# -------------------------------------------------------------------------------------------------------------- ours


MINIMAL = "ours-minimal"
GUARDED = "ours-guarded"
# Counted for each request, and never reached.
LIMIT = "100000000/minute"
WITH_CODE, SQUARE = "ours-code", "ours-square"
# What each row of ours asks the engine for.
VARIANTS = {
    "auto": ("Cask, automatic", {}),
    "int8": ("Cask, int8", {"PRECISION": "int8"}),
    "bf16": ("Cask, bf16", {"PRECISION": "bf16"}),
    "fp32": ("Cask, fp32", {"PRECISION": "fp32"}),
    "torch": ("Cask, eager torch", {"RUNTIME": "torch"}),
}


def ours() -> list[Contender]:
    """Our service with its defaults for production: one row for what the build chose, and one for each precision."""
    return [_ours(f"ours-{variant}", title, settings) for variant, (title, settings) in VARIANTS.items()]


def minimal() -> Contender:
    """Fifteen lines of WSGI in the place of our app, under the same Apache and engine."""
    return replace(
        _ours(MINIMAL, "Fifteen lines of WSGI before our engine", {}),
        kind="minimal",
        command=lambda port, folder: [str(environment.PYTHON), "-m", "bench.peers.minimal_app", str(folder / "code")],
        predict_path="/predict",
        label_of=lambda body: json.loads(body)["label"],
        plain_path="",
        flask_path="",
        static_path="",
    )


def with_code() -> list[Contender]:
    """The same network in eager torch inside the engine and as a model with code, in its own process; to be compared.

    Both get pictures that are scaled to the input's side; those of the other rows are scaled larger and cut, which is
    more to decode.
    """
    inside = _ours(SQUARE, "Cask, eager torch, square pictures", VARIANTS["torch"][1])
    apart = _ours(WITH_CODE, "Cask, the same as a model with code", {"MODEL_CODE": "on"})
    return [
        replace(
            inside,
            kind="square",
            environment={**inside.environment, "MODELS_DIR": str(model.SQUARE_STORE)},
            plain_path="",
            flask_path="",
            static_path="",
        ),
        replace(
            apart,
            # No build, and no raw limit: it is the code that computes.
            kind="code",
            predict_path=f"/v1/models/{model.CODE_NAME}/predict?top=1",
            label_of=lambda body: json.loads(body)["results"][0][0]["label"],
            plain_path="",
            flask_path="",
            static_path="",
        ),
    ]


def _ours(name: str, title: str, settings: dict[str, str]) -> Contender:
    always = {
        "ENV": "prod",
        "SECRET_KEY": SECRET_KEY,
        # Peers ask for no token either.
        "AUTHENTICATION": "off",
        "CASK_ANNOUNCE": "no",
        "LISTEN_HOST": "127.0.0.1",
        "PORT": "{port}",
        "STATE_DIR": "{folder}/state",
        "MODELS_DIR": str(model.STORE),
        "PYTHONPATH": "",
    }
    return Contender(
        name=name,
        title=title,
        kind="ours",
        command=lambda port, folder: [str(ROOT / "apache" / "serve.sh")],
        environment=always | settings,
        # Apache's word for: finish what is in flight.
        stop_signal=signal.SIGWINCH,
        predict_path="/v1/classify?top_k=1",
        form=requests.RAW,
        label_of=lambda body: json.loads(body)["results"][0]["predictions"][0]["label"],
        health_path="/livez",
        plain_path="/v1/models",
        flask_path=f"/v1/models/{model.NAME}?version={model.VERSION}",
        static_path="/static/site.css",
    )


# ------------------------------------------------------------------------------------------------------------- peers


def peers() -> list[Contender]:
    """Each peer in its documented way, with our built model, and with our preparation of pictures besides."""
    made = [_gunicorn, _litserve, _bentoml]
    return [make(kind) for kind in ("documented", "built", "twin") for make in made]


def _named(name: str, title: str, kind: str) -> tuple[str, str, dict[str, str]]:
    """Name, title and environment of a peer with one kind of model."""
    if kind == "documented":
        return name, f"{title}, documented way", {network.MODEL_VARIABLE: kind}
    words = "our built model" if kind == "built" else "our built model and preparation"
    return f"{name}-{kind}", f"{title} + {words}", {network.MODEL_VARIABLE: kind}


def _gunicorn(kind: str) -> Contender:
    name, title, variables = _named("gunicorn", "Flask on gunicorn", kind)
    return Contender(
        name=name,
        title=title,
        command=lambda port, folder: gunicorn_command(port, "bench.peers.gunicorn_app:app"),
        environment=variables,
        predict_path="/predict",
        form=requests.RAW,
        label_of=lambda body: json.loads(body)["label"],
        health_path="/hello",
    )


def gunicorn_command(port: int, application: str) -> list[str]:
    """gunicorn's default worker, sync, one for each core."""
    options = ["--bind", f"127.0.0.1:{port}", "--workers", str(CORES), "--log-level", "warning"]
    return [str(environment.PYTHON), "-m", "gunicorn", *options, application]


def _litserve(kind: str) -> Contender:
    name, title, variables = _named("litserve", "LitServe", kind)
    return Contender(
        name=name,
        title=title,
        command=lambda port, folder: [str(environment.PYTHON), "-m", "bench.peers.litserve_app", str(port)],
        environment=variables,
        predict_path="/predict",
        form=requests.BASE64_JSON,
        label_of=lambda body: json.loads(body)["label"],
        health_path="/health",
    )


def _bentoml(kind: str) -> Contender:
    name, title, variables = _named("bentoml", "BentoML", kind)
    serve = ["serve", "bench.peers.bentoml_app:Classifier", "--host", "127.0.0.1", "--port"]
    return Contender(
        name=name,
        title=title,
        command=lambda port, folder: [str(environment.PYTHON), "-m", "bentoml", *serve, str(port)],
        environment={**variables, "BENTOML_HOME": "{folder}/bentoml", "BENTOML_DO_NOT_TRACK": "True"},
        predict_path="/predict",
        form=requests.multipart("images"),
        label_of=lambda body: json.loads(body)[0],
        health_path="/livez",
    )


# ------------------------------------------------------------------------------------------------------- routes only


def guarded() -> Contender:
    """Our service as callers with a token and a limit meet it; ``visits`` makes the token, and a job to ask about."""
    return replace(
        _ours(GUARDED, "Cask, a token and a limit", {"AUTHENTICATION": "required", "RATE_LIMIT_PER_TOKEN": LIMIT}),
        kind="guarded",
        predict_path="",
        plain_path="/livez",
        flask_path="/v1/jobs/{job}",
        static_path="",
    )


def plain() -> list[Contender]:
    """Servers for routes without a model, to be measured beside ours."""
    gunicorn = Contender(
        name="gunicorn-plain",
        title="Flask on gunicorn, no model",
        command=lambda port, folder: gunicorn_command(port, "bench.peers.plain_app:app"),
        predict_path="",
        form=requests.RAW,
        label_of=lambda body: "",
        health_path="/hello",
        plain_path="/hello",
        flask_path="/hello",
        static_path="/static/site.css",
    )
    return [gunicorn, *_nginx_uwsgi()]


def _nginx_uwsgi() -> list[Contender]:
    if not environment.ensure_tools():
        return []
    return [
        Contender(
            name="nginx-uwsgi",
            title="Flask on nginx with uWSGI, no model",
            command=lambda port, folder: [
                str(environment.PYTHON),
                "-m",
                "bench.peers.nginx_uwsgi",
                str(port),
                str(folder),
            ],
            predict_path="",
            form=requests.RAW,
            label_of=lambda body: "",
            health_path="/hello",
            plain_path="/hello",
            flask_path="/hello",
            static_path="/static/site.css",
        )
    ]
