"""The least that answers with a label through our Apache and engine: the bar for what our Flask app adds.

No Flask, no tokens, no limits, no admission, no kept answers, no metrics: read, decode, ask the engine, write JSON.
``python -m bench.peers.minimal_app FOLDER`` serves it as ``apache/serve.sh`` serves ``flask.wsgi``, from a copy of the
code in FOLDER in which that file is this one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SERVED = ("apache", "app", "cask", "env", "requirements")
TIMEOUT_SECONDS = 10.0
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def make() -> Application:
    """The WSGI application, for the one model in MODELS_DIR that has no code of its own."""
    from app import config
    from app.decoding import decoder
    from app.engine.client import EngineClient
    from app.inference import images
    from app.models import manifests

    settings = config.load()
    manifest = next(each for each in manifests.find(Path(settings.models_dir)) if not each.code)
    engine, limits, image_options = (
        EngineClient(settings.engine_socket),
        decoder.limits(settings),
        manifest.default_options(),
    )

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        data = environ["wsgi.input"].read()
        picture = images.read(data, manifest.input, limits)
        found = engine.predict(manifest, [picture.pixels], [image_options], time.monotonic() + TIMEOUT_SECONDS)[0]
        body = json.dumps({"label": found.answer[0].label}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return application


def main(folder: Path) -> None:
    """Become Apache."""
    for name in SERVED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "bench").mkdir()
    shutil.copy(__file__, folder / "bench" / "minimal_app.py")
    (folder / "flask.wsgi").write_text("from bench.minimal_app import make\n\napplication = make()\n")
    os.environ["CASK_PYTHON"] = str(ROOT / ".venv" / "bin" / "python")
    os.execv(folder / "apache" / "serve.sh", ["serve.sh"])  # noqa: S606 - as the bench starts ours


if __name__ == "__main__":
    main(Path(sys.argv[1]))
