"""A view of a plugin that is silent for longer than Apache waits: what its caller reads, and what operators do."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server

PLUGIN = """
import time
from flask import Blueprint, request
from cask import public

blueprint = Blueprint("slow", __name__)

@blueprint.get("/slow/<kind>")
@public
def view(kind):
    if kind == "silent":
        time.sleep(6)
        return "late"
    if kind == "held":
        time.sleep(3)
        return "done"
    def lines():
        for number in range(5):
            time.sleep(0.9)
            yield f"{number}\\n"
        if kind == "broken":
            raise ValueError("no more")
        yield "end"
    return lines()
"""
# Each setting is two seconds, so Apache waits for four.
QUICK = dict.fromkeys(("REQUEST_TIMEOUT_SECONDS", "REQUEST_MAX_TIMEOUT_SECONDS", "SERVER_BODY_TIMEOUT_SECONDS"), "2")


@pytest.fixture(scope="module")
def plugins(open_folder: Path) -> Path:
    folder = open_folder / "plugins" / "slow"
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text('name = "slow"\nversion = "1"\ncask = ">=1"\n')
    (folder / "__init__.py").write_text(PLUGIN)
    return folder.parent


@pytest.fixture(scope="module")
def server(plugins: Path) -> Iterator[Server]:
    with servers.running("test", PLUGINS_DIR=str(plugins), **QUICK) as running:
        yield running


def test_request_that_waited_too_long_for_a_thread_is_not_begun(plugins: Path) -> None:
    settings = {"REQUEST_TIMEOUT_SECONDS": "2", "WEB_PROCESSES": "1", "WEB_THREADS": "2"}
    with servers.running("test", PLUGINS_DIR=str(plugins), **settings) as running, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: running.ask("/slow/held"), range(4)))
        patient = list(pool.map(lambda _: running.ask("/slow/held", headers={"X-Request-Timeout": "60"}), range(4)))

    assert sorted(each.status for each in answers) == [200, 200, 504, 504]
    late = {(each.json["code"], each.json["detail"]) for each in answers if each.status == 504}
    assert late == {("deadline_exceeded", "The deadline passed while the request waited for a thread of the app.")}
    assert [each.status for each in patient] == [200] * 4


def test_silent_view_is_a_504_with_a_reason_and_a_line_of_the_log(server: Server) -> None:
    answer = server.ask("/slow/silent")

    assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
    assert answer.json["detail"] == "The application did not answer in time."
    line = "GET /slow/{kind} answered after"
    servers.wait_until(lambda: line in server.log(), 30, "the line of the view that has ended")
    told = next(each for each in server.log().splitlines() if line in each)
    assert "its caller got 504 after 4 s (REQUEST_MAX_TIMEOUT_SECONDS + SERVER_BODY_TIMEOUT_SECONDS)" in told
    assert answer.headers["X-Request-Id"] in told


def test_stream_may_last_as_long_as_it_likes_while_it_speaks(server: Server) -> None:
    answer = server.ask("/slow/whole")

    assert (answer.status, answer.body) == (200, b"0\n1\n2\n3\n4\nend")


def test_stream_that_breaks_off_is_counted_and_logged(server: Server) -> None:
    # Its caller sees it too: tests/apache/test_whole_answers.py.
    with (
        urllib.request.urlopen(f"{server.url}/slow/broken", timeout=60) as answer,
        pytest.raises(http.client.IncompleteRead),
    ):
        answer.read()

    assert answer.status == 200
    line = "broke off behind its status"
    servers.wait_until(lambda: line in server.log(), 30, "the line of the stream that broke off")
    assert 'cask_failed_parts_total{code="internal_error",part="stream"} 1.0' in server.ask("/metrics").body.decode()
    told = next(each for each in server.log().splitlines() if line in each)
    assert "GET /slow/broken" in told and answer.headers["X-Request-Id"] in told
