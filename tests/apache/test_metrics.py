"""/metrics through Apache: sums are exact over all processes, also when some of them were killed or replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import servers
from tests.servers import Server

JPEG = {"Content-Type": "image/jpeg"}
PATIENCE_SECONDS = 60.0
Key = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Three web processes and an engine, which may be harmed. Nobody is refused for the others' sake."""
    with servers.running("test", WEB_PROCESSES="3", WEB_THREADS="8", REQUEST_MAX_WAIT_SECONDS="60") as running:
        yield running


def shown(server: Server) -> dict[Key, float]:
    """Everything that /metrics says."""
    answer = server.ask("/metrics")
    assert answer.status == 200, answer.body
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def shown_when(server: Server, holds: Callable[[dict[Key, float]], bool]) -> dict[Key, float]:
    """What /metrics says as soon as this holds: a request is counted when its answer is on its way already."""
    servers.wait_until(lambda: holds(shown(server)), PATIENCE_SECONDS, "all to be counted")
    return shown(server)


def of(found: dict[Key, float], name: str, **labels: str) -> float:
    """The sum of all series of a name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (each, has), value in found.items() if each == name and wanted <= has)


def grown(before: dict[Key, float], after: dict[Key, float], name: str, **labels: str) -> float:
    return of(after, name, **labels) - of(before, name, **labels)


def classify(server: Server, image: bytes) -> int:
    return server.ask("/v1/classify", image, JPEG).status


def send(server: Server, image: bytes, count: int) -> Counter[int]:
    """So many predictions over four connections at once, and the statuses of their answers."""
    with ThreadPoolExecutor(4) as pool:
        return Counter(pool.map(lambda _: classify(server, image), range(count)))


def check_sums(server: Server, before: dict[Key, float], count: int) -> dict[Key, float]:
    """All figures agree with so many answered predictions of one image; what /metrics says."""
    route = {"route": "/v1/classify"}
    after = shown_when(server, lambda now: grown(before, now, "cask_http_request_seconds_count", **route) >= count)
    assert grown(before, after, "cask_http_requests_total", **route, status="200", by="app") == count
    assert grown(before, after, "cask_http_requests_total", **route) == count
    assert grown(before, after, "cask_http_request_seconds_count", **route) == count
    assert grown(before, after, "cask_http_request_seconds_bucket", **route, le="+Inf") == count
    assert grown(before, after, "cask_decode_seconds_count", task="classify") == count
    assert grown(before, after, "cask_predicted_images_total", task="classify") == count
    assert grown(before, after, "cask_engine_images_total", outcome="answered") == count
    assert grown(before, after, "cask_engine_queue_seconds_count") == count
    assert grown(before, after, "cask_engine_batch_images_sum") == count
    assert of(after, "cask_http_requests_in_flight") == 1  # this very question
    return after


def test_four_hundred_requests_are_four_hundred_also_over_processes_that_were_replaced(
    server: Server, sample_path: Path
) -> None:
    image, before = sample_path.read_bytes(), shown(server)
    victims = server.pids("web")
    assert len(victims) == 3

    assert send(server, image, 100) == {200: 100}
    check_sums(server, before, 100)
    end(server, "web", victims[0], signal.SIGTERM)
    assert send(server, image, 100) == {200: 100}
    end(server, "web", victims[1], signal.SIGKILL)
    assert send(server, image, 100) == {200: 100}
    end(server, "engine", server.engine_pid(), signal.SIGKILL)
    assert send(server, image, 100) == {200: 100}

    after = check_sums(server, before, 400)
    restarts = "cask_process_restarts_total"
    assert grown(before, after, restarts, role="web", cause="stopped") == 1
    assert grown(before, after, restarts, role="web", cause="killed") == 1
    assert grown(before, after, restarts, role="engine", cause="killed") == 1
    assert grown(before, after, restarts) == 3
    assert of(after, "cask_processes", role="web") == 3
    assert sorted(path.name for path in (server.state_dir / "run/metrics").iterdir()) == [
        *("engine-0", "jobs-0", "ops-0", "web-0", "web-1", "web-2"),
    ]


def end(server: Server, role: str, pid: int, number: signal.Signals) -> None:
    """End a process and wait for another in its place."""
    os.kill(pid, number)
    count = 3 if role == "web" else 1

    def is_replaced() -> bool:
        found = [server.engine_pid()] if role == "engine" and server.is_ready() else server.pids(role)
        return pid not in found and len(found) == count

    def is_replaced_and_ready() -> bool:
        try:
            return server.is_ready() and is_replaced()
        except (OSError, StopIteration):
            return False

    servers.wait_until(is_replaced_and_ready, PATIENCE_SECONDS, f"another {role}")


def test_killed_under_load_no_answer_that_a_caller_saw_is_missing(server: Server, sample_path: Path) -> None:
    image, before = sample_path.read_bytes(), shown(server)
    statuses: Counter[int] = Counter()
    sender = threading.Thread(target=lambda: statuses.update(send(server, image, 300)))

    sender.start()
    for _ in range(3):
        victim = server.pids("web")[0]
        end(server, "web", victim, signal.SIGKILL)
    sender.join(PATIENCE_SECONDS)

    assert statuses.total() == 300
    answered, crashes = statuses[200], {"role": "web", "cause": "killed"}
    by_apache = {"route": "/v1/classify", "by": "apache"}
    after = shown_when(
        server,
        lambda now: (
            grown(before, now, "cask_http_requests_total", route="/v1/classify", status="200") >= answered
            and grown(before, now, "cask_http_requests_total", **by_apache) >= 300 - answered
            and grown(before, now, "cask_process_restarts_total", **crashes) >= 3
        ),
    )
    counted = grown(before, after, "cask_http_requests_total", route="/v1/classify", status="200")
    # Each of four connections can have lost an answer that was counted when its process died.
    assert statuses[200] <= counted <= statuses[200] + 4 * 3
    assert grown(before, after, "cask_process_restarts_total", **crashes) == 3
    # What nobody answered but Apache, Apache counted.
    assert grown(before, after, "cask_http_requests_total", **by_apache) == 300 - answered


def test_what_apache_answers_is_counted_too(server: Server) -> None:
    before = shown(server)
    for path in ("/static/site.css", "/static/site.css", "/static/nothing.css"):
        server.ask(path)
    server.ask("/v1/classify", b"x" * 40_000_000, JPEG)
    server.ask("/metrics", headers={"X-Forwarded-For": "192.0.2.1"})
    server.ask("/nowhere")

    requests = "cask_http_requests_total"
    after = shown_when(server, lambda now: grown(before, now, requests, by="apache") >= 5)

    assert grown(before, after, requests, by="apache", route="/static/{filename}", status="200") == 2
    assert grown(before, after, requests, by="apache", route="/static/{filename}", status="404") == 1
    assert grown(before, after, requests, by="apache", route="/v1/classify", status="413") == 1
    assert grown(before, after, requests, by="apache", route="/metrics", status="403") == 1
    assert grown(before, after, requests, by="apache") == 5
    assert grown(before, after, requests, by="app", route="(none)", status="404") == 1
    assert grown(before, after, "cask_refused_total", by="apache", code="request_too_large") == 1
    assert grown(before, after, "cask_refused_total", by="app", code="not_found") == 1


def test_it_answers_while_every_thread_of_web_is_taken(server: Server, sample_path: Path) -> None:
    for pid in server.pids("web"):
        servers.suspend(pid)
    try:
        found = shown(server)
    finally:
        for pid in server.pids("web"):
            servers.resume(pid)

    assert of(found, "cask_processes", role="web") == 3


def test_it_tells_of_models_memory_and_build(server: Server) -> None:
    version = server.ask("/version").json

    def is_measured() -> bool:
        roles = {dict(has).get("role") for name, has in shown(server) if name == "cask_process_proportional_bytes"}
        return {"web", "ops", "engine"} <= roles

    servers.wait_until(is_measured, PATIENCE_SECONDS, "each process to look at its memory")
    found = shown(server)

    assert of(found, "cask_build_info", version=version["version"], revision=version["revision"], env="test") == 1
    assert of(found, "cask_model_info", model="site-safety-detector", version="1", role="active", runtime="torch") == 1
    assert of(found, "cask_model_ready", model="site-safety-detector") == 1
    assert of(found, "cask_ready") == of(found, "cask_engine_up") == 1
    for role in ("web", "ops", "engine"):
        resident = of(found, "cask_process_resident_bytes", role=role)
        assert 10e6 < of(found, "cask_process_proportional_bytes", role=role) <= resident


def test_promtool_finds_nothing_to_say(server: Server) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=server.ask("/metrics").body, capture_output=True, check=False
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
