"""Callers who hang up in every way: they are counted as such, and never as a failure of ours."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Server, wait_until

CALLERS = 200
HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nX-Request-Id: hang-up-%04d\r\n"
COUNTED = re.compile(r'^cask_http_requests_total\{.*status="(\d+)".*\} (\S+)$', re.MULTILINE)
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Sized by the machine, as in prod: 200 callers at once are not too many."""
    with servers.running("test", WEB_PROCESSES="0", WEB_THREADS="0", SERVER_MAX_CONNECTIONS="0") as running:
        yield running


def counted(server: Server) -> dict[str, float]:
    """Answers by status."""
    found: dict[str, float] = {}
    for status, value in COUNTED.findall(server.ask("/metrics").body.decode()):
        found[status] = found.get(status, 0) + float(value)
    return found


def hang_up(server: Server, number: int, image: bytes) -> None:
    """One caller, in one of six ways."""
    whole = HEAD % number + b"Content-Length: %d\r\n\r\n" % len(image)
    chunked = HEAD % number + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n"
    sent = (
        whole + image[:1000],
        whole + image[:1000],
        chunked + image[:1000],
        whole,
        whole + image + b"x" * (number % 2),
        HEAD % number,
    )[number % 6]
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(sent)
        if number % 6 in (1, 4):
            # Goes with a reset, as a phone does whose network ends.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_200_callers_who_hang_up_are_no_failure_of_ours(server: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    before, began = counted(server), len(server.log())

    for number in range(CALLERS):
        hang_up(server, number, image)

    # These leave a body half-sent. Of who resets at once, nothing may ever be seen.
    cut_off = sum(number % 6 in (0, 2, 3) for number in range(CALLERS))
    wait_until(lambda: counted(server).get("499", 0) - before.get("499", 0) >= cut_off, 30, "all of them to be counted")
    after = counted(server)
    # 503: those who sent all of it came faster than they can be answered.
    failures = {status: after[status] - before.get(status, 0) for status in after if status[0] == "5"}
    assert not any(count for status, count in failures.items() if status != "503")
    log = server.log()[began:]
    assert not re.findall(r"ACCESS  httpd  50[024] .*hang-up", log)
    assert len(re.findall(r"ACCESS  httpd  499 .*hang-up", log)) >= cut_off
    assert "Traceback" not in log
    assert server.ask("/v1/detect", image, {"Content-Type": "image/jpeg"}).status == 200
