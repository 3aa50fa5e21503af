"""Seconds from a save to its answer, for what people copy from examples/: ``python -m tests.save_to_answer``.

Five models under ``make model-dev``, two plugins under ``make dev`` and under ``make serve``, the application under
``make serve``. Each save changes the code so that an answer says its number; a caller asks until it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import servers

EXAMPLES = servers.ROOT / "examples"
ENVIRONMENT = servers.ROOT / "build" / "examples" / "ledger"
MODELS = ("tickets", "table", "segment", "timm", "yolo")
PAGES = {"claims": "/claims/page", "notes": "/notes", "ledger": "/ledger/sign-in"}
SAVES = 5
PERIOD_SECONDS = 0.02
# A save that falls into the start of what the last one began is not what a person waits for.
BETWEEN_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
# At the end of a plugin's code, of an application's, of a model's.
PLUGIN = "\n@blueprint.after_request\ndef saved(answer):\n    answer.headers['X-Saved'] = '{0}'\n    return answer\n"
APPLICATION = (
    "\ndef create_app(made=create_app):\n    app = made()\n    @app.after_request\n    def saved(answer):\n"
    "        answer.headers['X-Saved'] = '{0}'\n        return answer\n    return app\n"
)
MODEL = """
import functools, cask
def saved(made):
    @functools.wraps(made)
    def predict(self, *items, **options):
        made(self, *items, **options)
        return [cask.Refused("saved {0}") for _ in items[0]]
    return predict
{1}.predict = saved({1}.predict)
"""

Asked = Callable[[], str]


def main() -> int:
    """Measure what is named, or all, and print it."""
    wanted = set(sys.argv[1:]) or {*MODELS, *PAGES}
    if "ledger" in wanted and not (ENVIRONMENT / "bin" / "python").exists():
        sys.exit(f"FAIL: needs {ENVIRONMENT}, found none.\nNext: requirements/examples.sh")
    for name in MODELS:
        if name in wanted:
            with copied("models", name) as folder:
                tell(name, "model-dev", model_seconds(folder))
    with contextlib.ExitStack() as stack:
        plugins = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cask-")))
        plugins.chmod(0o755)
        chosen = [name for name in PAGES if name in wanted]
        for name in chosen:
            shutil.copytree(EXAMPLES / ("applications" if name == "ledger" else "plugins") / name, plugins / name)
        if "ledger" in chosen:
            (plugins / "ledger" / ".venv").symlink_to(ENVIRONMENT)
        if set(chosen) - {"ledger"}:
            with developing(plugins) as base:
                for name in chosen:
                    if name != "ledger":
                        tell(name, "dev", page_seconds(base, plugins / name))
        if chosen:
            with servers.running("dev", PLUGINS_DIR=str(plugins)) as server:
                for name in chosen:
                    tell(name, "serve", page_seconds(server.url, plugins / name))
    return 0


def tell(name: str, where: str, seconds: list[float]) -> None:
    """One row: the median, and each save."""
    each = " ".join(f"{second:.2f}" for second in seconds)
    print(f"{name:9} make {where:10} median {statistics.median(seconds):.2f} s   ({each})", flush=True)


def page_seconds(base: str, folder: Path) -> list[float]:
    """Of a plugin or application in that folder, behind that address."""
    name = folder.name
    path = folder / (f"{name}.py" if name == "ledger" else "__init__.py")
    code, more = path.read_text(), APPLICATION if name == "ledger" else PLUGIN

    def asked() -> str:
        with urllib.request.urlopen(base + PAGES[name], timeout=PATIENCE_SECONDS) as answer:
            return str(answer.headers.get("X-Saved"))

    found = measured(path, lambda number: code + more.format(number), asked)
    path.write_text(code)
    return found


def model_seconds(folder: Path) -> list[float]:
    """Of a model with code in that folder."""
    path = folder / "model.py"
    code = path.read_text()
    name = re.search(r"^class (\w+)\(Model\)", code, re.MULTILINE)[1]  # type: ignore[index]
    port = servers.free_port()
    command = [sys.executable, "-m", "app.cli", "model", "dev", str(folder)]
    with beside(command, PORT=str(port)):
        example = next(each for each in sorted((folder / "examples").iterdir()) if "expected" not in each.name)
        kind = {"Content-Type": "application/json" if example.suffix == ".json" else "image/jpeg"}
        address = f"http://127.0.0.1:{port}/v1/models/{folder.name}/predict"
        request = urllib.request.Request(address, example.read_bytes(), kind)

        def asked() -> str:
            try:
                urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()
            except urllib.error.HTTPError as error:
                return str(json.load(error)["detail"]).removeprefix("saved ")
            return ""

        return measured(path, lambda number: code + MODEL.format(number, name), asked)


def measured(path: Path, code: Callable[[int], str], asked: Asked) -> list[float]:
    """Seconds of SAVES saves, after one that nobody counts."""
    found = []
    for number in range(SAVES + 1):
        if number:
            time.sleep(BETWEEN_SECONDS)
        path.write_text(code(number))
        found.append(until_answered(str(number), asked))
    return found[1:]


def until_answered(number: str, asked: Asked) -> float:
    """Raises TimeoutError that says so."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE_SECONDS:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if asked() == number:
                return time.monotonic() - began
        time.sleep(PERIOD_SECONDS)
    raise TimeoutError(f"save {number} was not answered within {PATIENCE_SECONDS:g} s")


@contextlib.contextmanager
def copied(kind: str, name: str) -> Iterator[Path]:
    """One of examples/, in a folder that may be written."""
    with tempfile.TemporaryDirectory(prefix="cask-") as place:
        yield Path(shutil.copytree(EXAMPLES / kind / name, Path(place, name)))


@contextlib.contextmanager
def developing(plugins: Path) -> Iterator[str]:
    """`make dev` over these plugins; its address."""
    port, state = servers.free_port(), servers.make_state_dir()
    command = [str(servers.ROOT / "app" / "dev.sh")]
    try:
        with beside(command, PORT=str(port), STATE_DIR=str(state), PLUGINS_DIR=str(plugins)):
            yield f"http://127.0.0.1:{port}"
    finally:
        shutil.rmtree(state, ignore_errors=True)


@contextlib.contextmanager
def beside(command: list[str], **settings: str) -> Iterator[None]:
    """A command with these settings; it and what it started is ended."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=servers.ROOT,
            env=servers.environment("dev", **settings),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield
        except TimeoutError:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
