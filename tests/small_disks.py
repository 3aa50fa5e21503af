"""File systems of little room for tests: a tmpfs that can be filled up and be given back."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers

FILLER = "filler"


@contextlib.contextmanager
def mounted(size_bytes: int, mode: str) -> Iterator[Path]:
    """A folder of its own with so much room; the test is left out, with the reason, where none can be made."""
    path = servers.make_state_dir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode={mode}", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
        path.rmdir()


def fill(folder: Path) -> None:
    """Until not a byte more fits."""
    with (folder / FILLER).open("ab", buffering=0) as file:
        for piece in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * piece)
            except OSError:
                continue


def clear(folder: Path) -> None:
    """Take back what ``fill`` took."""
    (folder / FILLER).unlink()
