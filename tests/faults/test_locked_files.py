"""Another program holds a file of the state, as a backup or a person with the program sqlite3 does."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Answer, Server

JPEG = {"Content-Type": "image/jpeg"}
# 0.3 s by the service itself; the rest is what a machine that runs other tests too may add. By its own default SQLite
# would wait for 5 s.
SECONDS = 4.5


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A service that asks for tokens, counts requests and takes jobs."""
    with servers.running(
        "test", AUTHENTICATION="required", RATE_LIMIT_PER_ADDRESS="1900/minute", CACHE="disk"
    ) as running:
        yield running


@contextlib.contextmanager
def held(path: Path, *statements: str) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
        for statement in (*statements, "BEGIN EXCLUSIVE"):
            other.execute(statement)
        yield


def timed(server: Server, path: str, image: bytes | None = None) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = server.ask(path, image, JPEG if image else {})
    return answer, time.monotonic() - began


def test_locked_jobs_are_refused_in_a_moment_and_predictions_go_on(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    job = server.ask("/v1/jobs", image, JPEG).json["id"]

    with held(server.state_dir / "jobs" / "jobs.sqlite3"):
        refused, seconds = timed(server, "/v1/jobs", image)
        found, _ = timed(server, f"/v1/jobs/{job}")
        predicted, _ = timed(server, "/v1/detect", image)

    assert (refused.status, refused.json["code"]) == (503, "state_unusable"), refused.body
    assert "locked by another program" in refused.json["detail"]
    assert refused.headers["Retry-After"]
    assert seconds < SECONDS
    assert (found.status, predicted.status) == (200, 200)
    assert server.ask("/v1/jobs", image, JPEG).status == 202
    servers.wait_until(lambda: server.ask(f"/v1/jobs/{job}").json["state"] == "succeeded", 60, "the job")


@pytest.mark.parametrize("name", ["tokens", "limits", "cache/answers"])
def test_other_locked_files_hold_up_no_prediction(server: Server, sample_path: Path, name: str) -> None:
    image = sample_path.read_bytes()
    assert server.ask("/v1/detect", image, JPEG).status == 200

    with held(server.state_dir / f"{name}.sqlite3"):
        writing = [timed(server, "/v1/detect", image + bytes([number])) for number in range(5)]

    assert [answer.status for answer, _ in writing] == [200] * 5
    assert max(seconds for _, seconds in writing) < SECONDS
