"""Builds in the background: what this machine has no measured form of is built beside the serving, then swapped in.

The work is done by a child of lowest priority (``app.runtimes.build.build --background``), which ends with us. Nobody
waits for it: the engine serves from the first moment with what there is.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.config import ROOT
from app.errors import CaskError, ChangeRefusedError
from app.host import machine
from app.models import builds
from app.models.manifests import Manifest

log = logging.getLogger("cask.engine")

# How soon a version that was promoted meanwhile is noticed.
PERIOD_SECONDS = 10.0
STOP_SECONDS = 5.0

Command = Callable[[Manifest], Sequence[str]]


def command(manifest: Manifest) -> list[str]:
    """What builds one model; with the settings of this process."""
    return [machine.python(), "-m", "app.runtimes.build.build", "--background", "--model", manifest.key]


class Builder:
    """Builds each model once that has no report for this machine, one at a time."""

    def __init__(
        self,
        state_dir: Path,
        held: Callable[[], Sequence[Manifest]],
        reload: Callable[[Manifest], Any],
        command: Command = command,
        processor: Callable[[], str] = builds.processor,
    ) -> None:
        """``held``: the models that are loaded now. ``reload``: load one again beside itself and swap it in.

        ``processor``: what reports call the device that computes here.
        """
        self._state_dir = state_dir
        self._held = held
        self._reload = reload
        self._command = command
        self._processor = processor
        self._tried: set[str] = set()
        self._is_stopped = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="builder", daemon=True)

    def start(self) -> None:
        """Begin to look for models to build."""
        self._thread.start()

    def stop(self) -> None:
        """End a build that runs; it begins anew at the next start."""
        self._is_stopped.set()
        with self._lock:
            child = self._child
        if child is None:
            return
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()

    def build_missing(self) -> None:
        """Build and swap in what is loaded and has no report for this machine; each digest is tried once."""
        for manifest in self._held():
            if self._is_stopped.is_set():
                return
            if manifest.digest in self._tried:
                continue
            self._tried.add(manifest.digest)
            if self._report(manifest) is None and self._build(manifest):
                self._swap(manifest)

    def _report(self, manifest: Manifest) -> builds.Report | None:
        return builds.read(self._state_dir, manifest, self._processor())

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            try:
                self.build_missing()
            except Exception:
                log.exception("background build failed; serving continues")
            self._is_stopped.wait(PERIOD_SECONDS)

    def _build(self, manifest: Manifest) -> bool:
        """Whether there is a report now. What the child says is logged."""
        with self._lock:
            if self._is_stopped.is_set():
                return False
            child = self._child = subprocess.Popen(
                self._command(manifest),
                cwd=ROOT,
                # The child ends when this pipe closes, however this process ends.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        log.info("building %s in the background, process %d; the current form keeps serving", manifest.key, child.pid)
        with contextlib.ExitStack() as files:
            for file in filter(None, (child.stdin, child.stdout)):
                files.enter_context(file)
            for line in child.stdout or ():
                log.info("build of %s: %s", manifest.key, line.rstrip())
            code = child.wait()
        if code and not self._is_stopped.is_set():
            log.warning("building %s failed with status %d; the current form keeps serving", manifest.key, code)
        return code == 0

    def _swap(self, manifest: Manifest) -> None:
        """Let the engine load what was built; later, when an operator changes versions just now."""
        report = self._report(manifest)
        while report is not None and manifest in self._held() and not self._is_stopped.is_set():
            try:
                self._reload(manifest)
            except ChangeRefusedError as error:
                log.info("the build of %s will be swapped in later: %s", manifest.key, error.message)
                self._is_stopped.wait(PERIOD_SECONDS)
            except CaskError as error:
                log.warning("the build of %s is not swapped in: %s %s", manifest.key, error.message, error.hint)
                return
            else:
                log.info("%s keeps its build; the fastest accurate runtime is %s", manifest.key, report.chosen.name)
                return
