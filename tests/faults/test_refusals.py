"""More requests than can be answered: Apache refuses them by itself, in the app's words, and lets them in again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.web.middleware import admission
from app.web.middleware.admission_controller import Refusal
from tests import servers
from tests.apache.test_metrics import grown, shown, shown_when
from tests.servers import Answer, Server

JPEG = {"Content-Type": "image/jpeg"}
CALLERS = 12
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module", params=["off", "disk"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server on which nobody waits for long, without kept answers and with. What the tests stop is no hang to it, and
    passes no deadline, however slow this machine. The shortest wait there is: however quick, what the callers ask for
    takes longer.
    """
    patient = {"ENGINE_HANG_SECONDS": "600", "REQUEST_TIMEOUT_SECONDS": "120"}
    with servers.running("test", REQUEST_MAX_WAIT_SECONDS="0.01", CACHE=request.param, **patient) as running:
        yield running


def has_cache(server: Server) -> bool:
    """Whether this one keeps answers."""
    return (server.state_dir / "cache" / "answers.sqlite3").exists()


def classify(server: Server, image: bytes, **headers: str) -> Answer:
    return server.ask("/v1/classify", image, {**JPEG, **headers})


def longer(image: bytes, by: int) -> bytes:
    """The same picture in bytes of a length of its own: whatever follows the end of a JPEG is no part of it."""
    return image + bytes(by)


def test_apache_refuses_whom_the_app_would_refuse_and_lets_in_again(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    answers: list[Answer] = []
    # Until the app has seen an answer it does not know what a request costs, and refuses nobody.
    assert classify(server, image).status == 200
    if has_cache(server):
        servers.wait_until(lambda: classify(server, image).headers["X-Cache"] == "hit", 30, "the answer to be kept")
    new, numbers, over = longer(image, 10_000), itertools.count(1), threading.Event()
    engine, web = server.engine_pid(), server.pids("web")[0]

    def ask_on() -> None:
        while not over.is_set():
            answers.append(classify(server, longer(image, next(numbers))))

    callers = [threading.Thread(target=ask_on) for _ in range(CALLERS)]

    servers.suspend(engine)
    for caller in callers:
        caller.start()
    servers.wait_until(lambda: any(each.status == 503 for each in answers), PATIENCE_SECONDS, "a refusal")
    # Of the crowd, who has a kept answer is given it.
    kept = [classify(server, image) for _ in range(10)] if has_cache(server) else []
    servers.suspend(web)
    # Whoever answers now, it is not Python. Those who find a place stay in it: there will be none.
    known = len(answers)
    servers.wait_until(lambda: len(answers) > known + 2 * CALLERS, PATIENCE_SECONDS, "refusals by Apache")
    over.set()
    refused = classify(server, new)
    named = classify(server, new, **{"X-Request-Id": "from-the-caller"})
    anew = classify(server, image, **{"Cache-Control": "no-cache"})
    others = [server.ask(path, new, JPEG) for path in ("/v1/detect", "/predict", "/v2/models/any/infer")]
    alive = server.ask("/livez")
    servers.resume(web)
    servers.resume(engine)
    for caller in callers:
        caller.join(PATIENCE_SECONDS)

    assert [(each.status, each.headers["X-Cache"]) for each in kept] == [(200, "hit")] * len(kept)
    assert (refused.status, refused.json["code"]) == (503, "engine_busy")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Retry-After"] == "1"
    assert {**refused.json, "request_id": ""} == admission.refusal(Refusal("slow", 1)).to_problem("")
    assert refused.json["request_id"] == refused.headers["X-Request-Id"]
    assert named.json["request_id"] == named.headers["X-Request-Id"] == "from-the-caller"
    assert anew.status == 503
    assert [(each.status, each.json["code"]) for each in others] == [(503, "engine_busy")] * 3
    assert alive.status == 200
    assert {each.status for each in answers} == {200, 503}
    assert len(answers) >= CALLERS
    assert classify(server, image).status == 200


@pytest.mark.parametrize("server", ["off"], indirect=True)
def test_refusals_by_apache_on_the_apps_word_are_counted(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    assert classify(server, image).status == 200
    engine = server.engine_pid()
    servers.suspend(engine)
    callers = [threading.Thread(target=classify, args=(server, image)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    # Those who found a place stay in it, as long as the engine stands still.
    servers.wait_until(lambda: sum(not each.is_alive() for each in callers) > 0, PATIENCE_SECONDS, "a refusal")
    before = shown(server)
    statuses = [classify(server, image).status for _ in range(20)]
    total = "cask_http_requests_total"
    by_apache = {"route": "/v1/classify", "status": "503", "by": "apache"}
    after = shown_when(server, lambda now: grown(before, now, total, **by_apache) >= 20)
    servers.resume(engine)
    for caller in callers:
        caller.join(PATIENCE_SECONDS)

    assert statuses == [503] * 20
    assert grown(before, after, "cask_refused_total", code="engine_busy", by="apache") == 20
    assert grown(before, after, total, **by_apache) == 20
