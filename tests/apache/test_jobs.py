"""Jobs through Apache: several web processes, one worker, a receiver of webhooks, and what operators see."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import bad_input, servers
from tests.servers import Answer, Server

SECRET = "heard by nobody else"  # noqa: S105 - for tests
END_SECONDS = 60.0
# More than are computed before a server that is told so ends.
STOPPED_IMAGES = 16


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what it hears."""

    heard: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    """Host and port of a caller's own server."""
    Receiver.heard = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def server(receiver: str) -> Iterator[Server]:
    """Three web processes, and a worker that may be harmed."""
    settings = {"WEB_PROCESSES": "3", "ENGINE_HANG_SECONDS": "4", "LOG_LEVEL": "info"}
    webhooks = {"JOBS_WEBHOOK_HOSTS": receiver, "JOBS_WEBHOOK_SECRET": SECRET}
    with servers.running("test", **settings, **webhooks) as running:
        yield running


def leave(
    server: Server, image: bytes, count: int = 1, headers: dict[str, str] | None = None, **options: Any
) -> Answer:
    body, content_type = bad_input.multipart(*[image] * count, **options)
    return server.ask("/v1/jobs", body, {"Content-Type": content_type, **(headers or {})})


def wait_for_end(server: Server, where: str) -> dict[str, Any]:
    """For as long as it gets on: on a busy machine many pictures take long."""
    found: dict[str, Any] = server.ask(where).json
    while found["state"] not in ("succeeded", "failed"):
        before = found["state"], found["progress"]

        def gets_on(before: Any = before) -> bool:
            job = server.ask(where).json
            return (job["state"], job["progress"]) != before

        servers.wait_until(gets_on, END_SECONDS, f"the job to get on from {before}")
        found = server.ask(where).json
    return found


def worker(server: Server) -> dict[str, Any]:
    """What /readyz says of the worker."""
    rows = server.ask("/readyz").json["processes"]
    found: dict[str, Any] = next(row for row in rows if row["role"] == "jobs")
    return found


def test_every_web_process_knows_every_job(server: Server, sample_path: Path) -> None:
    ids = {leave(server, sample_path.read_bytes()).json["id"] for _ in range(6)}

    for _ in range(6):
        assert ids <= {job["id"] for job in server.ask("/v1/jobs").json["jobs"]}
    for job_id in ids:
        assert wait_for_end(server, f"/v1/jobs/{job_id}")["state"] == "succeeded"


def test_answer_is_that_of_the_api(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    direct = server.ask("/v1/detect", image, {"Content-Type": "image/jpeg"}).json
    job = wait_for_end(server, leave(server, image, task="detect").headers["Location"])

    result = job["results"][0]
    assert {key: result[key] for key in ("width", "height", "detections")} == direct["results"][0]
    assert result["model"] == direct["model"]


def test_same_key_at_once_is_one_job(server: Server, sample_path: Path) -> None:
    image, answers = sample_path.read_bytes(), list[Answer]()
    callers = [
        threading.Thread(target=lambda: answers.append(leave(server, image, headers={"Idempotency-Key": "at-once"})))
        for _ in range(2)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1


def test_end_is_told_to_the_allowed_host_and_to_no_other(server: Server, sample_path: Path, receiver: str) -> None:
    image = sample_path.read_bytes()
    refused = leave(server, image, webhook_url="http://127.0.0.1:22/")
    where = leave(server, image, webhook_url=f"http://{receiver}/ended").headers["Location"]

    assert (refused.status, refused.json["code"]) == (422, "option_invalid")
    servers.wait_until(
        lambda: server.ask(where).json["webhook"]["state"] == "delivered", END_SECONDS, "the message to be heard"
    )
    assert [each["data"]["id"] for each in Receiver.heard if each["type"] == "job.succeeded"] == [
        where.rpartition("/")[2]
    ]


def test_worker_that_is_stopped_is_ended_and_replaced(server: Server, sample_path: Path) -> None:
    victim = worker(server)["pid"]
    servers.suspend(victim)
    where = leave(server, sample_path.read_bytes()).headers["Location"]

    assert wait_for_end(server, where)["state"] == "succeeded"
    assert worker(server)["pid"] != victim
    assert f"ending the jobs process {victim}: it has given no sign of life for" in server.log()


def test_operators_see_worker_and_jobs(server: Server, sample_path: Path) -> None:
    where = leave(server, sample_path.read_bytes()).headers["Location"]
    wait_for_end(server, where)
    status = server.ask("/status").json
    metrics = server.ask("/metrics").body.decode()
    environment = servers.environment("test", STATE_DIR=str(server.state_dir))
    listed = subprocess.run(
        [sys.executable, "-m", "app.cli", "jobs", "list", "--json"],
        cwd=servers.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert status["jobs"]["state"] == "up"
    assert status["jobs"]["succeeded"] >= 1
    assert [row["role"] for row in status["processes"]].count("jobs") == 1
    assert 'cask_processes{role="jobs"} 1.0' in metrics
    assert 'cask_jobs_total{outcome="succeeded"}' in metrics
    assert where.rpartition("/")[2] in {row["id"] for row in json.loads(listed.stdout)}


# The last: it ends the server of the others.
def test_stop_lets_the_job_wait_and_a_start_goes_on(server: Server, sample_path: Path) -> None:
    where = leave(server, sample_path.read_bytes(), STOPPED_IMAGES).headers["Location"]
    servers.wait_until(lambda: server.ask(where).json["progress"]["done"] > 0, END_SECONDS, "a first result")
    done = server.ask(where).json["progress"]["done"]
    server.stop()
    with servers.start("test", server.port, server.state_dir) as second:
        servers.wait_until(second.is_ready, servers.START_SECONDS, "/readyz")
        assert second.ask(where).json["progress"]["done"] >= done
        job = wait_for_end(second, where)

    assert job["progress"] == {"done": STOPPED_IMAGES, "failed": 0, "total": STOPPED_IMAGES}
