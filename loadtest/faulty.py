"""Start the faulty server as a process of its own, for the self-test and the tests."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from loadtest.pictures import ROOT


@dataclass(frozen=True)
class Running:
    """A faulty server that listens."""

    url: str
    pid: int


@contextlib.contextmanager
def running(**faults: object) -> Iterator[Running]:
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
        yield Running(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
