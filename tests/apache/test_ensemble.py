"""POST /v1/ensemble over two real services: asked at the same time, named when away, never in a circle."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Answer, Server

JPEG = {"Content-Type": "image/jpeg"}
HELD_SECONDS = 1.0


@pytest.fixture(scope="module")
def other(served: Server) -> Server:
    """Another service of the same API. Its engine is held for a second or two at most, which no later test can tell."""
    return served


@pytest.fixture(scope="module")
def server(other: Server) -> Iterator[Server]:
    """One that knows the other by three names, and a fourth that is nobody's."""
    upstreams = f"a={other.url},b={other.url},c={other.url},gone=http://127.0.0.1:{servers.free_port()}"
    with servers.running("test", ENSEMBLE_UPSTREAMS=upstreams) as running:
        yield running


@pytest.fixture
def image(sample_path: Path) -> bytes:
    return sample_path.read_bytes()


def ask(server: Server, image: bytes, members: str, **headers: str) -> Answer:
    return server.ask(f"/v1/ensemble?task=classify&members={members}", image, {**JPEG, **headers})


def test_another_service_and_a_model_answer_as_one(server: Server, image: bytes) -> None:
    alone = server.ask("/v1/classify", image, JPEG).json["results"][0]["predictions"]
    answer = ask(server, image, "site-safety-classifier,a,gone")
    best = answer.json["results"][0]["predictions"][0]

    assert answer.status == 200, answer.body
    assert [each["name"] for each in answer.json["members"]] == ["site-safety-classifier", "a"]
    assert [each["name"] for each in answer.json["missing"]] == ["gone"]
    # Both have the same model, so their mean is what it says alone.
    assert best == {"label": alone[0]["label"], "score": pytest.approx(alone[0]["score"], abs=2e-5)}


def test_request_has_one_id_in_both_logs(server: Server, other: Server, image: bytes) -> None:
    ask(server, image, "a", **{"X-Request-Id": "ensemble-12345"})

    servers.wait_until(lambda: "ensemble-12345" in other.log(), 30, "the id in the other's log")
    servers.wait_until(lambda: "ensemble-12345" in server.log(), 30, "the id in our log")


def test_time_is_that_of_the_slowest_and_not_the_sum(server: Server, other: Server, image: bytes) -> None:
    """The other's engine is held, so all three questions wait for it at the same time."""
    engine = other.engine_pid()
    ask(server, image, "a,b,c")
    os.kill(engine, signal.SIGSTOP)
    release = threading.Timer(HELD_SECONDS, os.kill, (engine, signal.SIGCONT))
    release.start()
    try:
        began = time.monotonic()
        answer = ask(server, image, "a,b,c")
        took = time.monotonic() - began
    finally:
        release.join()
    each_took = [row["milliseconds"] / 1000 for row in answer.json["members"]]
    print(f"members {each_took}, sum {sum(each_took):.2f} s, all together {took:.2f} s")

    assert len(each_took) == 3
    assert min(each_took) > 0.9 * HELD_SECONDS
    # By its own account each waited for as long as the engine was held; one after another only the first would have.
    assert took < sum(each_took) / 2


def test_service_that_hangs_is_left_after_its_time(server: Server, other: Server, image: bytes) -> None:
    engine = other.engine_pid()
    os.kill(engine, signal.SIGSTOP)
    try:
        answer = ask(server, image, "site-safety-classifier,a&member_timeout=2")
        nobody = ask(server, image, "a&member_timeout=2")
    finally:
        servers.resume(engine)

    assert [each["name"] for each in answer.json["members"]] == ["site-safety-classifier"]
    assert [(each["name"], each["code"]) for each in answer.json["missing"]] == [("a", "deadline_exceeded")]
    assert nobody.status == 504


def test_circle_is_refused(server: Server, image: bytes) -> None:
    answer = ask(server, image, "a", **{"X-Ensemble-Hop": "1"})

    assert (answer.status, answer.json["code"]) == (508, "ensemble_loop")
