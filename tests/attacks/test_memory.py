"""Requests that hold much memory, on a service within 2 GB: the kernel ends nobody, and the others are answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests import servers
from tests.attacks import hostile
from tests.attacks.attack import attack
from tests.attacks.hostile import Shot
from tests.attacks.memory_groups import MemoryGroup, NoMemoryGroupError, memory_group
from tests.servers import Server

LIMIT_BYTES = 2 * 1024**3
BODY_BYTES = 32 * 1024**2
# As on sixteen cores, where each process takes memory of its own.
SIXTEEN_CORES = {"WEB_PROCESSES": "4", "WEB_THREADS": "0", "SERVER_MAX_CONNECTIONS": "0"}
AT_ONCE = 8
HOLD_SECONDS = 8.0
# After its deadline: the answer's way back, on a machine with less cores than there are decoders.
LATE_SECONDS = 1.0


@pytest.fixture(scope="module")
def group() -> Iterator[MemoryGroup]:
    """Of all tests here; they are left out, with the reason, where none can be made."""
    try:
        with memory_group(LIMIT_BYTES) as made:
            yield made
    except NoMemoryGroupError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def confined(group: MemoryGroup) -> Iterator[Server]:
    """A service with 2 GB."""
    with servers.running("test", command_prefix=group.command_prefix, **SIXTEEN_CORES) as server:
        yield server


def numbers(count: int) -> bytes:
    """JSON of a tensor in numbers."""
    head = {"name": "image", "shape": [1, 1, count // 3, 3], "datatype": "UINT8"}
    text = json.dumps({"inputs": [{**head, "data": []}]})
    return text.replace('"data": []', '"data": [' + ",".join(["1"] * count) + "]").encode()


SHAPES: dict[str, Callable[[], list[Shot]]] = {
    "49 MP grey+alpha, the page": lambda: [_page(hostile.grey_with_alpha())] * 8,
    "49 MP grey+alpha, every way": lambda: hostile.every_way(hostile.grey_with_alpha(), 10.0) * 2,
    "12 MP RGBA, every way": lambda: hostile.every_way(_clear(), 10.0) * 3,
    "lists in 32 MB of JSON": lambda: _json(b'{"images": [' + b"[]," * (BODY_BYTES // 3 - 20) + b"[]]}"),
    "objects in 32 MB of JSON": lambda: _json(b'{"images": [' + b"{}," * (BODY_BYTES // 3 - 20) + b"{}]}"),
    "texts in 32 MB of JSON": lambda: _json(b'{"images": [' + b'"ab",' * (BODY_BYTES // 5 - 20) + b'"ab"]}'),
    "numbers of a tensor in JSON": lambda: (
        [Shot("/v2/models/site-safety-classifier/infer", numbers(15_000_000), "application/json", 10.0)] * 6
    ),
    "faults in 32 MB of JSON": lambda: _faults(),
    "one 24 MB base64 text": lambda: _json(b'{"images": ["' + b"/9j/" * (BODY_BYTES // 4 - 20) + b'"]}'),
}


def _page(image: bytes) -> Shot:
    return next(each for each in hostile.every_way(image, 20.0) if each.path == "/upload")


def _clear() -> bytes:
    return hostile.png_of_rows(4000, 3000, 8, 6, (b"\0" + b"\x64\xc8\x10\x80" * 4000) * 3000)


def _faults() -> list[Shot]:
    """Each member is one, and so is each name."""
    ones, names = b"1," * (BODY_BYTES // 2 - 20), b",".join(b'"%x":1' % number for number in range(2_500_000))
    infer, kind = "/v2/models/site-safety-classifier/infer", "application/json"
    return [
        Shot(infer, b'{"inputs":[' + ones + b"1]}", kind, 10.0),
        Shot("/", b'{"requests":[' + ones + b"1]}", kind, 10.0),
        Shot("/predict", b'{"image":"",' + names + b"}", kind, 10.0),
    ] * 2


def _json(body: bytes) -> list[Shot]:
    paths = ("/v1/classify", "/predict", "/api", "/v2/models/site-safety-classifier/infer", "/v1/ensemble", "/v1/jobs")
    return [Shot(path, body, "application/json", 10.0) for path in paths] * 2


@pytest.mark.parametrize("name", SHAPES)
def test_requests_that_need_much_memory(confined: Server, group: MemoryGroup, name: str) -> None:
    shots = SHAPES[name]()

    with attack(name, confined) as running:
        ends = hostile.shoot_for(confined, shots, AT_ONCE, HOLD_SECONDS)

    assert group.kills() == 0
    running.figures.require(answered=0.99, live=0.99, peak_bytes=LIMIT_BYTES)
    assert [end for end in ends if end.status in (0, 500, 502)] == []
    assert max(end.seconds for end in ends) < shots[0].timeout_seconds + LATE_SECONDS


@pytest.mark.parametrize("is_chunked", [False, True])
def test_uploads_that_never_end(confined: Server, group: MemoryGroup, is_chunked: bool) -> None:
    name = "40 unfinished uploads" + (", chunked" if is_chunked else "")

    with attack(name, confined) as running, hostile.unfinished(confined, 40, BODY_BYTES, is_chunked=is_chunked):
        time.sleep(HOLD_SECONDS)  # This is the attack itself.

    assert group.kills() == 0
    running.figures.require(answered=0.99, live=0.99, peak_bytes=LIMIT_BYTES)
