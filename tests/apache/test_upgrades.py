"""What an earlier release left in STATE_DIR when its power was cut is taken over: tokens, ended and waiting jobs.

``python -m tests.record_state`` made the states, from the releases themselves.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.storage import state_schema
from tests import servers
from tests.record_state import FACTS
from tests.servers import Server

STATES = sorted((Path(__file__).parent / "states").glob("*.tar.gz"))
MOMENTS = ("created_at", "started_at", "ended_at")


@pytest.fixture(scope="module", params=STATES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def upgraded(request: pytest.FixtureRequest) -> Iterator[tuple[Server, dict[str, Any]]]:
    """The service of today with the state of a release, and what that release knew."""
    state_dir = servers.make_state_dir()
    with tarfile.open(request.param) as archive:
        archive.extractall(state_dir)  # noqa: S202 - made by ourselves
    facts = json.loads((state_dir / FACTS).read_text())
    (state_dir / FACTS).unlink()
    _make_recent(state_dir / "jobs" / "jobs.sqlite3")
    if user := servers.service_user():
        for path in (state_dir, *state_dir.rglob("*")):
            shutil.chown(path, user)
    with servers.start(
        "prod", servers.free_port(), state_dir, MODEL_BUILD="off", SECRET_KEY=secrets.token_hex(32)
    ) as server:
        server.token = facts["token"]
        servers.wait_ready(server)
        yield server, facts
    shutil.rmtree(state_dir, ignore_errors=True)


def _make_recent(jobs: Path) -> None:
    """Jobs are kept for some time only: move theirs as if the release had been stopped just now."""
    with contextlib.closing(sqlite3.connect(jobs)) as connection, connection:
        (newest,) = connection.execute("SELECT max(created_at) FROM jobs").fetchone()
        moved = ", ".join(f"{name} = {name} + {time.time() - newest}" for name in MOMENTS)
        connection.execute(f"UPDATE jobs SET {moved}")  # noqa: S608 - names and a number of ours


def test_tokens_are_taken_as_before(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, facts = upgraded

    statuses = [replace(server, token=facts[name]).ask("/v1/models").status for name in ("token", "revoked")]

    assert statuses == [200, 401]


def test_ended_job_answers_as_before(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, facts = upgraded

    lines = server.ask(f"/v1/jobs/{facts['finished']}/results").body.decode().splitlines()

    assert [json.loads(line) for line in lines] == facts["results"]


def test_waiting_job_is_finished(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, facts = upgraded

    job = f"/v1/jobs/{facts['waiting']}"
    servers.wait_until(lambda: server.ask(job).json["state"] == "succeeded", 60, "the job that the release began")

    assert len(server.ask(f"{job}/results").body.splitlines()) == 3


def test_state_was_saved_before(upgraded: tuple[Server, dict[str, Any]]) -> None:
    server, _ = upgraded

    (saved,) = state_schema.backups(server.state_dir)

    assert saved.stat().st_size > 0
