"""The real service with one classifier in several versions that can be told apart. For tests of changes of versions."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.engine.client import EngineClient, Say
from app.models import manifests
from app.models.manifests import Manifest
from tests import servers, stores
from tests.servers import Answer, Server
from tests.stores import CLASSIFIER

JPEG = {"Content-Type": "image/jpeg"}


@dataclass
class Versioned:
    """A service with one classifier in three versions, which can be told apart by their labels."""

    server: Server
    store: Path
    client: EngineClient
    manifests: dict[str, Manifest] = field(default_factory=dict)

    def classify(self, image: bytes, **headers: str) -> Answer:
        return self.server.ask("/v1/classify", image, {**JPEG, **headers})

    def change(
        self, action: str, version: str = "", share: float = 0.0, say: Say = lambda line: None
    ) -> dict[str, Any]:
        return self.client.change(action, CLASSIFIER, version, share, say=say)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What a make target runs."""
        return subprocess.run(
            [sys.executable, "-m", "app.cli", "model", *arguments],
            cwd=servers.ROOT,
            env=servers.environment("test", STATE_DIR=str(self.server.state_dir), MODELS_DIR=str(self.store)),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def versions(self) -> dict[str, dict[str, Any]]:
        rows = self.client.status()["models"]
        return {row["version"]: row for row in rows}

    def check(self, answer: Answer) -> str:
        """The version that answered; its digest and its labels must be of that version too."""
        assert answer.status == 200, answer.body
        model, best = answer.json["model"], answer.json["results"][0]["predictions"]
        manifest = self.manifests[model["version"]]
        assert model["digest"] == manifest.digest
        assert {row["label"] for row in best} == set(manifest.labels)
        return manifest.version


@contextlib.contextmanager
def versioned(**settings: str) -> Iterator[Versioned]:
    """Serve version 1; 2 and 3 lie in the store when the block begins."""
    folder = servers.make_state_dir()
    store = stores.make(folder)
    try:
        with servers.running("test", MODELS_DIR=str(store), **settings) as server:
            client = EngineClient(server.state_dir / "run" / "engine.sock")
            service = Versioned(server, store, client)
            service.manifests["1"] = manifests.read(store / CLASSIFIER / "1")
            # Added after the start, as an operator does.
            service.manifests["2"] = stores.add_version(store, "2")
            service.manifests["3"] = stores.add_version(store, "3")
            yield service
            client.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
