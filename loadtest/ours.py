"""Our own scenarios: ``<task>_<way>`` for every task of the service, in every way that it takes pictures; and the page.

A new task needs nothing here. A new way is a row of WAYS.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from loadtest import pictures
from loadtest.answer_distance import distinct
from loadtest.oracle import Oracle
from loadtest.outcomes import Outcome
from loadtest.pictures import Picture, meant_for
from loadtest.scenario import Scenario
from loadtest.statuses import LoadTestError
from loadtest.turns import Answer, Failed, MixedUp, Request, Turn, Wrong

if TYPE_CHECKING:
    from loadtest.scenario import Ask

BOUNDARY = b"cask-load-test-3d9f0c"
SEVERAL = 4
JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"
JPEG_TYPE = "image/jpeg"
HEADER_LENGTH = "Inference-Header-Content-Length"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"
ASSET = r'(?:href|src)="%s(/static/[^"]+)"'
PAGE = "page"
# How often a job's caller asks how far it is; so much later than it is done does the caller know.
POLL_SECONDS = 0.05
OPEN_STATES = ("queued", "running")

Body = Callable[[Sequence[Picture], "int | None"], bytes]
samples = cache(pictures.samples)


def raw(images: Sequence[Picture], nonce: int | None) -> bytes:
    """The bytes of one image."""
    return images[0].data if nonce is None else images[0].with_nonce(nonce)


def multipart(images: Sequence[Picture], nonce: int | None) -> bytes:
    """A form with one part an image (RFC 7578)."""
    parts = []
    for number, picture in enumerate(images):
        parts.append(
            b'--%s\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n' % (BOUNDARY, number)
        )
        parts.append(b"Content-Type: image/jpeg\r\n\r\n")
        parts.append(picture.data if nonce is None else picture.with_nonce(nonce + number))
        parts.append(b"\r\n")
    return b"".join([*parts, b"--%s--\r\n" % BOUNDARY])


def base64_json(images: Sequence[Picture], nonce: int | None) -> bytes:
    """A JSON body with base64 images."""
    texts = [picture.base64_with_nonce(None if nonce is None else nonce + n) for n, picture in enumerate(images)]
    return b'{"images":["' + b'","'.join(texts) + b'"]}'


def infer(images: Sequence[Picture], nonce: int | None, request_id: str) -> tuple[bytes, int]:
    """The body of the Open Inference Protocol as stock clients send it, and how much of it is JSON.

    The image goes behind the JSON as a tensor of BYTES: its length in four bytes, little-endian, then itself.
    """
    elements = [struct.pack("<I", len(data)) + data for data in (raw([each], nonce) for each in images)]
    sizes = {"binary_data_size": sum(map(len, elements))}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "parameters": sizes}
    head = json.dumps({"id": request_id, "inputs": [tensor]}).encode()
    return b"".join([head, *elements]), len(head)


@dataclass(frozen=True)
class Way:
    """One way to send pictures. ``kind``: predict, infer (the Open Inference Protocol), or job (until it is done)."""

    path: str
    content_type: str
    count: int
    body: Body
    kind: str = "predict"

    def request(self, task: str, turn: Turn) -> Any:
        """Pictures that can be told apart, in bytes that are new."""
        known: Known = turn.known
        chance = turn.chance.random
        numbers = turn.expect = tuple([known.usable[int(chance() * len(known.usable))] for _ in range(self.count)])
        known.oracle.sent(task, numbers)
        images, nonce = [samples()[each] for each in numbers], None if turn.repeats else turn.number
        request_id = turn.id
        headers = {
            "Content-Type": self.content_type,
            "X-Request-Id": request_id,
            "X-Request-Timeout": f"{turn.patience:g}",
        }
        if turn.token:
            headers["X-Api-Token"] = turn.token
        if self.kind == "infer":
            body, head_length = infer(images, nonce, request_id)
            headers[HEADER_LENGTH] = str(head_length)
        else:
            body = self.body(images, nonce)
        path = self.path.format(task=task, model=known.model)
        request = Request("POST", path, headers, body, is_new=nonce is not None)
        return _followed(turn, request._replace(status=(202,))) if self.kind == "job" else request

    def check(self, task: str, answer: Answer) -> None:
        """Compare with the answer at rest."""
        turn = answer.turn
        told_id = answer.request.path.rpartition("/")[2] if self.kind == "job" else turn.id
        outcome, words = turn.known.oracle.judge(task, turn.expect, told_id, answer.body, self.kind)
        if outcome != Outcome.RIGHT:
            raise {Outcome.MIXED_UP: MixedUp, Outcome.FAILED: Failed}.get(outcome, Wrong)(words)


def _followed(turn: Turn, request: Request) -> Generator[Request, Answer, None]:
    """Submit a job, and ask for it until it is done; then it is removed, which nobody waits for."""
    headers = {name: value for name, value in request.headers.items() if name != "Content-Type"}
    answer = yield request
    path = job_path(answer.body)
    # Results take room that the next ones need.
    turn.afterwards.append(Request("DELETE", path, headers, status=range(600)))
    while True:
        answer = yield Request("GET", path, headers)
        try:
            state = answer.json()["state"]
        except (ValueError, KeyError, TypeError):
            raise Failed(f"no job of ours: {answer.text[:80]}") from None
        if state == "succeeded":
            return
        if state not in OPEN_STATES:
            raise Failed(f"the job is {state}: {answer.text[:160]}")
        turn.sleep(POLL_SECONDS)


def job_path(body: bytes) -> str:
    """Where a job that was taken is asked for. Raises Failed for another answer."""
    try:
        path = str(json.loads(body)["url"])
    except (ValueError, KeyError, TypeError):
        path = ""
    # Behind a proxy's prefix it may stand before it; who sends adds the prefix again.
    _, found, job = path.partition("/v1/jobs/")
    if not found or not path.startswith("/"):
        raise Failed(f"no job of ours: {body[:80].decode(errors='replace')}")
    return found + job


WAYS: Mapping[str, Way] = {
    "raw": Way("/v1/{task}", JPEG_TYPE, 1, raw),
    "multipart": Way("/v1/{task}", FORM_TYPE, 1, multipart),
    "json": Way("/v1/{task}", JSON_TYPE, 1, base64_json),
    "several": Way("/v1/{task}", FORM_TYPE, SEVERAL, multipart),
    "infer": Way("/v2/models/{model}/infer", BINARY_TYPE, 1, raw, "infer"),
    "job": Way("/v1/jobs?task={task}", JPEG_TYPE, 1, raw, "job"),
    "job_several": Way("/v1/jobs?task={task}", FORM_TYPE, SEVERAL, multipart, "job"),
}
NAME = re.compile(rf"([a-z0-9]+)_({'|'.join(WAYS)})")


def named(name: str, tasks: Sequence[str] | None) -> Scenario | None:
    """Our scenario of this name; None for no way of ours, or a task that is not among these (None: any may be)."""
    if name == PAGE:
        return Scenario(PAGE, _page, setup=_setup_page, group=PAGE)
    found = NAME.fullmatch(name)
    if not found or (tasks is not None and found[1] not in tasks):
        return None
    task, way = found[1], WAYS[found[2]]
    parts = (partial(way.request, task), partial(way.check, task), partial(_setup, task))
    return Scenario(name, *parts, group=task, open=partial(Known, task))


def is_task(name: str, tasks: Sequence[str] | None) -> bool:
    """Whether it is a task of the service; where those are not known, whether it may be one."""
    return name in tasks if tasks is not None else name.isalnum() and name != PAGE


def names(tasks: Sequence[str]) -> list[str]:
    """All of ours."""
    return [PAGE, *(f"{task}_{way}" for task in tasks for way in WAYS)]


# ── What is known of a task and of the page: asked at rest ───────────────────────────────────────────────────────────


class Known:
    """What a worker knows of a task: pictures that may be sent, the model's name, and the oracle."""

    def __init__(self, task: str, told: Mapping[str, Any]) -> None:
        # JSON has no numbers for keys.
        golden = {int(number): result for number, result in told["golden"].items()}
        self.usable, self.model = list(golden), told["model"]
        self.oracle = Oracle({task: golden}, {task: told["digest"]})


def _setup(task: str, ask: Ask) -> dict[str, Any]:
    """Send each picture once, alone: the golden answers of those that can be told apart."""
    golden, digest = {}, ""
    for number in meant_for(task, samples()):
        request = Request("POST", f"/v1/{task}", {"Content-Type": JPEG_TYPE}, samples()[number].data)
        golden[number], digest = golden_of(ask(request).body)
    try:
        models = ask({"path": "/v1/models"}).json()["models"]
    except (LoadTestError, ValueError, KeyError, TypeError):
        models = []
    model: dict[str, Any] = next((each for each in models if each.get("digest") == digest), {})
    told = {number: golden[number] for number in distinct(golden)}
    surprises = _surprises(golden, model) if task == "classify" else []
    return {"golden": told, "digest": digest, "model": model.get("name", ""), "surprises": surprises}


def golden_of(body: bytes) -> tuple[dict[str, Any], str]:
    """The one entry of ``results`` and the model's digest. Raises LoadTestError for another shape."""
    try:
        answer = json.loads(body)
        (result,) = answer["results"]
        return result, answer["model"]["digest"]
    except (ValueError, KeyError, TypeError):
        raise LoadTestError(f"At rest the answer is none of ours: {body[:200]!r}") from None


def _surprises(golden: Mapping[int, Mapping[str, Any]], model: Mapping[str, Any]) -> list[str]:
    """Where the demonstration model, whose pictures we know, does not see at rest what is in them."""
    if not model.get("demonstration") or model.get("random_weights"):
        return []
    found = []
    for number, result in golden.items():
        best, truth = result["predictions"][0]["label"], samples()[number].truth
        if truth and best != truth:
            found.append(f"{samples()[number].name} is a {truth}; at rest the answer is {best}")
    return found


def _page(turn: Turn) -> Generator[dict[str, Any], Answer, None]:
    """The page with its assets, as a browser fetches it."""
    for path, checksum in turn.known.items():
        answer = yield {"path": path}
        # The page itself may hold what differs each time; what it is made of may not.
        if path != "/" and zlib.crc32(answer.body) != checksum:
            raise Wrong(f"{path} is not what it was at rest")


def _setup_page(ask: Ask) -> dict[str, int]:
    page = ask({"path": "/"})
    assets = re.findall(ASSET % re.escape(page.turn.prefix), page.text)
    return {path: zlib.crc32(ask({"path": path}).body) for path in ("/", *dict.fromkeys(assets))}
