"""A hung engine, slow uploads, a dripping receiver, answers of many boxes: one's trouble is not the others'."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import bad_input, servers, stores
from tests.attacks.attack import attack
from tests.servers import Server, wait_until

JPEG = {"Content-Type": "image/jpeg"}
SECONDS = 8.0
CHANCE = random.SystemRandom()
BROKEN = "zz-broken"
MEMBERS, BOXES = ("first", "second", "third"), 1000
# Fifteen are promised; a machine that runs other tests too may add to it.
ENDED_SECONDS = 15.0 + 5.0
# A job of one image takes a second or less; one that waits for another's trouble waits a pause of 30 s.
JOB_SECONDS = 20.0
# All callers together have 7 to 27 done within ``SECONDS``, by how busy the machine is besides.
LEAST_JOBS = 4


@contextmanager
def dripping() -> Iterator[int]:
    """The port of a receiver that sends a byte now and then, for ever."""
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not over.wait(0.5):
                connection.sendall(b"x")

    def take(listener: socket.socket) -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(0.2)
        thread = threading.Thread(target=take, args=(listener,))
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            over.set()
            thread.join()


class ManyBoxes(BaseHTTPRequestHandler):
    """Another service that finds a thousand objects, all of which overlap, in whatever it is sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Others each time, so that three answers have nothing in common."""
        self.rfile.read(int(self.headers["Content-Length"]))
        rows = [
            {"label": "cone", "score": CHANCE.random(), "box": {"x_min": x, "y_min": x, "x_max": x + 400, "y_max": 400}}
            for x in (CHANCE.uniform(0, 200) for _ in range(BOXES))
        ]
        model = {"name": "many", "version": "1", "digest": "sha256:0"}
        body = json.dumps({"model": model, "results": [{"width": 640, "height": 480, "detections": rows}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Crowded(ThreadingHTTPServer):
    """Lets more wait than five."""

    request_queue_size = 128


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with Crowded(("127.0.0.1", 0), ManyBoxes) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.1,))
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def receiver() -> Iterator[int]:
    with dripping() as port:
        yield port


@pytest.fixture(scope="module")
def server(receiver: int, upstream: str) -> Iterator[Server]:
    """One that tells the dripping receiver of jobs' ends, asks others, and has a model that fails to load."""
    store = servers.make_state_dir()
    hosts, secret = f"127.0.0.1:{receiver}", "a secret of at least 24 characters"
    with servers.running(
        "test",
        wait=False,
        MODELS_DIR=str(with_broken_model(store)),
        JOBS_MAX_QUEUED="1000",
        JOBS_WEBHOOK_HOSTS=hosts,
        JOBS_WEBHOOK_SECRET=secret,
        ENSEMBLE_UPSTREAMS=",".join(f"{name}={upstream}" for name in MEMBERS),
        REQUEST_MAX_WAIT_SECONDS="5",
    ) as running:
        # Never ready: one of its models is missing. All others answer.
        wait_until(lambda: f"{BROKEN}@1 cannot be served" in running.log(), 60, "the broken model to fail")
        yield running
    shutil.rmtree(store)


def with_broken_model(folder: Path) -> Path:
    """The models of the demonstration, and one whose weights have a flipped bit."""
    store = stores.make(folder, *sorted(each.name for each in (servers.ROOT / "models").iterdir() if "-" in each.name))
    shutil.copytree(store / stores.CLASSIFIER, store / BROKEN)
    (manifest,) = (store / BROKEN).glob("1/*.toml")
    manifest.write_text(manifest.read_text().replace(f'"{stores.CLASSIFIER}"', f'"{BROKEN}"'))
    (weights,) = (store / BROKEN).glob("1/weights.safetensors")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    return store


def make_jobs(server: Server, image: bytes, until: float) -> Counter[str]:
    """One caller who leaves one image after the other, and waits for each of the jobs.

    Raises TimeoutError when one of them takes longer than ``JOB_SECONDS``.
    """
    seen = Counter[str]()
    while time.monotonic() < until:
        answer = server.ask("/v1/jobs", image, JPEG)
        seen[f"{answer.status} {answer.json.get('code', '')}".strip()] += 1
        if answer.status == 202:
            path = answer.headers["Location"]
            done = lambda path=path: server.ask(path).json["state"] == "succeeded"  # noqa: E731
            wait_until(done, JOB_SECONDS, f"{path}, a job beside the attack")
    return seen


def require_jobs(made: list[Counter[str]]) -> None:
    """Raises AssertionError when one of the callers was refused, or nearly nothing was done."""
    assert {status for each in made for status in each} == {"202"}, made
    assert sum(each["202"] for each in made) >= LEAST_JOBS, made


def test_slow_uploads_of_jobs_take_no_place_of_others(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 1000000\r\n\r\n"
    lines = [socket.create_connection(("127.0.0.1", server.port), 5, (f"127.0.2.{n + 1}", 0)) for n in range(20)]
    try:
        with attack("20 slow uploads of jobs", server) as running, ThreadPoolExecutor(4) as pool:
            for line in lines:
                line.sendall(head)
            until = time.monotonic() + SECONDS
            makers = [pool.submit(make_jobs, server, image, until) for _ in range(4)]
            while time.monotonic() < until:
                for line in lines:
                    with suppress(OSError):
                        line.send(b"x" * 300)
                threading.Event().wait(0.5)
            made = [each.result() for each in makers]
    finally:
        for line in lines:
            line.close()

    running.figures.require()
    require_jobs(made)


def test_a_receiver_that_drips_holds_up_nobody(server: Server, sample_path: Path, receiver: int) -> None:
    image = sample_path.read_bytes()
    body, content_type = bad_input.multipart(image, webhook_url=f"http://127.0.0.1:{receiver}/hook")
    with attack("12 webhooks that drip", server) as running, ThreadPoolExecutor(2) as pool:
        for _ in range(12):
            assert server.ask("/v1/jobs", body, {"Content-Type": content_type}).status == 202
        until = time.monotonic() + SECONDS
        made = list(pool.map(lambda _: make_jobs(server, image, until), range(2)))

    running.figures.require()
    require_jobs(made)


def test_jobs_of_a_model_that_failed_to_load_hold_up_no_others(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    body, content_type = bad_input.multipart(*[image] * 5, task="classify", model=BROKEN)
    with attack("20 jobs of a broken model", server) as running, ThreadPoolExecutor(2) as pool:
        left = Counter(server.ask("/v1/jobs", body, {"Content-Type": content_type}).status for _ in range(20))
        until = time.monotonic() + SECONDS
        made = list(pool.map(lambda _: make_jobs(server, image, until), range(2)))

    running.figures.require()
    assert left == {202: 20}
    require_jobs(made)


def test_answers_of_many_boxes_are_merged_without_holding_up_others(server: Server, sample_path: Path) -> None:
    image, seen = sample_path.read_bytes(), Counter[int]()

    def ask_on(number: int) -> None:
        path = f"/v1/ensemble?task=detect&members={','.join(MEMBERS)}&max_results={BOXES}"
        while time.monotonic() < until:
            seen[server.ask(path, image + b"%d" % number, JPEG).status] += 1

    with attack("ensembles of 3 000 boxes", server) as running, ThreadPoolExecutor(4) as pool:
        until = time.monotonic() + SECONDS
        for each in [pool.submit(ask_on, number) for number in range(4)]:
            each.result()

    running.figures.require()
    assert seen[200], seen
    assert set(seen) <= {200, 503, 504}, seen


def test_a_hung_engine_is_replaced_while_everything_else_answers(server: Server, sample_path: Path) -> None:
    """What is predicted in the meantime is lost by nature; the rest, and the time after it, is not."""
    image, victim = sample_path.read_bytes(), server.engine_pid()
    with attack("hung engine, 40 callers", server) as running, ThreadPoolExecutor(40) as pool:
        os.kill(victim, signal.SIGSTOP)
        asked = [pool.submit(server.ask, "/v1/detect", image + b"%d" % n, JPEG, 60) for n in range(40)]
        wait_until(lambda: not Path(f"/proc/{victim}").exists(), ENDED_SECONDS, "the engine's end")
        statuses = Counter(each.result().status for each in asked)

    assert set(statuses) <= {200, 503, 504}, statuses
    assert running.figures.live == 1.0, running.figures
