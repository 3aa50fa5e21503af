"""POST /v1/ensemble over two real services: asked at the same time, named when away, never in a circle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Answer, Server

JPEG = {"Content-Type": "image/jpeg"}


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


def test_all_are_asked_at_the_same_time(server: Server, other: Server, image: bytes) -> None:
    """The other's engine is held, so one that is asked after another would not be there."""
    with ThreadPoolExecutor() as pool:
        with held(other):
            waiting = pool.submit(ask, server, image, "a,b,c")
            servers.wait_until(lambda: other.in_flight() >= 3, 30, "three questions at once")
        answer = waiting.result()

    assert [row["name"] for row in answer.json["members"]] == ["a", "b", "c"]


def test_service_that_hangs_is_left_after_its_time(server: Server, other: Server, image: bytes) -> None:
    with held(other):
        answer = ask(server, image, "site-safety-classifier,a&member_timeout=2")
    with held(other):
        nobody = ask(server, image, "a&member_timeout=2")

    assert [each["name"] for each in answer.json["members"]] == ["site-safety-classifier"]
    assert [(each["name"], each["code"]) for each in answer.json["missing"]] == [("a", "deadline_exceeded")]
    assert nobody.status == 504


@contextlib.contextmanager
def held(server: Server) -> Iterator[None]:
    """Its engine stands still, and is seen to go on at the end: its watchdog counts for how long it does not."""
    engine = server.engine_pid()
    servers.suspend(engine)
    try:
        yield
    finally:
        servers.resume(engine)
        servers.wait_until(server.is_ready, 30, "the engine to be seen again")


def test_circle_is_refused(server: Server, image: bytes) -> None:
    answer = ask(server, image, "a", **{"X-Ensemble-Hop": "1"})

    assert (answer.status, answer.json["code"]) == (508, "ensemble_loop")
