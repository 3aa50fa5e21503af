"""The jobs' worker is killed in the middle of its work, again and again: every job ends, every image has one result."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.servers import Server

KILLS = 20
JOBS = 5
IMAGES = 60
JOB_SECONDS = 240.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server whose worker may be killed."""
    with servers.running("test", LOG_LEVEL="info") as running:
        yield running


def show(server: Server, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = server.ask(f"/v1/jobs/{job_id}?limit=1000").json
    return found


def done(server: Server, ids: list[str]) -> int:
    return sum(show(server, each)["progress"]["done"] for each in ids)


def worker_pid(server: Server) -> int:
    """The process that holds the worker's lock, as the kernel knows it; 0 while there is none."""
    inode = (server.state_dir / "jobs" / "worker.lock").stat().st_ino
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return next((int(row[4]) for row in rows if row[5].endswith(f":{inode}")), 0)


def test_a_worker_killed_twenty_times_loses_nothing_and_does_nothing_twice(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    ids = [server.make_job(image, IMAGES) for _ in range(JOBS)]
    victims = []

    for _ in range(KILLS):
        before = done(server, ids)
        servers.wait_until(
            lambda before=before: done(server, ids) > before and worker_pid(server), 30, "the worker to go on"
        )
        victims.append(worker_pid(server))
        assert done(server, ids) < JOBS * IMAGES, "all was done before the last kill: use more images"
        os.kill(victims[-1], signal.SIGKILL)
    servers.wait_until(
        lambda: all(show(server, each)["state"] not in ("queued", "running") for each in ids), JOB_SECONDS, "the jobs"
    )

    assert len(set(victims)) == KILLS
    for job_id in ids:
        job = show(server, job_id)
        assert job["state"] == "succeeded"
        assert job["progress"] == {"done": IMAGES, "failed": 0, "total": IMAGES}
        assert [each["number"] for each in job["results"]] == list(range(1, IMAGES + 1))
        assert all("detections" in each for each in job["results"])
        lines = server.ask(f"/v1/jobs/{job_id}/results").body.decode().splitlines()
        assert [json.loads(line) for line in lines] == job["results"]
    assert rows(server) == JOBS * IMAGES
    assert list((server.state_dir / "jobs" / "images").iterdir()) == []


def rows(server: Server) -> int:
    """How many results there are in the file itself."""
    with sqlite3.connect(server.state_dir / "jobs" / "jobs.sqlite3") as connection:
        return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])
