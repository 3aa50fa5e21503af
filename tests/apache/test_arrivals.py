"""Bodies that Apache takes in before the app sees the request: whole, once, and one answer for each that is broken."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from tests.servers import Server, wait_until

HEAD = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
IN_MEMORY = 65536


def ask(server: Server, *parts: bytes, then_shut: bool = False) -> bytes:
    """Send the parts, a moment apart, and read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        for part in parts:
            connection.sendall(part)
            threading.Event().wait(0.05)
        if then_shut:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the end; a reset is one."""
    answer = b""
    try:
        while received := connection.recv(65536):
            answer += received
    except ConnectionResetError:
        pass
    return answer


def statuses(answer: bytes) -> list[int]:
    """Of all answers in it."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def code(answer: bytes) -> str:
    """Of the only problem document in it."""
    found: str = json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])["code"]
    return found


def chunks(body: bytes, size: int) -> Iterable[bytes]:
    """As a chunked body."""
    for at in range(0, len(body), size):
        part = body[at : at + size]
        yield b"%x\r\n%s\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("size", [0, IN_MEMORY - 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY, 5_000_000])
@pytest.mark.parametrize("way", ["length", "chunked", "expect"])
def test_the_app_gets_every_byte_of_a_body(served: Server, sample_path: Path, size: int, way: str) -> None:
    image = sample_path.read_bytes()
    # Decoders stop at the end of the picture; its digest tells what else came.
    image = image + b"\0" * max(0, size - len(image))
    expected = served.ask("/v1/detect", image, {"Content-Type": "image/jpeg"}).json["results"]

    if way == "chunked":
        answer = ask(served, HEAD + CHUNKED + CLOSE + b"\r\n", *[b"".join(chunks(image, 40_000))])
    else:
        extra = b"Expect: 100-continue\r\n" if way == "expect" else b""
        answer = ask(served, HEAD + CLOSE + extra + b"Content-Length: %d\r\n\r\n" % len(image), image)

    assert statuses(answer) == ([100, 200] if way == "expect" else [200])
    assert json.loads(answer[answer.index(b'{"') : answer.rindex(b"}") + 1])["results"] == expected


def test_requests_that_follow_each_other_in_one_packet_are_each_answered(served: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(image) + image
    many = b"".join(chunks(image, 1000))

    answer = ask(served, one + HEAD + CHUNKED + b"\r\n" + many + one + HEAD + CLOSE + b"Content-Length: 0\r\n\r\n")

    assert statuses(answer) == [200, 200, 200, 422]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"zz\r\nabc\r\n0\r\n\r\n", 400, "bad_request"),
        (b"5\r\nabcdefgh\r\n0\r\n\r\n", 400, "bad_request"),
        (b"-5\r\nabc\r\n0\r\n\r\n", 400, "bad_request"),
        (b"ffffffffffffffffff\r\nabc", 413, "request_too_large"),
        (b"7fffffff\r\n" + b"x" * 100, 400, "bad_request"),
        # Far more lines than chunks: a core would read on for hours before the body is too large.
        ((b"1;" + b"x" * 4000 + b"\r\na\r\n") * 100 + b"0\r\n\r\n", 400, "bad_request"),
        (b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n", 400, "bad_request"),
    ],
    ids=["no number", "too short", "negative", "too large", "not all of it", "extensions", "of one byte"],
)
def test_broken_chunks_get_one_answer(served: Server, body: bytes, status: int, word: str) -> None:
    answer = ask(served, HEAD + CHUNKED + b"\r\n", body, then_shut=True)

    assert statuses(answer) == [status]
    assert code(answer) == word


@pytest.mark.parametrize(
    ("head", "body"),
    [(b"Content-Length: 1000\r\n", b"abc"), (CHUNKED, b"5\r\nab"), (CHUNKED, b"3\r\nabc\r\n")],
)
def test_who_stops_in_the_middle_gets_one_400(served: Server, head: bytes, body: bytes) -> None:
    answer = ask(served, HEAD + head + b"\r\n", body, then_shut=True)

    assert statuses(answer) == [400]
    assert code(answer) == "bad_request"


def test_who_stops_sending_after_the_request_gets_the_answer(served: Server, sample_path: Path) -> None:
    image = sample_path.read_bytes()

    answer = ask(served, HEAD + b"Content-Length: %d\r\n\r\n" % len(image) + image, then_shut=True)

    assert statuses(answer) == [200]


def test_what_says_that_it_is_too_large_is_refused_before_it_comes(served: Server) -> None:
    answer = ask(served, HEAD + b"Content-Length: 99999999999\r\n\r\n")

    assert statuses(answer) == [413]
    assert code(answer) == "request_too_large"


@pytest.mark.parametrize("length", [b"abc", b"-1", b"1e3", b"0x10", b"18446744073709551617"])
def test_a_length_that_is_none_is_refused(served: Server, length: bytes) -> None:
    answer = ask(served, HEAD + b"Content-Length: %s\r\n\r\nabc" % length, then_shut=True)

    assert statuses(answer) in ([400], [413])


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: " % n + b"x" * 8000 + b"\r\n" for n in range(94)),
        b"".join(b"X-%d: " % n + b"x" * 700 + b"\r\n" for n in range(99)),
        b"X-Long: " + b"x" * 9000 + b"\r\n",
        b"X-Many: 1\r\n" * 120,
    ],
    ids=["94-of-8k", "99-of-700", "one-of-9k", "120"],
)
def test_a_large_head_is_refused_with_431(served: Server, headers: bytes) -> None:
    answer = ask(served, b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")

    assert statuses(answer) == [431]
    assert code(answer) == "headers_too_large"


def test_a_head_of_60_kb_is_taken(served: Server) -> None:
    headers = b"".join(b"X-%d: " % n + b"x" * 6000 + b"\r\n" for n in range(10))

    answer = ask(served, b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + headers, CLOSE + b"\r\n")

    assert statuses(answer) == [200]


def test_a_head_may_come_byte_by_byte(served: Server) -> None:
    head = b"\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n" + CLOSE + b"\r\n"

    answer = ask(served, *(head[n : n + 1] for n in range(len(head))))

    assert statuses(answer) == [200]


def test_a_head_that_began_behind_another_request_may_come_later(served: Server) -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"

    answer = ask(served, one + b"\r\n" + one[:25], one[25:] + b"\r\n" + one + CLOSE + b"\r", b"\n")

    assert statuses(answer) == [200, 200, 200]


@pytest.mark.parametrize(("size", "files"), [(300_000, 0), (3_000_000, 1)])
def test_only_a_large_body_lies_in_a_file_while_it_arrives(served: Server, size: int, files: int) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 30) as connection:
        connection.sendall(HEAD + CLOSE + b"Content-Length: %d\r\n\r\n" % size + b"x" * (size - 1))
        wait_until(lambda: is_read(connection), 30, "Apache to have read all but the last byte")
        # Files of other tests may be on their way out.
        wait_until(lambda: len(arriving(served)) == files, 30, f"{files} files of bodies")
        connection.sendall(b"x")

        assert statuses(read_all(connection)) == [415]


def is_read(connection: socket.socket) -> bool:
    """Whether nothing of what was sent waits in the kernel, on either side (proc_net_tcp of the kernel's documents)."""
    ports = {f"{connection.getsockname()[1]:04X}", f"{connection.getpeername()[1]:04X}"}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    queues = [line[4] for line in lines if {line[1][-4:], line[2][-4:]} == ports]
    return len(queues) == 2 and set(queues) == {"00000000:00000000"}


def arriving(server: Server) -> set[str]:
    """The files of bodies that Apache has open; they have no name any more."""
    found = set()
    for child in psutil.Process(server.process.pid).children(recursive=True):
        for path in Path(f"/proc/{child.pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                found.add(str(path.readlink()))
    return {name for name in found if "/run/arriving/" in name}


def test_nothing_that_arrived_is_left_behind(served: Server, sample_path: Path) -> None:
    body = sample_path.read_bytes() + b"\0" * 2_000_000
    assert served.ask("/v1/detect", body, {"Content-Type": "image/jpeg"}).status == 200
    ask(served, HEAD + b"Content-Length: 4000000\r\n\r\n" + b"x" * 1_300_000, then_shut=True)

    folder = served.state_dir / "run" / "arriving"
    wait_until(lambda: not list(folder.iterdir()), 30, f"{folder} to be empty")
