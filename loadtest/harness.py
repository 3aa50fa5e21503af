"""For self-test and tests: a faulty server as a process of its own, and runs of the tool as a person makes them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.pictures import ROOT


@dataclass(frozen=True)
class FaultyServer:
    """A faulty server that listens."""

    url: str
    pid: int


@contextlib.contextmanager
def faulty_server(**faults: object) -> Iterator[FaultyServer]:
    """Serve with these faults (see faulty_server.Faults) until the block ends. Raises OSError."""
    command = [sys.executable, "-m", "loadtest.faulty_server"]
    for name, value in faults.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise OSError(f"the faulty server did not start; it ended with {process.wait()}")
        yield FaultyServer(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@dataclass(frozen=True)
class Ran:
    """One run of the tool: its exit status, its verdict's figures, and what it printed."""

    status: int
    table: dict[str, Any]
    printed: str

    @property
    def figures(self) -> dict[str, Any]:
        """The verdict's figures; empty when there was no verdict."""
        return dict(self.table.get("figures", {}))


def run(url: str, *options: str, env: str = "test", folder: Path | None = None, **settings: str) -> Ran:
    """Run the tool as a person would, against an address that is allowed for this run."""
    with tempfile.TemporaryDirectory(prefix="cask-loadtest-") as scratch:
        kept = folder or Path(scratch) / "run"
        mix = () if "--scenario" in options else ("--mix", "classify")
        done = command("run", *mix, "--folder", str(kept), *options, url=url, env=env, **settings)
        path = kept / "verdict.json"
        table = json.loads(path.read_text()) if path.exists() else {}
        return Ran(done.returncode, table, done.stdout + done.stderr)


def command(*words: str, url: str, env: str = "test", **settings: str) -> subprocess.CompletedProcess[str]:
    """One command of the tool, with nothing of this process's settings; ended with this one."""
    with begin(*words, url=url, env=env, **settings) as process:
        try:
            printed, complained = process.communicate()
        except BaseException:
            # So that it stops its load, too.
            process.terminate()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, printed, complained)


def begin(*words: str, url: str, env: str = "test", **settings: str) -> subprocess.Popen[str]:
    """Start one command of the tool, and do not wait for its end."""
    environ = {"PATH": os.environ["PATH"], "ENV": env, "LOADTEST_HOST": url, **settings}
    command = [sys.executable, "-m", "loadtest", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    )


def arrived_at(url: str) -> int:
    """How many requests a faulty server has had, before this one."""
    return told(url)["arrived"] - 1


def told(url: str) -> dict[str, int]:
    """What a faulty server counted: ``arrived``, ``planted``."""
    with urllib.request.urlopen(f"{url}/arrived") as answer:
        return dict(json.load(answer))
