"""Two machines and one Redis: either does the jobs of both; workers are killed, Redis hangs and falls: no loss."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.jobs.redis_link import TIMEOUT_SECONDS, Link
from app.jobs.redis_store import PREFIX
from tests import bad_input, redis_servers, servers
from tests.redis_servers import RedisServer
from tests.servers import Server

KILLS = 20
JOBS = 4
IMAGES = 100
JOB_SECONDS = 240.0
HUNG_SECONDS = 4.0
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that writes down what it has, and may be harmed."""
    with redis_servers.running(0, tmp_path) as server:
        yield server


@pytest.fixture
def machines(redis: RedisServer) -> Iterator[tuple[Server, Server]]:
    """Two services that have nothing in common but Redis."""
    with _machine(redis) as first, _machine(redis) as second:
        yield first, second


@contextlib.contextmanager
def _machine(redis: RedisServer) -> Iterator[Server]:
    with servers.running("test", JOBS_STORE="redis", REDIS_URL=redis.url, CACHE="off", LOG_LEVEL="info") as server:
        yield server


def show(server: Server, job_id: str) -> dict[str, Any]:
    """A job with all of its results."""
    found: dict[str, Any] = server.ask(f"/v1/jobs/{job_id}?limit=1000").json
    return found


def remove(server: Server, job_id: str) -> int:
    """Cancel it; the status of the answer."""
    request = urllib.request.Request(f"{server.url}/v1/jobs/{job_id}", method="DELETE")
    with urllib.request.urlopen(request, timeout=30) as answer:
        status: int = answer.status
        return status


def done(server: Server, ids: list[str]) -> int:
    return sum(show(server, each)["progress"]["done"] for each in ids)


def worker(server: Server) -> int:
    """The process of this machine's worker; 0 while there is none."""
    rows = server.ask("/readyz").json["processes"]
    return next((row["pid"] or 0 for row in rows if row["role"] == "jobs"), 0)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    servers.wait_until(condition, seconds, what)


def check_whole(server: Server, ids: list[str], count: int) -> None:
    """Every job ended well, with one result for each image."""
    for job_id in ids:
        job = show(server, job_id)
        assert job["state"] == "succeeded"
        assert job["progress"] == {"done": count, "failed": 0, "total": count}
        assert [each["number"] for each in job["results"]] == list(range(1, count + 1))
        assert all("detections" in each for each in job["results"])
        lines = server.ask(f"/v1/jobs/{job_id}/results").body.decode().splitlines()
        assert [json.loads(line) for line in lines] == job["results"]


def all_ended(server: Server, ids: list[str]) -> bool:
    return all(show(server, each)["state"] not in ("queued", "running") for each in ids)


def listed(redis: RedisServer) -> list[dict[str, Any]]:
    """What `flask jobs` says on a machine where no service has ever run."""
    state_dir = servers.make_state_dir()
    try:
        environment = servers.environment("test", STATE_DIR=str(state_dir), JOBS_STORE="redis", REDIS_URL=redis.url)
        command = [sys.executable, "-m", "app.cli", "jobs", "list", "--json"]
        done = subprocess.run(command, cwd=servers.ROOT, env=environment, capture_output=True, text=True, check=True)
    finally:
        shutil.rmtree(state_dir)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def keys(redis: RedisServer, kind: str) -> list[bytes]:
    """What Redis holds of one kind."""
    found: list[bytes] = Link(redis.url, "here").ask("KEYS", f"{PREFIX}{kind}:*")
    return found


def test_either_machine_takes_shows_does_and_deletes(
    machines: tuple[Server, Server], redis: RedisServer, sample_path: Path
) -> None:
    first, second = machines
    image = sample_path.read_bytes()
    # The first one's worker stands still: the second does what the first has taken.
    servers.suspend(worker(first))
    try:
        job_id = first.make_job(image, 5)
        wait_for(lambda: all_ended(second, [job_id]), "the other machine to do it")
    finally:
        os.kill(worker(first), signal.SIGCONT)
    check_whole(first, [job_id], 5)
    assert show(first, job_id) == show(second, job_id)
    assert job_id in {each["id"] for each in second.ask("/v1/jobs").json["jobs"]}
    assert second.ask("/status").json["jobs"]["succeeded"] == 1
    assert [row["id"] for row in listed(redis)] == [job_id]

    long_job = first.make_job(image, 200)
    wait_for(lambda: done(first, [long_job]) > 0, "it to begin")
    assert remove(second, long_job) == 204
    assert first.ask(f"/v1/jobs/{long_job}").status == 404
    wait_for(lambda: not keys(redis, "claims"), "what was in hand to be let go")
    assert keys(redis, "images") == []
    assert [key.decode().rpartition(":")[2] for key in keys(redis, "job")] == [job_id]


def test_workers_of_both_killed_again_and_again_lose_nothing_and_do_nothing_twice(
    machines: tuple[Server, Server], redis: RedisServer, sample_path: Path
) -> None:
    image = sample_path.read_bytes()
    ids = [machines[number % 2].make_job(image, IMAGES) for number in range(JOBS)]
    victims: list[int] = []

    for number in range(KILLS):
        server = machines[number % 2]
        before = done(server, ids)
        wait_for(lambda server=server: worker(server) not in (0, *victims), "a new worker")  # type: ignore[misc]
        wait_for(lambda server=server, before=before: done(server, ids) > before, "the work to go on")  # type: ignore[misc]
        victims.append(worker(server))
        assert done(server, ids) < JOBS * IMAGES, "all was done before the last kill: use more images"
        os.kill(victims[-1], signal.SIGKILL)
    wait_for(lambda: all_ended(machines[0], ids), "the jobs", JOB_SECONDS)

    assert len(set(victims)) == KILLS
    check_whole(machines[1], ids, IMAGES)
    assert keys(redis, "images") == keys(redis, "attempts") == keys(redis, "queue") == []


def test_machine_that_is_gone_leaves_its_images_to_the_other(
    machines: tuple[Server, Server], redis: RedisServer, sample_path: Path
) -> None:
    first, second = machines
    with second.paused():
        job_id = first.make_job(sample_path.read_bytes(), 200)
        wait_for(lambda: bool(keys(redis, "claims")), "the first to begin")
    with first.paused():
        was = show(second, job_id)["progress"]["done"]
        wait_for(lambda: all_ended(second, [job_id]), "the other machine to do it", JOB_SECONDS)

    assert was < 200
    wait_for(first.is_ready, "the first to serve again")
    check_whole(second, [job_id], 200)
    wait_for(lambda: not keys(redis, "claims"), "the late one to let go")
    check_whole(first, [job_id], 200)


def test_hung_redis_is_told_of_at_once_and_work_goes_on_by_itself(
    machines: tuple[Server, Server], redis: RedisServer, sample_path: Path
) -> None:
    first, second = machines
    image = sample_path.read_bytes()
    job_id = first.make_job(image, 200)
    wait_for(lambda: done(first, [job_id]) > 0, "it to begin")

    servers.suspend(redis.process.pid)
    try:
        body, content_type = bad_input.multipart(image)
        waits, predictions = [], []
        end = time.monotonic() + HUNG_SECONDS
        while time.monotonic() < end:
            began = time.monotonic()
            refused = first.ask("/v1/jobs", body, {"Content-Type": content_type})
            waits.append(time.monotonic() - began)
            assert (refused.status, refused.json["code"]) == (503, "state_unusable"), refused.body
            assert int(refused.headers["Retry-After"]) > 0
            began = time.monotonic()
            assert first.ask("/v1/detect", image, JPEG).status == 200
            predictions.append(time.monotonic() - began)
        began = time.monotonic()
        assert "cannot be used" in first.ask("/status").json["jobs"]["error"]
        assert first.ask("/metrics").status == first.ask("/readyz").status == 200
        page = first.ask("/jobs", headers={"Accept": "text/html"})
        assert (page.status, page.headers.get_content_type()) == (503, "text/html")
        assert time.monotonic() - began < 4 * (TIMEOUT_SECONDS + 0.5)
    finally:
        os.kill(redis.process.pid, signal.SIGCONT)
    print("hung: a job refused in at most", max(waits), "of", len(waits), "a prediction in at most", max(predictions))

    assert max(waits) < TIMEOUT_SECONDS + 0.5
    wait_for(lambda: all_ended(second, [job_id]), "the job", JOB_SECONDS)
    check_whole(first, [job_id], 200)


def test_redis_that_fell_and_came_back_has_lost_nothing(sample_path: Path, tmp_path: Path) -> None:
    image = sample_path.read_bytes()
    with redis_servers.running(0, tmp_path) as redis, _machine(redis) as first, _machine(redis) as second:
        ids = [machine.make_job(image, IMAGES) for machine in (first, second)]
        wait_for(lambda: done(first, ids) > 0, "the work to begin")
        redis.process.kill()
        redis.process.wait()
        assert first.ask(f"/v1/jobs/{ids[0]}").json["code"] == "state_unusable"
        assert first.ask("/v1/detect", image, JPEG).status == 200
        with redis_servers.running(redis.port, tmp_path):
            wait_for(lambda: first.ask(f"/v1/jobs/{ids[0]}").status == 200, "it to answer again")
            assert done(first, ids) < 2 * IMAGES
            wait_for(lambda: all_ended(second, ids), "the jobs", JOB_SECONDS)
            check_whole(first, ids, IMAGES)
