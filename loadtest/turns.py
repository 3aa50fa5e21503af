"""One arrival: the requests that a scenario makes of it, what came back, and how that is judged. No sockets.

A scenario's ``request(turn)`` returns a dict with the words of the library `requests` (KEYS), or yields several, each
after the answer to the one before. ``check(answer)`` raises or returns False where the answer is wrong.
"""

from __future__ import annotations

import json
import random
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from loadtest.outcomes import REFUSALS, SCENARIO_BROKE, Outcome
from loadtest.statuses import UsageError

if TYPE_CHECKING:
    from loadtest.scenario import Scenario

KEYS = ("method", "path", "params", "headers", "json", "data", "files", "status")
SUCCESS = range(200, 300)
SAID_MOST = 160


class Wrong(AssertionError):  # noqa: N818 - what it says of the answer
    """The answer is not the right one. Any other exception of a check says so, too."""


class MixedUp(AssertionError):  # noqa: N818 - what it says of the answer
    """The answer belongs to another request: a fault of threads."""


class Failed(AssertionError):  # noqa: N818 - what it says of the answer
    """The answer is none at all, such as one in another format."""


class Request(NamedTuple):
    """One request, ready to send. ``status``: what counts as success. ``is_new``: bytes that nobody has sent before."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    status: Sequence[int] = SUCCESS
    is_new: bool = False


@dataclass(slots=True)
class Answer:
    """What came back for ``request``. ``headers``: by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    request: Any
    turn: Turn

    def json(self) -> Any:
        """The body's JSON. Raises ValueError."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as UTF-8; what is none is replaced."""
        return self.body.decode(errors="replace")

    def metric(self, name: str, value: float) -> None:
        """Note a figure of your own, which the SLO file may limit."""
        self.turn.metrics.append((name, float(value)))


@dataclass(slots=True)
class Turn:
    """What a scenario is given at each arrival.

    ``number`` is unlike any other's, ``id`` made of it and sent as X-Request-Id; ``chance`` is seeded; ``known`` is
    what ``setup`` returned; ``token`` is LOADTEST_TOKEN; ``patience`` the seconds that the caller waits; ``expect``
    holds what the check will want; ``sleep`` lets others go on meanwhile. ``status``, ``size``: of the answers, where
    ``perform`` stands for sending.
    """

    scenario: Scenario
    index: int
    number: int
    chance: random.Random
    known: Any
    token: str = ""
    patience: float = 30.0
    repeats: bool = False
    first: Request | None = None
    asked: Any = None
    steps: Generator[Any, Answer, Any] | None = None
    afterwards: list[Request] = field(default_factory=list)
    metrics: list[tuple[str, float]] = field(default_factory=list)
    expect: Any = None
    prefix: str = ""
    sleep: Callable[[float], Any] = time.sleep
    error: str = ""
    status: int = 0
    size: int = 0

    @property
    def id(self) -> str:
        """Its number as servers log it."""
        return f"load-{self.number:016x}"

    def begin(self) -> Turn:
        """Have the scenario make its first request, while there is time. What it raises is kept for :meth:`perform`."""
        try:
            made = self.scenario.request(self) if self.scenario.request else None
            if type(made) is GeneratorType:
                self.steps, made = made, next(made)
            if made is not None or not self.scenario.perform:
                self._take(made)
        except Exception as error:  # noqa: BLE001 - reported as a fault of the scenario
            self.error = said_of(error)
        return self

    def _take(self, made: Any) -> Request:
        self.asked = made
        self.first = made if type(made) is Request else to_request(made, self)
        return self.first

    def perform(self, exchange: Exchange) -> tuple[Outcome, str, str]:
        """Send what it asks for, one after another, and judge: outcome, what was wrong in words, and a code.

        Raises what ``exchange`` raises.
        """
        if self.scenario.perform:
            return self.scenario.perform(self)
        if self.error or self.first is None:
            return Outcome.BROKEN, self.error, SCENARIO_BROKE
        while True:
            request = self.first
            status, headers, body = exchange(request)
            if status not in request.status:
                if status in REFUSALS:
                    return Outcome.REFUSED, "", problem_code(body)
                words = f"{request.method} {request.path} answers {status}: {body[:SAID_MOST].decode(errors='replace')}"
                return Outcome.FAILED, words, problem_code(body)
            answer = Answer(status, headers, body, self.asked, self)
            try:
                if self.steps:
                    self._take(self.steps.send(answer))
                    continue
            except StopIteration:
                pass
            except Exception as error:  # noqa: BLE001 - whatever it raises says that the answer is wrong
                return judged(error)
            return self._check(answer)

    def _check(self, answer: Answer) -> tuple[Outcome, str, str]:
        try:
            found = self.scenario.check(answer) if self.scenario.check else None
            if found is False:
                raise Wrong("the check returned False")
            if found is not None and found is not True:
                raise Wrong(f"the check returned {found!r:.60}; expected True, False or nothing")
        except Exception as error:  # noqa: BLE001 - whatever it raises says that the answer is wrong
            return judged(error)
        return Outcome.RIGHT, "", ""


# Sends one request: status, headers and body of its answer.
Exchange = Callable[[Request], tuple[int, Mapping[str, str], bytes]]


def judged(error: Exception) -> tuple[Outcome, str, str]:
    """What an exception of a check or of a later step says of the answer."""
    if isinstance(error, MixedUp):
        return Outcome.MIXED_UP, str(error), ""
    if isinstance(error, Failed):
        return Outcome.FAILED, str(error), ""
    return Outcome.WRONG, said_of(error), ""


def said_of(error: Exception) -> str:
    """An exception in one line: its words, or the line of code where it has none, and where it was raised."""
    if type(error) is Wrong:
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, AssertionError):
        return f"{error or (frames[-1].line if frames else '')}{where}"
    return f"{type(error).__name__}: {error}{where}"


def problem_code(body: bytes) -> str:
    """The code of a problem document; empty for another body."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(code)[:60]


# ── What a scenario asked for, as bytes ──────────────────────────────────────────────────────────────────────────────


def to_request(asked: Any, turn: Turn) -> Request:
    """The request that a dict describes. Raises UsageError for a key or a value that is none."""
    if not isinstance(asked, Mapping) or "path" not in asked or (unknown := set(asked) - set(KEYS)):
        is_dict = isinstance(asked, Mapping) and "path" in asked
        told = f"has {', '.join(map(str, unknown))}" if is_dict else f"is {asked!r:.80}"
        raise UsageError(f"What request() gave {told}; expected a dict with path and some of {', '.join(KEYS)}.")
    body, kind = _body(asked, turn)
    path, params = str(asked["path"]), asked.get("params")
    if params:
        path += ("&" if "?" in path else "?") + urlencode(params, doseq=True)
    headers = {"X-Request-Id": turn.id, **({"Content-Type": kind} if kind else {})}
    given = {str(name): str(value) for name, value in (asked.get("headers") or {}).items()}
    if turn.token and "authorization" not in map(str.lower, given):
        headers["X-Api-Token"] = turn.token
    for name in list(headers):
        if name.lower() in map(str.lower, given):
            del headers[name]
    status = asked.get("status", SUCCESS)
    method = str(asked.get("method") or ("POST" if body or kind else "GET")).upper()
    return Request(method, path, {**headers, **given}, body, (status,) if isinstance(status, int) else status)


def _body(asked: Mapping[str, Any], turn: Turn) -> tuple[bytes, str]:
    """The body of one of json, files and data, and its type; both empty for none."""
    if "json" in asked:
        return json.dumps(asked["json"]).encode(), "application/json"
    data = asked.get("data", b"")
    if "files" in asked:
        boundary = f"{turn.id}-boundary"
        parts = b"".join(_parts(asked["files"], data or {}, boundary.encode()))
        return parts, f"multipart/form-data; boundary={boundary}"
    if isinstance(data, Mapping):
        return urlencode(data, doseq=True).encode(), "application/x-www-form-urlencoded"
    return (data.encode() if isinstance(data, str) else bytes(data)), ""


def _parts(files: Any, fields: Mapping[str, Any], boundary: bytes) -> Iterator[bytes]:
    """A form with files (RFC 7578): each bytes, or a file name with bytes and perhaps a type."""
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"'
    for name, value in (
        (name, one) for name, each in fields.items() for one in (each if isinstance(each, list) else [each])
    ):
        yield (head + b"\r\n\r\n%s\r\n") % (boundary, str(name).encode(), str(value).encode())
    for name, given in files.items() if isinstance(files, Mapping) else files:
        file_name, data, *kind = ("file", given) if isinstance(given, bytes) else given
        opening = head % (boundary, str(name).encode()) + b'; filename="%s"\r\n' % str(file_name).encode()
        yield opening + b"Content-Type: %s\r\n\r\n" % (kind[0] if kind else "application/octet-stream").encode()
        yield bytes(data) + b"\r\n"
    yield b"--%s--\r\n" % boundary
