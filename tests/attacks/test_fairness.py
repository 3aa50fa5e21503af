"""Batches, kept answers, and other services that are away, all at once: who could be answered in time is."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import bad_input, servers
from tests.attacks.attack import LEAST_REQUESTS, attack
from tests.attacks.honest import read_samples
from tests.servers import Answer, Server, wait_until

JPEG = {"Content-Type": "image/jpeg"}
BATCHES, IMAGES = 30, 32
CONNECTIONS, SECONDS = 16, 8.0
ENSEMBLES = 24
STEADY = 12


@contextmanager
def black_hole() -> Iterator[str]:
    """Takes connections and says nothing; the kernel does so by itself."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def always_busy() -> Iterator[str]:
    """Answers 503 to everybody, for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.settimeout(0.1)
        over = threading.Event()

        def refuse() -> None:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(1)
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module", params=["8", "0"], ids=["8 threads", "threads by size"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A service with a cache and three other services: a black hole, one that is always busy, and nobody."""
    with ExitStack() as stack:
        nobody = f"http://127.0.0.1:{servers.free_port()}"
        upstreams = f"hole={stack.enter_context(black_hole())},busy={stack.enter_context(always_busy())},gone={nobody}"
        yield stack.enter_context(
            servers.running(
                "test",
                CACHE="disk",
                WEB_THREADS=request.param,
                SERVER_MAX_CONNECTIONS="0",
                ENSEMBLE_UPSTREAMS=upstreams,
                ENSEMBLE_TIMEOUT_SECONDS="3",
            )
        )


def batch(server: Server, number: int) -> Answer:
    """Thirty-two pictures that nobody has sent before."""
    (sample,) = [each for each in read_samples() if each.task == "detect"][:1]
    images = [sample.unique(number * IMAGES + each) for each in range(IMAGES)]
    body, content_type = bad_input.multipart(*images)
    return server.ask("/v1/detect", body, {"Content-Type": content_type}, timeout=60)


def ensemble(server: Server, image: bytes, members: str) -> Answer:
    return server.ask(f"/v1/ensemble?task=detect&members={members}", image, JPEG, timeout=30)


def seen(answers: list[Answer]) -> Counter[str]:
    return Counter(f"{each.status} {'' if each.status == 200 else each.json['code']}".strip() for each in answers)


def ask_for(server: Server, image: bytes, seconds: float) -> list[Answer]:
    """One picture over and over, over one connection."""
    answers, end = [], time.monotonic() + seconds
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    while time.monotonic() < end:
        connection.request("POST", "/v1/detect", image, JPEG)
        answer = connection.getresponse()
        answers.append(Answer(answer.status, answer.headers, answer.read()))
    connection.close()
    return answers


def local_model(server: Server) -> str:
    return next(each["name"] for each in server.ask("/v1/models").json["models"] if each["task"] == "detect")


@pytest.mark.parametrize("server", ["0"], ids=["threads by size"], indirect=True)
def test_batches_kept_answers_and_dead_services_at_once(server: Server, sample_path: Path) -> None:
    image, ours = sample_path.read_bytes(), local_model(server)
    is_kept = lambda: server.ask("/v1/detect", image, JPEG).headers["X-Cache"] == "hit"  # noqa: E731
    wait_until(is_kept, 20, "the answer to be kept")

    with attack("batches, kept, dead upstreams", server) as running, ThreadPoolExecutor(128) as pool:
        batches = [pool.submit(batch, server, number) for number in range(BATCHES)]
        dead = [
            pool.submit(ensemble, server, image, members)
            for _ in range(ENSEMBLES // 3)
            for members in (f"{ours},hole", f"{ours},busy", f"{ours},gone")
        ]
        kept = [pool.submit(ask_for, server, image, SECONDS) for _ in range(CONNECTIONS)]
        kept_answers = [answer for each in kept for answer in each.result()]
        batch_answers, ensembles = [each.result() for each in batches], [each.result() for each in dead]

    running.figures.require()
    # What costs nothing is refused to nobody, whatever the same address asks besides.
    assert seen(kept_answers).keys() == {"200"}
    assert len(kept_answers) > 10 * CONNECTIONS
    assert {answer.headers["X-Cache"] for answer in kept_answers} == {"hit"}
    # The member of ours has a kept answer; the others are named as missing.
    assert seen(ensembles) == {"200": len(dead)}
    assert {len(each.json["missing"]) for each in ensembles} == {1}
    # Batches that would wait longer than REQUEST_MAX_WAIT_SECONDS may be refused, and hear why; on a machine that is
    # busy with other things they may also come to the end of their time.
    assert seen(batch_answers).keys() <= {"200", "503 engine_busy", "504 deadline_exceeded"}
    assert {each.json["reason"] for each in batch_answers if each.status == 503} <= {"slow", "slots"}
    assert server.ask("/v1/detect", sample_path.read_bytes() + b"\0", JPEG).status == 200


def test_steady_batches_of_one_address_keep_nobody_from_an_answer(server: Server) -> None:
    def send_on(number: int, end: float) -> list[Answer]:
        answers = []
        while time.monotonic() < end:
            answers.append(batch(server, number + STEADY * len(answers)))
        return answers

    with attack(f"{STEADY} steady callers of batches", server) as running, ThreadPoolExecutor(STEADY) as pool:
        end = time.monotonic() + SECONDS
        answers = [answer for each in [pool.submit(send_on, n, end) for n in range(STEADY)] for answer in each.result()]
        wait_until(lambda: len(running.rows("predict", running.began)) >= LEAST_REQUESTS, 60, "honest callers' answers")

    running.figures.require()
    assert seen(answers).keys() <= {"200", "503 engine_busy", "504 deadline_exceeded"}


@pytest.mark.parametrize("count", [6, 80])
def test_ensembles_that_wait_for_a_black_hole_keep_nobody_waiting(
    server: Server, sample_path: Path, count: int
) -> None:
    image, ours = sample_path.read_bytes(), local_model(server)
    with attack(f"{count} ensembles on a black hole", server) as running, ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(ensemble, server, image, "hole") for _ in range(count)]
        plain = [server.ask("/v1/detect", image + b"%d" % number, JPEG) for number in range(10)]
        alone = [ensemble(server, image, ours) for _ in range(3)]
        answers = [each.result() for each in waiting]
        wait_until(lambda: len(running.rows("predict", running.began)) >= LEAST_REQUESTS, 60, "honest callers' answers")

    running.figures.require()
    assert seen(plain).keys() == {"200"}
    assert seen(alone).keys() == {"200"}
    assert seen(answers).keys() <= {"503 ensemble_unavailable", "504 deadline_exceeded"}
    assert all(each.headers["Retry-After"] for each in answers if each.status == 503)


@pytest.mark.parametrize("count", [8, 16, 64])
def test_lone_caller_of_an_idle_engine_is_never_refused(server: Server, sample_path: Path, count: int) -> None:
    """What anybody tries first: ``ab -c 8``."""
    server.ask("/v1/detect", sample_path.read_bytes(), JPEG)
    with ThreadPoolExecutor(count) as pool:
        answers = [
            answer
            for each in [pool.submit(ask_for, server, sample_path.read_bytes(), 2.0) for _ in range(count)]
            for answer in each.result()
        ]

    assert seen(answers).keys() == {"200"}


def test_small_request_after_a_dear_one_is_answered(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    assert batch(server, 1000).status == 200

    answers = [server.ask("/v1/detect", image + b"%d" % number, JPEG) for number in range(5)]

    assert seen(answers).keys() == {"200"}
