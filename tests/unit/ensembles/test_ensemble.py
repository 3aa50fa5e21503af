"""Members asked at the same time, and other services over real HTTP: who answered, who did not, and why."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.ensembles.ensemble import EnsembleFailedError, EnsembleUnavailableError, FanOut, Member
from app.ensembles.upstream_answers import Opinion, UpstreamError, most_bytes
from app.ensembles.upstreams import FAILURES, FAIR_SECONDS, HOP_HEADER, PAUSE_SECONDS, Upstream
from app.errors import (
    CaskError,
    DeadlineExceededError,
    EngineBusyError,
    ImageUndecodableError,
    ModelNotReadyError,
)
from app.inference.results import Prediction
from tests.fakes import PATIENCE_SECONDS, FakeClock, eventually

MODEL = {"name": "theirs", "version": "7", "digest": "sha256:7"}
SAID = {
    "model": MODEL,
    "results": [{"width": 64, "height": 48, "predictions": [{"label": "cone", "score": 0.75}]}],
    "request_id": "theirs",
}

ROW: dict[str, Any] = {"width": 64, "height": 48, "predictions": [{"label": "cone", "score": 0.75}]}
TOO_LARGE = (
    {**ROW, "width": 10**400},
    {**ROW, "height": -(10**400)},
    {**ROW, "height": 10**300},
    {**ROW, "predictions": [{"label": "cone", "score": 10**400}]},
    {**ROW, "predictions": [{"label": "cone", "score": 1e300}]},
)


def far() -> float:
    return time.monotonic() + PATIENCE_SECONDS


def member(name: str, ask: Callable[[float], Opinion] | None = None, kind: Any = "model") -> Member:
    return Member(name, kind, ask or (lambda _: opinion(name)))


def opinion(label: str) -> Opinion:
    return Opinion(MODEL, [(64, 48, [Prediction(label, 1.0)])])


def failing(error: Exception) -> Callable[[float], Opinion]:
    def ask(_: float) -> Opinion:
        raise error

    return ask


# ── the fan-out ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_are_in_work_at_the_same_time() -> None:
    together = threading.Barrier(4)

    def meet(_: float) -> Opinion:
        # Nobody gets past before all four are there: one after the other would break it.
        together.wait(PATIENCE_SECONDS)
        return opinion("met")

    votes = FanOut().ask([member(str(number), meet) for number in range(4)], far())

    assert [each.member.name for each in votes.answered] == ["0", "1", "2", "3"]
    assert votes.missing == []


def test_who_is_late_is_missing_and_the_others_do_not_wait_for_it() -> None:
    gate = threading.Event()

    def hang(_: float) -> Opinion:
        gate.wait(PATIENCE_SECONDS)
        return opinion("late")

    try:
        votes = FanOut().ask([member("slow", hang), member("quick")], time.monotonic() + 0.2)
    finally:
        gate.set()

    assert [each.member.name for each in votes.answered] == ["quick"]
    assert [(each.member.name, each.error.code) for each in votes.missing] == [("slow", "deadline_exceeded")]


def test_who_finds_no_thread_in_time_is_missing_and_never_begins() -> None:
    gate, began = threading.Event(), []

    def hang(_: float) -> Opinion:
        gate.wait(PATIENCE_SECONDS)
        return opinion("late")

    def begin(_: float) -> Opinion:
        began.append(True)
        return opinion("begun")

    fan_out = FanOut(threads=1)
    try:
        with pytest.raises(DeadlineExceededError, match="None of 2 members answered"):
            fan_out.ask([member("first", hang), member("second", begin)], time.monotonic() + 0.05)
    finally:
        gate.set()
    fan_out.ask([member("third")], far())

    assert began == []


def test_image_that_a_model_cannot_read_is_the_callers_mistake() -> None:
    with pytest.raises(ImageUndecodableError):
        FanOut().ask([member("good"), member("bad", failing(ImageUndecodableError("broken")))], far())


def test_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        FanOut().ask([member("good"), member("bad", failing(ZeroDivisionError()))], far())


@pytest.mark.parametrize(
    ("errors", "expected", "retry_after"),
    [
        ([EngineBusyError("full", retry_after_seconds=7), DeadlineExceededError("late")], EnsembleUnavailableError, 7),
        ([UpstreamError("full", upstream_status=503, retry_after_seconds=3)], EnsembleUnavailableError, 3),
        ([UpstreamError("too often", upstream_status=429), ModelNotReadyError("x")], EnsembleUnavailableError, 1),
        ([DeadlineExceededError("late"), DeadlineExceededError("late")], DeadlineExceededError, None),
        ([DeadlineExceededError("late"), UpstreamError("gone")], EnsembleFailedError, None),
        ([CaskError("broken")], EnsembleFailedError, None),
    ],
)
def test_nobody_answered(errors: list[CaskError], expected: type[CaskError], retry_after: float | None) -> None:
    members = [member(str(number), failing(error)) for number, error in enumerate(errors)]

    with pytest.raises(expected, match=f"None of {len(errors)}") as caught:
        FanOut().ask(members, far())

    assert type(caught.value) is expected
    assert caught.value.retry_after_seconds == retry_after


def test_who_waits_for_one_other_service_keeps_nobody_from_the_others() -> None:
    gate, fan_out = threading.Event(), FanOut(threads=1, upstreams={"dead": 2, "south": 2})

    def hang(_: float) -> Opinion:
        gate.wait(PATIENCE_SECONDS)
        return opinion("late")

    def ensemble(*names: str, seconds: float = PATIENCE_SECONDS) -> tuple[list[str], list[str]]:
        members = [member(name, hang if name == "dead" else None, _kind(name)) for name in names]
        votes = fan_out.ask(members, time.monotonic() + seconds)
        return [each.member.name for each in votes.answered], [each.error.code for each in votes.missing]

    waiting = [threading.Thread(target=lambda: ensemble("dead", "ours", seconds=3)) for _ in range(2)]
    for thread in waiting:
        thread.start()
    try:
        eventually(lambda: fan_out._queues["dead"]._free._value == 0)
        assert ensemble("ours") == (["ours"], [])
        assert ensemble("ours", "south") == (["ours", "south"], [])
        # As many as may wait for it do; this one has its other answers at once.
        assert ensemble("ours", "dead") == (["ours"], ["upstream_failed"])
        with pytest.raises(EnsembleUnavailableError, match="So many requests wait for dead already") as caught:
            ensemble("dead")
        assert caught.value.retry_after_seconds == 1
    finally:
        gate.set()
        for thread in waiting:
            thread.join()
    eventually(lambda: fan_out._queues["dead"]._free._value == 2)


def _kind(name: str) -> Any:
    return "model" if name == "ours" else "upstream"


# ── other services ────────────────────────────────────────────────────────────────────────────────────────────────────


class Service(ThreadingHTTPServer):
    """Answers as told; remembers what it was asked and over how many connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.status, self.headers = 200, {"Content-Type": "application/json"}
        self.body = json.dumps(SAID).encode()
        self.gate = threading.Event()
        self.gate.set()
        self.closes = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Service

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        self.server.gate.wait(PATIENCE_SECONDS)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)
        # Without a word, as a server does whose patience with an idle connection has ended.
        self.close_connection = self.server.closes

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Service]:
    server = Service()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    """Another service."""
    with serving() as server:
        yield server


MADE: list[Upstream] = []


@pytest.fixture(autouse=True)
def connections_closed() -> Iterator[None]:
    """No test leaves a connection behind."""
    yield
    while MADE:
        MADE.pop().close()


def north(url: str, token: str = "") -> Upstream:
    MADE.append(Upstream("north", url, token))
    return MADE[-1]


def ask(upstream: Upstream, seconds: float = PATIENCE_SECONDS) -> Any:
    return upstream.predict("classify", [b"image"], {"top_k": 3}, time.monotonic() + seconds, "request-12345")


def test_service_is_asked_at_its_own_address_with_token_request_id_and_what_time_is_left(service: Service) -> None:
    answer = ask(north(service.url, "cask_secret"))
    path, headers, body = service.asked[0]

    assert answer.model == MODEL
    assert answer.results == [(64, 48, [Prediction("cone", 0.75)])]
    assert path == "/v1/classify"
    assert (headers["X-Api-Token"], headers["X-Request-Id"]) == ("cask_secret", "request-12345")
    assert headers[HOP_HEADER] == "1"
    assert 0 < float(headers["X-Request-Timeout"]) <= PATIENCE_SECONDS
    assert b'name="image"; filename="0"' in body
    assert b'name="top_k"\r\n\r\n3\r\n' in body


def test_connection_is_kept_and_one_that_was_closed_is_opened_anew(service: Service) -> None:
    upstream = north(service.url)
    for _ in range(5):
        ask(upstream)
    assert service.connections == 1
    service.closes = True
    ask(upstream)
    ask(upstream)

    assert (service.connections, len(service.asked)) == (2, 7)


def test_authority_that_cannot_be_read_is_told_and_nobody_is_asked(tmp_path: Path, service: Service) -> None:
    MADE.append(Upstream("north", service.url.replace("http:", "https:"), ca_file=tmp_path / "gone.pem"))

    with pytest.raises(UpstreamError, match=r"gone\.pem cannot be used: FileNotFoundError"):
        ask(MADE[-1])
    assert service.connections == 0


def test_redirect_is_not_followed(service: Service) -> None:
    with serving() as elsewhere:
        service.status, service.headers = 307, {"Location": f"{elsewhere.url}/v1/classify"}
        with pytest.raises(UpstreamError, match="north answered 307"):
            ask(north(service.url))

        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 50_000,
        json.dumps({**SAID, "results": []}).encode(),
        json.dumps({**SAID, "results": SAID["results"] * 2}).encode(),
        json.dumps({**SAID, "model": {}}).encode(),
        json.dumps({**SAID, "results": [{"width": "wide", "height": 1, "predictions": []}]}).encode(),
        json.dumps(
            {**SAID, "results": [{"width": 1, "height": 1, "predictions": [{"label": 1, "score": 1}]}]}
        ).encode(),
        b'{"model":{"name":"a","version":"1","digest":"x"},"results":[{"width":1,"height":1,"predictions":'
        b'[{"label":"a","score":NaN}]}]}',
        # Python reads integers of any length, and no float holds these.
        *(json.dumps({**SAID, "results": [row]}).encode() for row in TOO_LARGE),
    ],
)
def test_answer_that_is_none_is_refused(service: Service, body: bytes) -> None:
    service.body = body

    with pytest.raises(UpstreamError, match="north answered"):
        ask(north(service.url))


def test_answer_without_end_is_cut_off(service: Service) -> None:
    service.body = b" " * (most_bytes(1, {"top_k": 3}) + 100_000)

    with pytest.raises(UpstreamError, match="more than"):
        ask(north(service.url))


def test_refusal_is_told_in_its_own_words(service: Service) -> None:
    service.status, service.headers = 503, {"Retry-After": "7"}
    service.body = json.dumps({"detail": "The engine is busy."}).encode()

    with pytest.raises(UpstreamError, match=r"north answered 503: The engine is busy\.") as caught:
        ask(north(service.url))

    assert (caught.value.upstream_status, caught.value.retry_after_seconds) == (503, 7)


def test_service_that_hangs_is_left_at_the_deadline(service: Service) -> None:
    service.gate.clear()

    with pytest.raises(DeadlineExceededError, match="north did not answer in time"):
        ask(north(service.url), 0.1)


def test_service_that_is_not_there_is_told(service: Service) -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(UpstreamError, match="north cannot be reached: ConnectionRefusedError"):
        ask(north(url))


def test_what_is_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"SSH-2.0-OpenSSH_9\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(UpstreamError, match="cannot be asked: BadStatusLine"):
            ask(north(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()


class Raw:
    """A service that says these bytes, one by one with a pause between, and reads nothing unless told to."""

    def __init__(self, said: bytes, pause_seconds: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._said, self._pause_seconds = said, pause_seconds
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        held = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                held.append(connection)
                self.connections += 1
                threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for number in range(len(self._said)):
                connection.sendall(self._said[number : number + 1])
                if self._over.wait(self._pause_seconds):
                    return
            self._over.wait(PATIENCE_SECONDS)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        HEAD + b"X-Long: " + b"a" * 10_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 1000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 1000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 1000,
    ],
)
def test_service_that_drips_is_left_at_the_deadline(said: bytes) -> None:
    service, began = Raw(said, 0.02), time.monotonic()
    try:
        with pytest.raises(DeadlineExceededError, match="north did not answer in time"):
            ask(north(service.url), 0.3)
    finally:
        service.close()

    assert time.monotonic() - began < 5


def test_service_that_takes_nothing_is_left_at_the_deadline() -> None:
    service, began = Raw(b"", 1.0), time.monotonic()
    try:
        with pytest.raises(DeadlineExceededError):
            north(service.url).predict("classify", [b"x" * 30_000_000], {}, time.monotonic() + 0.3, "request-12345")
    finally:
        service.close()

    assert time.monotonic() - began < 5


def test_service_that_is_away_is_left_alone_and_asked_again_by_one(service: Service) -> None:
    clock, upstream = FakeClock(), north(service.url)
    upstream._breaker._clock = clock
    service.closes = True
    good, service.body = service.body, b"no answer" * 100_000
    for _ in range(FAILURES):
        with pytest.raises(UpstreamError, match="more than"):
            ask(upstream)
    with pytest.raises(UpstreamError, match="north has not answered of late, and is asked again in 5 s") as caught:
        ask(upstream)
    assert (caught.value.retry_after_seconds, len(service.asked)) == (PAUSE_SECONDS, FAILURES)
    clock.now += PAUSE_SECONDS
    service.body = good
    ask(upstream)
    ask(upstream)

    assert len(service.asked) == FAILURES + 2


def test_impatient_callers_say_nothing_of_a_service() -> None:
    service = Raw(b"", 0.0)
    try:
        upstream = north(service.url)
        for _ in range(FAILURES * 2):
            with pytest.raises((UpstreamError, DeadlineExceededError)):
                upstream.predict("classify", [b"x"], {}, time.monotonic() + FAIR_SECONDS / 20, "request-12345")
    finally:
        service.close()

    assert upstream._breaker.state == "closed"


def test_of_too_many_rows_the_first_are_taken(service: Service) -> None:
    rows = [{"label": str(number), "score": 0.5} for number in range(1200)]
    service.body = json.dumps({**SAID, "results": [{"width": 64, "height": 48, "predictions": rows}]}).encode()

    answer = north(service.url).predict("classify", [b"image"], {}, far(), "request-12345")

    assert len(answer.results[0][2]) == 1000
