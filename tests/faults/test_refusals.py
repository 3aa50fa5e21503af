"""More requests than can be answered: whom the app refuses, Apache refuses by itself, and lets in again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Answer, Server

JPEG = {"Content-Type": "image/jpeg"}
CALLERS = 12
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server on which nobody waits for long."""
    with servers.running("test", REQUEST_MAX_WAIT_SECONDS="0.02", LOG_LEVEL="info") as running:
        yield running


def classify(server: Server, image: bytes, **headers: str) -> Answer:
    return server.ask("/v1/classify", image, {**JPEG, **headers})


def test_apache_refuses_whom_the_app_would_refuse_and_lets_in_again(server: Server, sample_path: Path) -> None:
    image, notice = sample_path.read_bytes(), server.state_dir / "run" / "refused" / "0" / "127.0.0.1"
    answers: list[Answer] = []
    # Until the app has seen an answer it does not know what a request costs, and refuses nobody.
    assert classify(server, image).status == 200
    engine, web = server.engine_pid(), server.pids("web")[0]
    callers = [threading.Thread(target=lambda: answers.append(classify(server, image))) for _ in range(CALLERS)]

    os.kill(engine, signal.SIGSTOP)
    for caller in callers:
        caller.start()
    servers.wait_until(notice.exists, PATIENCE_SECONDS, "the notice")
    # Whoever answers now, it is not Python.
    os.kill(web, signal.SIGSTOP)
    refused = classify(server, image)
    named = classify(server, image, **{"X-Request-Id": "from-the-caller"})
    others = [server.ask(path, image, JPEG) for path in ("/v1/detect", "/predict", "/v2/models/any/infer")]
    alive = server.ask("/livez")
    servers.resume(web)
    servers.resume(engine)
    for caller in callers:
        caller.join(PATIENCE_SECONDS)
    servers.wait_until(lambda: not notice.exists(), PATIENCE_SECONDS, "the notice to be taken down")

    by_python = next(each for each in answers if each.status == 503)
    assert (refused.status, refused.json["code"]) == (503, "engine_busy")
    assert refused.headers["Content-Type"] == by_python.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Retry-After"] == by_python.headers["Retry-After"] == "1"
    assert {**refused.json, "request_id": ""} == {**by_python.json, "request_id": ""}
    assert refused.json["request_id"] == refused.headers["X-Request-Id"]
    assert named.json["request_id"] == named.headers["X-Request-Id"] == "from-the-caller"
    assert [(each.status, each.json["code"]) for each in others] == [(503, "engine_busy")] * 3
    assert alive.status == 200
    assert {each.status for each in answers} == {200, 503}
    assert len(answers) == CALLERS
    assert classify(server, image).status == 200
