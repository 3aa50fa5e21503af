"""The jobs' process before there has been a job: what wakes it, and what it does without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ROOT
from app.jobs import folder, waiting
from app.jobs.disk_store import DiskStore
from app.telemetry import shards
from tests.servers import wait_until
from tests.unit.jobs.conftest import add

PATIENCE_SECONDS = 60.0


def test_nothing_is_there_until_a_job_is(disk_store: DiskStore, tmp_path: Path) -> None:
    look = folder.Look(tmp_path)
    assert look.is_empty()

    job = add(disk_store)
    assert not look.is_empty()

    disk_store.remove(job.id)
    assert [look.is_empty() for _ in range(3)] == [True] * 3
    # Asked of the table again once that has changed.
    add(disk_store)
    assert not look.is_empty()


@pytest.mark.parametrize("name", ["incoming/upload", "images/of-no-job", "jobs.sqlite3"])
def test_what_is_to_be_cleared_away_wakes_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / folder.FOLDER / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no table" * 200)

    assert not folder.Look(tmp_path).is_empty()


def test_one_that_takes_the_place_of_another_does_not_wait(tmp_path: Path) -> None:
    (tmp_path / shards.FOLDER).mkdir(parents=True)
    (tmp_path / shards.FOLDER / "jobs-0").touch()

    assert waiting.wait(tmp_path)


@pytest.mark.parametrize("reason", ["upload", "stop"])
def test_it_gives_signs_without_pydantic_and_wakes_or_ends(tmp_path: Path, reason: str) -> None:
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from app.jobs import waiting\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
        "woken = waiting.wait(Path(sys.argv[1]))\n"
        "print(woken, 'pydantic' in sys.modules, 'app.config' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any(sign.beat for sign in shards.signs(tmp_path)), PATIENCE_SECONDS, "a sign of life")
        if reason == "stop":
            os.kill(process.pid, signal.SIGTERM)
        else:
            path = tmp_path / folder.FOLDER / folder.INCOMING / "upload"
            path.parent.mkdir(parents=True)
            path.touch()
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)

    assert output.split() == [str(reason == "upload"), "False", "False"]
