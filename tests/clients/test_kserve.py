"""KServe's own client does what it can do, where tokens are asked for."""

from __future__ import annotations

from pathlib import Path

from tests.clients import programs
from tests.servers import Server


def test_ten_calls_are_answered(guarded: Server, sample_path: Path) -> None:
    python = programs.python_folder() / "python"

    done = programs.run([python, "tests/clients/kserve_calls.py", guarded.url, sample_path], CASK_TOKEN=guarded.token)

    print(done.stdout)
    assert done.stdout.splitlines() == [f"{number} True" for number in range(1, 11)], done.stderr[-3000:]
