"""Kept answers through Apache: shared by its processes, true to the version that answers, and survivors of restarts."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Answer
from tests.versioned import Versioned, versioned

COUNT = itertools.count()


@pytest.fixture(scope="module")
def service() -> Iterator[Versioned]:
    """Two web processes over one file of kept answers, with a place for each caller here."""
    with versioned(CACHE="disk", WEB_PROCESSES="2", WEB_THREADS="24") as running:
        yield running


@pytest.fixture
def image(sample_path: Path) -> bytes:
    """A picture that nobody has sent: bytes behind the end of a JPEG count for the digest and not for the pixels."""
    return sample_path.read_bytes() + b"%d" % next(COUNT)


def images_total(service: Versioned) -> int:
    total: int = service.client.status()["images_total"]
    return total


def sources(service: Versioned, image: bytes, count: int = 8) -> list[str]:
    """Asked at the same time, so that both processes are met."""
    with ThreadPoolExecutor(count) as pool:
        found: list[Answer] = list(pool.map(service.classify, [image] * count))
    assert {each.status for each in found} == {200}
    return [each.headers["X-Cache"] for each in found]


def test_one_processs_answer_is_the_others_hit(service: Versioned, image: bytes) -> None:
    first = service.classify(image)
    path = service.server.state_dir / "cache" / "answers.sqlite3"
    servers.wait_until(lambda: set(sources(service, image)) == {"hit"}, 30, "both processes to know it")
    before = images_total(service)
    servers.wait_until(lambda: path.exists(), 30, "the file")
    again = service.classify(image)

    assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("miss", "hit")
    assert int(again.headers["Age"]) >= 0
    assert again.json["results"] == first.json["results"]
    assert again.json["model"] == first.json["model"]
    assert "predict" not in again.headers["Server-Timing"]
    assert images_total(service) == before
    assert path.stat().st_mode & 0o077 == 0


def test_equal_requests_at_once_are_computed_at_most_once_a_process(service: Versioned, image: bytes) -> None:
    before = images_total(service)
    found = sources(service, image, 16)

    assert 1 <= images_total(service) - before == found.count("miss") <= 2
    assert set(found) <= {"miss", "shared", "hit"}


def test_version_that_is_promoted_answers_by_itself(service: Versioned, image: bytes) -> None:
    service.check(service.classify(image))
    servers.wait_until(lambda: set(sources(service, image)) == {"hit"}, 30, "both processes to know it")
    for version, expected in (("2", "miss"), ("1", "hit")):
        service.change("promote", version)
        answer = service.classify(image)

        assert service.check(answer) == version
        assert answer.headers["X-Cache"] == expected


def test_hit_is_of_the_version_that_was_chosen(service: Versioned, image: bytes) -> None:
    service.change("canary", "3", 50.0)
    try:
        for requested in ("always", "never", "always", "never", ""):
            headers = {"X-Model-Canary": requested} if requested else {}
            version = service.check(service.classify(image, **headers))

            assert version in {"always": "3", "never": "1", "": "13"}[requested]
    finally:
        service.change("canary", "3", 0.0)


def test_hits_are_answered_while_the_engine_is_away(service: Versioned, image: bytes) -> None:
    service.classify(image)
    servers.wait_until(lambda: set(sources(service, image)) == {"hit"}, 30, "both processes to know it")
    os.kill(service.server.engine_pid(), signal.SIGKILL)
    found = [service.classify(image) for _ in range(5)]
    servers.wait_until(service.server.is_ready, 60, "a new engine")

    assert [(each.status, each.headers["X-Cache"]) for each in found] == [(200, "hit")] * 5
    assert service.classify(image).headers["X-Cache"] == "hit"
