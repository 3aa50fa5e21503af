"""A door to the process in which candidates are tried. One that crashes or hangs takes only itself down."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.config import ROOT
from app.host.machine import CPU
from app.models.builds import Candidate
from app.models.manifests import Manifest

READ_BYTES = 1 << 20
# Processes that run, each the leader of its group.
_running: set[int] = set()


class TrialError(Exception):
    """A candidate failed, crashed, or took too long; the message says which."""


class Trial:
    """One process with candidates of one model. Ends with its parent, whose pipe it reads."""

    def __init__(self, manifest: Manifest, limit_seconds: float, device: str = CPU) -> None:
        self._limit_seconds = limit_seconds
        self._said = b""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app.runtimes.build.trial_process", str(manifest.directory), device],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Compilers that it started end with it.
            process_group=0,
        )
        _running.add(self._process.pid)

    @property
    def pid(self) -> int:
        """The process; it leads a group of its own."""
        return self._process.pid

    def ask(self, do: str, candidate: Candidate, **words: Any) -> Any:
        """One step of a trial, see ``trial_process.Bench``. Raises TrialError; after a crash each time."""
        task = {"do": do, "candidate": asdict(candidate), "with": words}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise TrialError(f"its process is gone{self._how()}") from None
        said = json.loads(self._read_line())
        if "error" in said:
            raise TrialError(str(said["error"]))
        return said["answer"]

    def close(self) -> None:
        """End the process and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        _running.discard(self._process.pid)
        for file in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):
                if file is not None:
                    file.close()

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        until = time.monotonic() + self._limit_seconds
        # Not select(), which knows the first 1024 descriptors of a process alone.
        readable = select.poll()
        readable.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._said:
            if not readable.poll(1000 * max(0.0, until - time.monotonic())):
                self.close()
                raise TrialError(f"it took longer than {self._limit_seconds:g} s")
            more = os.read(self._process.stdout.fileno(), READ_BYTES)
            if not more:
                raise TrialError(f"its process ended{self._how()}")
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _how(self) -> str:
        """How the process ended: by which signal, or with which last words."""
        code = self._process.wait()
        if code < 0:
            return f" by {signal.Signals(-code).name}"
        if self._log.closed:
            return ""
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        return f": {words[-1]}" if words else f" with status {code}"


def end_all() -> None:
    """End every process of this one, with whatever it started, for one that is about to end itself."""
    for pid in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


class Trials:
    """The processes of one build. Close it, or use it as a context."""

    def __init__(self, manifest: Manifest, limit_seconds: float, device: str = CPU) -> None:
        self._manifest = manifest
        self._limit_seconds = limit_seconds
        self._device = device
        self._trials: dict[str, Trial] = {}

    def of(self, candidate: Candidate) -> Trial:
        """The process of a candidate; torch's forms of one precision share one, so that torch is in memory once."""
        place = f"torch {candidate.precision}" if candidate.runtime.startswith("torch") else candidate.name
        if place not in self._trials:
            self._trials[place] = Trial(self._manifest, self._limit_seconds, self._device)
        return self._trials[place]

    def once(self, do: str, candidate: Candidate, **words: Any) -> Any:
        """One step in a process that ends with it: tools take memory that trying does not need. Raises TrialError."""
        trial = Trial(self._manifest, self._limit_seconds, self._device)
        try:
            return trial.ask(do, candidate, **words)
        finally:
            trial.close()

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        for trial in self._trials.values():
            trial.close()


def work_folder(place: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for files that are being made, on the same disk as the place they will go to."""
    place.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=place, prefix=".new-")
