"""``make model-dev``: serve one folder while it is written. A save starts its process anew; the old one goes on.

Web tier and engine run in this process, the model in its own, whose input and output are the terminal's: a debugger
that stops in predict can be talked to. A spare process has imported the packages already that the last one had: the
import of torch alone takes longer than a person wants to wait.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer, make_server

from app.config import Settings
from app.engine import service
from app.engine.client import EngineClient
from app.engine.server import Server
from app.errors import CaskError, ModelLoadError
from app.factory import create_app
from app.model_code import adding, environments
from app.model_code.adding import NewCode
from app.model_code.served import CodeModel
from app.model_code.worker import ModelWorker, Spec
from app.model_making.stand import ALONE
from app.models import manifests
from app.models.manifests import CodeSpec, Manifest
from app.storage import saves
from app.storage.saves import Stamp

VERSION = "dev"
# A person may sit before a debugger for so long.
PATIENCE_SECONDS = 24 * 3600.0
CHANGES = ALONE | {
    "request_timeout_seconds": 3600.0,
    "request_max_wait_seconds": 3600.0,
    "models_keep_previous_seconds": 0,
    "engine_self_test_seconds": 0,
}
Say = Callable[[str], None]


class Development:
    """One folder, served under ``name``. Use it as a context."""

    def __init__(
        self,
        folder: Path,
        name: str,
        settings: Settings,
        limits: CodeSpec,
        say: Say,
        *,
        of_class: frozenset[str] = frozenset(),
    ) -> None:
        self._new = NewCode(folder, name, VERSION, limits=limits, is_trusted=True, of_class=of_class)
        self._say = say
        self._scratch = tempfile.TemporaryDirectory(prefix="cask-")
        place = Path(self._scratch.name)
        self._store = place / "models"
        state = {"state_dir": place, "models_dir": self._store, "engine_socket": place / "engine.sock"}
        self._settings = settings.model_copy(update={**CHANGES, **state})
        self._app: Any = None
        self._engine: Server | None = None
        self._next: ModelWorker | None = None
        self._spare: ModelWorker | None = None
        self._error = "it was not loaded yet"
        self._installed = b""

    def __enter__(self) -> Development:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()
        if self._engine is not None:
            self._engine.stop(0)
        self._scratch.cleanup()

    def server(self) -> BaseWSGIServer:
        """What listens at the address of the settings. Raises OSError where somebody else does."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        return make_server(self._settings.listen_host, self._settings.port, self._answer, threaded=True)

    def watch(self) -> None:
        """Load it, and again after each save, until this process is told to end."""
        seen: Stamp = {}
        while True:
            now = _stamp(self._new.folder)
            if now != seen:
                saved = time.monotonic() - saves.PERIOD_SECONDS
                now = saves.settled(lambda: _stamp(self._new.folder), now)
                changed = saves.changed(seen, now)
                self.load(", ".join(changed[:3]) if seen else "first load", saved)
                seen = now
            time.sleep(saves.PERIOD_SECONDS)

    def load(self, why: str, saved: float) -> None:
        """Start it anew and let it answer; what served goes on where that fails. Says which, and how long it took.

        ``saved``: the moment of ``time.monotonic`` from which that is counted.
        """
        try:
            self._install()
            running = self._started()
            self._take(running)
            self._prepare(running.imported)
        except CaskError as error:
            self._error = str(error.message)
            goes_on = "The last good version goes on answering." if self._app else "Requests are answered with 503."
            self._say(f"fail  {why}: {self._error}\n        {goes_on} Mend it and save.")
        else:
            self._error = ""
            self._say(f"ok    {why}: it answers, {time.monotonic() - saved:.2f} s after the save")

    def _install(self) -> None:
        """What it requires, into ``environment`` in its folder, with a lock; again where that has changed."""
        folder = self._new.folder
        lists = [folder / name for name in environments.LISTS if (folder / name).exists()]
        wanted = b"".join(path.read_bytes() for path in lists)
        if wanted == self._installed:
            return
        self._discard()
        if not (environments.place(folder).is_dir() and _is_newer(folder / environments.LOCK, lists)):
            environments.make(folder, self._say)
        self._installed = wanted

    def _started(self) -> ModelWorker:
        running, ahead = self._spare, self._spare.spec.ahead or () if self._spare else ()
        if running is None or _has_own(self._new.folder, ahead):
            self._discard()
            running = self._new_process(())
        self._spare = None
        try:
            running.start()
        except ModelLoadError:
            self._prepare(ahead)
            raise ModelLoadError(running.reason) from None
        return running

    def _new_process(self, ahead: tuple[str, ...]) -> ModelWorker:
        limits, folder = self._new.limits, self._new.folder
        spec = Spec(f"{self._new.name}@{VERSION}", folder, PATIENCE_SECONDS, limits.load_seconds, limits.memory_mb)
        return ModelWorker(dataclasses.replace(spec, is_attached=True, ahead=ahead, of_class=self._new.of_class))

    def _prepare(self, names: tuple[str, ...]) -> None:
        """A spare process for the next save, where packages were imported."""
        if names:
            self._spare = self._new_process(names)
            self._spare.prepare()

    def _discard(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _take(self, running: ModelWorker) -> None:
        """Write what it promises, and let it take the place of the one before."""
        place = self._store / self._new.name / VERSION
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.py").touch()
        text = adding.manifest_text(self._new, self._new.folder, running)
        (place / manifests.FILE_NAME).write_text(text, encoding="utf-8")
        self._next = running
        if self._engine is None:
            self._engine = service.build(self._settings, self._model)
            self._engine.start()
            self._app = create_app(self._settings, EngineClient(self._settings.engine_socket))
            return
        client = EngineClient(self._settings.engine_socket)
        client.change("reload", self._new.name, VERSION, say=lambda line: None)

    def _model(self, manifest: Manifest) -> CodeModel:
        """For the engine: the process that was started last."""
        assert self._next is not None
        return CodeModel(self._next, manifest)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if self._app is not None:
            return self._app(environ, start_response)
        start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8"), ("Retry-After", "1")])
        return [f"The model does not load: {self._error}\n".encode()]


def _stamp(folder: Path) -> Stamp:
    """What a person saves there; the lock is Cask's."""
    return saves.stamp(folder, lambda path: path.name not in {environments.LOCK, "manifest.toml"})


def _has_own(folder: Path, names: tuple[str, ...]) -> bool:
    """Whether what was imported ahead is not what a new process would have.

    A file of the model may have a package's name, and a variable that it sets counts only before the import.
    """
    own = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    return bool(own & {name.partition(".")[0] for name in names}) or any(
        b"environ" in path.read_bytes() for path in folder.glob("*.py")
    )


def _is_newer(path: Path, others: list[Path]) -> bool:
    return path.exists() and all(path.stat().st_mtime >= other.stat().st_mtime for other in others)
