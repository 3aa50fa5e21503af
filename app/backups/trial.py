"""A service that is started from a backup on loopback, for as long as it takes to see that all of it is there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app import config
from app.backups import facts
from app.backups.contents import MODELS, PLUGINS, STATE
from app.config import Settings
from app.errors import BackupError
from app.storage import state_files, state_schema

READY_SECONDS, LOOK_SECONDS, STOP_SECONDS = 180.0, 0.2, 20.0
# It answers nobody else, works off no job, calls nobody and builds nothing.
ALONE = {
    "LISTEN_HOST": "127.0.0.1",
    "HTTPS_PORT": "0",
    "SERVER_NAME": "127.0.0.1",
    "AUTHENTICATION": "off",
    "JOBS": "off",
    "CACHE": "off",
    "REDIS_URL": "",
    "MODEL_BUILD": "off",
    "ALERTS_WEBHOOK_URL": "",
    "SENTRY_DSN": "",
    "TRACES_ENDPOINT": "",
    "LOG_FILE": "",
    "CASK_ANNOUNCE": "no",
}


def run(settings: Settings, about: dict[str, Any], places: dict[str, Path]) -> Iterator[str]:
    """Start it and say what is there, a line each. Raises BackupError, StateUnusableError."""
    state_schema.check(places[STATE])
    state_files.check(places[STATE])
    yield ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in facts.compare(about, places[STATE]).items())
    with _serving(settings, places) as (url, process):
        document = _ready(url, process)
    models = [f"{each['name']}@{each['version']}" for each in document["models"]]
    yield f"A service started from it answers, with the stored answers of {', '.join(models)}"


@contextlib.contextmanager
def _serving(settings: Settings, places: dict[str, Path]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = _free_port()
    # The service user must be able to enter.
    places[STATE].parent.chmod(0o755)
    models = places[MODELS] if any(places[MODELS].iterdir()) else settings.models_dir
    given = {"ENV": settings.env, "PORT": str(port), "STATE_DIR": str(places[STATE]), "MODELS_DIR": str(models)}
    given |= {"PLUGINS_DIR": str(places[PLUGINS]), "SECRET_KEY": os.urandom(24).hex()}
    log = places[STATE].parent / "log"
    # Besides what this shell has: an index of packages, a proxy.
    pairs = [f"{name}={value}" for name, value in (ALONE | given).items()]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["env", *pairs, config.ROOT / "apache" / "serve.sh"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"http://127.0.0.1:{port}", process
    except BackupError as error:
        lines = " | ".join(log.read_text(errors="replace").splitlines()[-5:])
        raise BackupError("%(said)s", hint="Its last lines: %(lines)s", said=error.message, lines=lines) from error
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _asked(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _ready(url: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What /v1/models says once it is ready."""
    end, said = time.monotonic() + READY_SECONDS, "nothing"
    while time.monotonic() < end:
        if process.poll() is not None:
            raise BackupError(f"A service started from it has ended, status {process.returncode}.")
        try:
            _asked(f"{url}/readyz")
            return _asked(f"{url}/v1/models")
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
        except OSError as error:
            said = str(error)
        time.sleep(LOOK_SECONDS)
    raise BackupError(f"A service started from it was not ready after {READY_SECONDS:g} s: {said}")
