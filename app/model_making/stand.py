"""A model with code on a test stand: the whole web tier over its one process, without an engine between them.

Requests pass through what they pass through in the service: validation, decoding, the worker, the answer's document.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.config import Settings
from app.engine.client import CallAnswer
from app.errors import CaskError, EngineAwayError
from app.factory import create_app
from app.model_code import served
from app.models.manifests import Manifest

# What would stand between a caller and the model.
ALONE: dict[str, Any] = {
    "authentication": "off",
    "cache": "off",
    "jobs": "off",
    "log_level": "error",
    "models": (),
    "ensemble_upstreams": (),
    "rate_limit_per_address": (),
}
CHANGES = ALONE | {
    "plugins_dir": Path("/nonexistent"),
    "plugins": (),
}
PERIOD_SECONDS = 0.02
# Calls at once, where the model allows it.
CALLERS = 2
# The values of one item, and the bytes that they point into.
Values = tuple[Sequence[Any], bytes | memoryview]


@dataclass
class Reply:
    """What a caller got, and what reached the model for it: nothing where it was refused before."""

    status: int
    document: dict[str, Any]
    items: list[Values] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


class Stand:
    """One added version, its process and an app in front of it. Close it."""

    def __init__(self, manifest: Manifest, settings: Settings) -> None:
        """Load the model. Raises ModelLoadError."""
        self.manifest = manifest
        self.running = served.load(manifest, is_allowed=True, threads=1, most_calls=CALLERS).running
        self._state = tempfile.TemporaryDirectory(prefix="cask-")
        self._recorded = threading.local()
        store = manifest.directory.parent.parent
        changes = {**CHANGES, "state_dir": Path(self._state.name), "models_dir": store}
        self._app = create_app(settings.model_copy(update=changes), self)

    def close(self) -> None:
        """End the process and remove what was written."""
        self.running.close()
        self._state.cleanup()

    def ask(self, body: bytes, content_type: str) -> Reply:
        """Send one request. A model that ends or hangs is an answer too: 503."""
        self._recorded.reply = reply = Reply(0, {})
        path = f"/v1/models/{self.manifest.name}/predict"
        answer = self._app.test_client().post(path, data=body, content_type=content_type)
        reply.status, reply.document = answer.status_code, answer.get_json(silent=True) or {}
        return reply

    def compute(self, items: Sequence[Values], options: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask the process itself for one batch; see ``ModelWorker.ask``."""
        return self.running.ask(options, items)

    def shown(self, text: str) -> str:
        """What the model said, with names of its files in place of where this copy lies."""
        return text.replace(f"{self.manifest.directory}/", "")

    def last_words(self, seconds: float) -> list[str]:
        """What the process wrote last; where it has just ended, all of that, once the next one is started."""
        starts, until = self.running.starts, time.monotonic() + seconds
        while self.running.starts == starts and time.monotonic() < until:
            time.sleep(PERIOD_SECONDS)
        return list(self.running.lines)

    # ── what the web tier sees of an engine ───────────────────────────────────────────────────────────────────────

    def call(
        self, manifest: Manifest, items: Sequence[Values], options: dict[str, Any], deadline: float
    ) -> list[CallAnswer]:
        """Ask the process itself, and keep what it was asked and answered."""
        reply: Reply = self._recorded.reply
        reply.items, reply.options = list(items), options
        reply.rows = self.compute(items, options)
        found = [served.outcome(row) for row in reply.rows]
        for number, each in enumerate(found):
            if isinstance(each, CaskError):
                each.number = number
                raise each
        return [CallAnswer(each, 0.0, 0.0, len(items)) for each in found if isinstance(each, bytes)]

    def predict(self, *_: Any) -> list[Any]:
        """No other model is here."""
        raise EngineAwayError("There is no engine.")

    def status(self) -> dict[str, Any]:
        """No engine answers."""
        raise EngineAwayError("There is no engine.")

    def shadow(self, *_: Any) -> None:
        """Nothing is compared."""
