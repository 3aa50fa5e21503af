"""Two instances behind HAProxy, as in docs/proxies/haproxy-several.cfg: they share tokens, limits, answers and jobs."""

from __future__ import annotations

import collections
import contextlib
import http.client
import os
import re
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import pytest

from tests import proxies, redis_servers, servers
from tests.redis_servers import RedisServer
from tests.servers import ROOT, Server

JPEG = {"Content-Type": "image/jpeg"}
LIMIT = 30
# Stated in docs/administration.md: within a second; here machines are busy.
REVOKED_SECONDS = 10.0


class Place(NamedTuple):
    """Two instances, what balances load over them, and the Redis that they share."""

    one: Server
    two: Server
    front: Server
    redis: RedisServer
    settings: dict[str, str]

    def flask(self, *arguments: str) -> str:
        """What an operator's command prints."""
        environment = servers.environment("test", STATE_DIR=str(self.one.state_dir), **self.settings)
        command = [ROOT / ".venv/bin/flask", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def token(self, name: str) -> str:
        """A new one."""
        (text,) = re.findall(r"cask_\w+", self.flask("token", "create", name))
        return str(text)

    def each(self, token: str) -> list[Server]:
        """Both instances and HAProxy, asked with this token."""
        return [replace(server, token=token) for server in (self.one, self.two, self.front)]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with redis_servers.running() as redis:
        shared = {"STATE_STORE": "redis", "REDIS_URL": redis.url, "AUTHENTICATION": "required"}
        shared |= {"RATE_LIMIT_PER_TOKEN": f"{LIMIT}/minute", "TRUSTED_PROXIES": "127.0.0.1", "CACHE": "auto"}
        with (
            servers.running("test", **shared) as one,
            servers.running("test", **shared) as two,
            proxies.haproxy(one, two) as front,
        ):
            servers.wait_until(front.is_ready, 30, "HAProxy to find an instance ready")
            yield Place(one, two, front, redis, shared)


def new_image() -> bytes:
    """Bytes that nobody has sent."""
    return (ROOT / "models" / "samples" / "cone.jpg").read_bytes() + os.urandom(8)


def test_a_token_is_known_to_both_and_its_end_too(place: Place) -> None:
    asked = place.each(place.token("camera-7"))

    assert [each.ask("/v1/models").status for each in asked] == [200, 200, 200]
    assert "camera-7" in place.flask("token", "list")
    place.flask("token", "revoke", "camera-7")

    servers.wait_until(lambda: {each.ask("/v1/models").status for each in asked} == {401}, REVOKED_SECONDS, "401")


def test_a_limit_is_exact_over_both(place: Place) -> None:
    one, two, front = place.each(place.token("limited"))
    askers = [one, two, front, front] * (LIMIT // 2)

    with ThreadPoolExecutor(8) as pool:
        statuses = collections.Counter(pool.map(lambda each: each.ask("/v1/models").status, askers))

    assert statuses == {200: LIMIT, 429: LIMIT}


def test_an_answer_is_kept_for_both(place: Place) -> None:
    one, two, _ = place.each(place.token("cached"))
    image = new_image()
    assert one.ask("/v1/classify", image, JPEG).headers["X-Cache"] == "miss"

    def is_known() -> bool:
        return str(two.ask("/v1/classify", image, JPEG).headers["X-Cache"]) == "hit"

    # A look counts against the token's thirty a minute.
    pace = threading.Event()
    servers.wait_until(lambda: is_known() or pace.wait(1.0), 25, "the answer that the other computed")


def test_a_job_of_one_is_read_at_the_other(place: Place) -> None:
    one, two, front = place.each(place.token("jobs"))
    job = one.ask("/v1/jobs", new_image(), JPEG).headers["Location"]

    # A look counts against the token's thirty a minute, so there may be one in two seconds and a half.
    pace = threading.Event()
    servers.wait_until(lambda: two.ask(job).json["state"] == "succeeded" or pace.wait(2.5), 60, "the end of the job")
    assert front.ask(job).json["results"][0]["detections"] is not None


def test_a_person_who_signed_in_at_one_is_known_to_the_other(place: Place) -> None:
    token = place.token("person")
    page = {"Accept": "text/html"}
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", place.one.port, timeout=30)) as connection:
        connection.request("POST", "/sign-in", urllib.parse.urlencode({"token": token}), form)
        cookie = str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]

    assert replace(place.two, token="").ask("/models", headers={**page, "Cookie": cookie}).status == 200


def test_known_tokens_work_and_new_ones_get_503_while_redis_is_away(place: Place) -> None:
    known, unknown = place.each(place.token("known")), place.each("cask_00000000_" + "0" * 48)
    assert [each.ask("/v1/models").status for each in known] == [200, 200, 200]
    place.redis.process.kill()
    place.redis.process.wait()

    assert [each.ask("/v1/models").status for each in known] == [200, 200, 200]
    refused = [each.ask("/v1/models") for each in unknown]
    assert [(each.status, each.json["code"], each.headers["Retry-After"]) for each in refused] == [
        (503, "state_unusable", "2")
    ] * 3
    counted = re.compile(r'cask_tokens_unchecked_total\{outcome="accepted"\} [1-9]')

    def is_counted() -> bool:
        known[1].ask("/sign-in")
        return counted.search(known[1].ask("/metrics").body.decode()) is not None

    servers.wait_until(is_counted, 20, "the count")
    lines = [line for line in place.one.log().splitlines() if "the Redis of the tokens at" in line]
    print(*lines, sep="\n")
    assert lines

    # It comes back with nothing: whoever was known is, and nobody gets 401 for its loss.
    with redis_servers.running(place.redis.port):
        assert [each.ask("/v1/models").status for each in known] == [200, 200, 200]


def test_an_instance_that_stops_costs_no_request(place: Place) -> None:
    with ThreadPoolExecutor(4) as pool:
        statuses = [pool.submit(lambda: place.front.ask("/sign-in").status) for _ in range(100)]
        assert place.one.stop() == 0
        statuses += [pool.submit(lambda: place.front.ask("/sign-in").status) for _ in range(100)]

    assert collections.Counter(each.result() for each in statuses) == {200: 200}
