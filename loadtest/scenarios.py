"""What callers do, one row a scenario: how the body is made, and of which pictures. No sockets."""

from __future__ import annotations

import bisect
import itertools
import json
import random
import re
import secrets
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from loadtest.pictures import Picture, meant_for

BOUNDARY = b"cask-load-test-3d9f0c"
SEVERAL = 4
# Of the 64 that a picture's comment has room for; a run counts up from there.
NONCE_BITS = 60
JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"
HEADER_LENGTH = "Inference-Header-Content-Length"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"
ASSET = r'(?:href|src)="%s(/static/[^"]+)"'

Body = Callable[[Sequence[Picture], "int | None"], bytes]


@dataclass(frozen=True)
class Scenario:
    """One way to call. ``task`` is empty for the page, which is fetched with its assets as a browser does.

    ``kind``: predict (one request, one answer), page, infer (Open Inference Protocol; the path names the model), or job
    (submit, poll until it is done, fetch the results; then it is removed, which nobody waits for).
    """

    name: str
    path: str
    task: str
    content_type: str
    count: int
    body: Body
    kind: str = "predict"


class Request(NamedTuple):
    """One request, ready to send. ``pictures`` are numbers of the run's list; ``paths`` more than one for the page."""

    scenario: int
    kind: str
    task: str
    method: str
    paths: tuple[str, ...]
    headers: dict[str, str]
    body: bytes
    pictures: tuple[int, ...]
    request_id: str
    is_repeated: bool


def raw(pictures: Sequence[Picture], nonce: int | None) -> bytes:
    """The bytes of one image."""
    return pictures[0].data if nonce is None else pictures[0].with_nonce(nonce)


def multipart(pictures: Sequence[Picture], nonce: int | None) -> bytes:
    """A form with one part an image (RFC 7578)."""
    parts = []
    for number, picture in enumerate(pictures):
        parts.append(
            b'--%s\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n' % (BOUNDARY, number)
        )
        parts.append(b"Content-Type: image/jpeg\r\n\r\n")
        parts.append(picture.data if nonce is None else picture.with_nonce(nonce + number))
        parts.append(b"\r\n")
    return b"".join([*parts, b"--%s--\r\n" % BOUNDARY])


def base64_json(pictures: Sequence[Picture], nonce: int | None) -> bytes:
    """A JSON body with base64 images."""
    images = [picture.base64_with_nonce(None if nonce is None else nonce + n) for n, picture in enumerate(pictures)]
    return b'{"images":["' + b'","'.join(images) + b'"]}'


def infer(pictures: Sequence[Picture], nonce: int | None, request_id: str) -> tuple[bytes, int]:
    """The body of the Open Inference Protocol as stock clients send it, and how much of it is JSON.

    The image goes behind the JSON as a tensor of BYTES: its length in four bytes, little-endian, then itself.
    """
    elements = [struct.pack("<I", len(data)) + data for data in (raw([each], nonce) for each in pictures)]
    sizes = {"binary_data_size": sum(map(len, elements))}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(pictures)], "parameters": sizes}
    head = json.dumps({"id": request_id, "inputs": [tensor]}).encode()
    return b"".join([head, *elements]), len(head)


def nothing(_pictures: Sequence[Picture], _nonce: int | None) -> bytes:
    """No body."""
    return b""


SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for each in (
        Scenario("classify_raw", "/v1/classify", "classify", "image/jpeg", 1, raw),
        Scenario("classify_multipart", "/v1/classify", "classify", FORM_TYPE, 1, multipart),
        Scenario("classify_json", "/v1/classify", "classify", JSON_TYPE, 1, base64_json),
        Scenario("classify_several", "/v1/classify", "classify", FORM_TYPE, SEVERAL, multipart),
        Scenario("detect_raw", "/v1/detect", "detect", "image/jpeg", 1, raw),
        Scenario("detect_multipart", "/v1/detect", "detect", FORM_TYPE, 1, multipart),
        Scenario("detect_json", "/v1/detect", "detect", JSON_TYPE, 1, base64_json),
        Scenario("detect_several", "/v1/detect", "detect", FORM_TYPE, SEVERAL, multipart),
        Scenario("page", "/", "", "", 0, nothing, "page"),
        Scenario("classify_infer", "/v2/models/{model}/infer", "classify", BINARY_TYPE, 1, raw, "infer"),
        Scenario("detect_infer", "/v2/models/{model}/infer", "detect", BINARY_TYPE, 1, raw, "infer"),
        Scenario("classify_job", "/v1/jobs?task=classify", "classify", "image/jpeg", 1, raw, "job"),
        Scenario("detect_job_several", "/v1/jobs?task=detect", "detect", FORM_TYPE, SEVERAL, multipart, "job"),
        Scenario("segment_raw", "/v1/segment", "segment", "image/jpeg", 1, raw),
        Scenario("segment_multipart", "/v1/segment", "segment", FORM_TYPE, 1, multipart),
    )
}
# Tasks of other people's user classes stand in rows and tables by this name, after ours.
FOREIGN = "theirs"
NAMES = (*SCENARIOS, FOREIGN)
FOREIGN_NUMBER = len(SCENARIOS)


def tasks_of(mix: Mapping[str, float]) -> list[str]:
    """The tasks that a mix needs golden answers for."""
    return list(dict.fromkeys(SCENARIOS[name].task for name in mix if SCENARIOS[name].task))


def assets_of(page: bytes, prefix: str = "") -> list[str]:
    """What a browser fetches with the page: style sheets, scripts and pictures of this server, below its prefix."""
    named = re.findall(ASSET % re.escape(prefix), page.decode("utf-8", "replace"))
    return list(dict.fromkeys(named))


class Caller:
    """Chooses and makes requests: the same pictures in the same ways for the same seed, in bytes that are always new.

    ``first_nonce``: the number in the first request's bytes and in its id; by chance when left out, whatever the seed,
    for a server that keeps answers would know the bytes of an earlier run.
    ``token``: shown with every request, unless empty.
    ``repeat_share`` (0 … 1) is the share of requests whose bytes are the same each time, so that a cache can answer.
    ``usable``: task → the pictures that may be sent; all of them when left out.
    ``models``: task → name of the model, for scenarios whose path names it.
    """

    def __init__(
        self,
        mix: Mapping[str, float],
        pictures: Sequence[Picture],
        assets: Sequence[str] = (),
        *,
        repeat_share: float = 0.0,
        seed: int = 0,
        patience_seconds: float = 30.0,
        models: Mapping[str, str] | None = None,
        token: str = "",
        first_nonce: int | None = None,
        usable: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        self.pictures = pictures
        self._scenarios = [SCENARIOS[name] for name in mix]
        self._numbers = [NAMES.index(name) for name in mix]
        self._weights = list(itertools.accumulate(mix.values()))
        self._by_task = {
            task: [number for number in meant_for(task, pictures) if usable is None or number in usable.get(task, ())]
            for task in tasks_of(mix)
        }
        self._paths = ("/", *assets)
        self._repeat_share = repeat_share
        self._models = models or {}
        self._patience = f"{patience_seconds:g}"
        self._token = {"X-Api-Token": token} if token else {}
        self._chance = random.Random(seed)  # noqa: S311 - chance, not a secret
        self._nonce = secrets.randbits(NONCE_BITS) if first_nonce is None else first_nonce

    def next(self) -> Request:
        """The next request, by the weights of the mix."""
        # As Random.choices does, without its checks.
        chance, weights = self._chance.random, self._weights
        choice = bisect.bisect(weights, chance() * weights[-1], 0, len(weights) - 1)
        scenario = self._scenarios[choice]
        self._nonce += SEVERAL
        request_id = f"load-{self._nonce:016x}"
        if not scenario.task:
            headers = {"X-Request-Id": request_id, **self._token}
            return Request(self._numbers[choice], "page", "", "GET", self._paths, headers, b"", (), request_id, True)
        usable = self._by_task[scenario.task]
        numbers = tuple([usable[int(chance() * len(usable))] for _ in range(scenario.count)])
        is_repeated = chance() < self._repeat_share
        images, nonce = [self.pictures[each] for each in numbers], None if is_repeated else self._nonce
        headers = {
            "Content-Type": scenario.content_type,
            "X-Request-Id": request_id,
            "X-Request-Timeout": self._patience,
            **self._token,
        }
        path = scenario.path
        if scenario.kind == "infer":
            body, head_length = infer(images, nonce, request_id)
            headers[HEADER_LENGTH], path = str(head_length), path.format(model=self._models[scenario.task])
        else:
            body = scenario.body(images, nonce)
        return Request(
            self._numbers[choice],
            scenario.kind,
            scenario.task,
            "POST",
            (path,),
            headers,
            body,
            numbers,
            request_id,
            is_repeated,
        )


def describe(mix: Mapping[str, float]) -> str:
    """A mix as people read it: ``classify_raw 75 %, detect_raw 25 %``."""
    total = sum(mix.values())
    return ", ".join(f"{name} {weight / total:.0%}" for name, weight in mix.items())


def golden_of(body: bytes) -> tuple[dict[str, Any], str]:
    """The one entry of ``results`` and the model's digest. Raises ValueError or KeyError for another shape."""
    answer = json.loads(body)
    (result,) = answer["results"]
    return result, answer["model"]["digest"]
