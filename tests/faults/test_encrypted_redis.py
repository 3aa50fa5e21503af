"""A Redis with TLS and an authority of one's own: used when its certificate is right, told and left alone when not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import redis_servers, servers
from tests.certificates import Authority, Pair
from tests.servers import Answer, Server

JPEG = {"Content-Type": "image/jpeg"}
PASSWORD = "a-password-of-redis"  # noqa: S105 - for this test's own Redis
LEFT = (
    "the store of kept answers is not used",
    "counting requests in Redis is not used",
    "the Redis of the jobs at",
)


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    """For the name localhost."""
    return authority.sign("localhost")


def settings(url: str, ca_file: Path | None) -> dict[str, str]:
    named = {"REDIS_CA_FILE": str(ca_file)} if ca_file else {}
    return {"CACHE": "redis", "JOBS_STORE": "redis", "RATE_LIMIT_PER_ADDRESS": "1000/minute", "REDIS_URL": url, **named}


def classify(server: Server, image: bytes) -> Answer:
    answer = server.ask("/v1/classify", image, JPEG)
    assert answer.status == 200, answer.body
    assert answer.json["results"][0]["predictions"][0]["label"] == "cone"
    assert int(answer.headers["RateLimit-Remaining"]) < 1000
    return answer


def new_image() -> bytes:
    """Bytes that nobody has sent."""
    return (servers.ROOT / "models" / "samples" / "cone.jpg").read_bytes() + os.urandom(8)


def test_two_services_share_answers_and_counts_by_tls(authority: Authority, pair: Pair) -> None:
    image = new_image()
    with (
        redis_servers.encrypted(pair, password=PASSWORD) as url,
        servers.running("test", **settings(url, authority.certificate)) as one,
        servers.running("test", **settings(url, authority.certificate)) as other,
    ):
        servers.wait_until(lambda: classify(one, image).headers["X-Cache"] == "hit", 30, "a hit")
        before = int(classify(one, image).headers["RateLimit-Remaining"])
        servers.wait_until(lambda: classify(other, image).headers["X-Cache"] == "hit", 30, "a hit of the other's")

        assert int(classify(other, image).headers["RateLimit-Remaining"]) < before
        job = one.ask("/v1/jobs", image, JPEG).headers["Location"]
        assert other.ask(job).status == 200
        for line in LEFT:
            assert line not in one.log() + other.log()


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_wrong_certificate_is_told_and_the_service_goes_on(
    open_folder: Path, authority: Authority, pair: Pair, wrong: str
) -> None:
    host, trusted, reason = {
        "authority": ("localhost", Authority(open_folder, "another").certificate, "certificate verify failed: "),
        "name": ("127.0.0.1", authority.certificate, "certificate is not valid for '127.0.0.1'"),
    }[wrong]
    image = new_image()
    with (
        redis_servers.encrypted(pair, host, PASSWORD) as url,
        servers.running("test", **settings(url, trusted)) as server,
    ):
        for _ in range(3):
            classify(server, image)
        servers.wait_until(lambda: all(line in server.log() for line in LEFT), 30, "all lines in the log")
        lines = [line for line in server.log().splitlines() if any(each in line for each in LEFT)]
        print("\n".join(lines))

        assert all(reason in line for line in lines)
        assert PASSWORD not in server.log()
