"""Client and server over real sockets: own answers, honest errors, and no connection that outlives its trouble."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.engine import client as client_module
from app.engine import protocol, server
from app.engine.batcher import Limits
from app.engine.changes import Changes
from app.engine.client import EngineAnswer, EngineClient
from app.engine.protocol import HEAD, Frame, FrameType
from app.engine.shadows import Shadows
from app.engine.worker import Workers
from app.errors import (
    CaskError,
    ChangeRefusedError,
    DeadlineExceededError,
    EngineAwayError,
    EngineBusyError,
    GoldenCheckError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from app.inference.results import Box, ClassifyOptions, Detection, DetectOptions, Prediction
from app.models import manifests
from app.models.manifests import Manifest
from app.telemetry import logs
from tests import fakes
from tests.fakes import PATIENCE_SECONDS, FakeModel, RunningEngine, eventually, pixels

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def soon() -> float:
    return time.monotonic() + PATIENCE_SECONDS


def ask(client: EngineClient, manifest: Manifest, *numbers: int, deadline: float | None = None) -> list[EngineAnswer]:
    images = [pixels(number) for number in numbers]
    return client.predict(manifest, images, [ClassifyOptions()] * len(images), soon() if deadline is None else deadline)


def labels(answers: list[EngineAnswer]) -> list[str]:
    return [each.answer[0].label for each in answers]


def wait_until_given_up(engine: RunningEngine) -> None:
    """Return when the server has noticed that nobody waits for what waits there."""
    lines = engine.workers._batcher._lines.values()
    eventually(lambda: all(work.is_cancelled for line in lines for work in list(line.works)), "works to be cancelled")


def predict_meta(manifest: Manifest, **changes: Any) -> dict[str, Any]:
    return {
        "id": 0,
        "model": manifest.key,
        "task": "classify",
        "tensors": [["image", "uint8", [4, 4, 3]]],
        "options": {"top_k": 1},
        "timeout_ms": 1e4,
        **changes,
    }


def send(sock: socket.socket, frame: Frame) -> None:
    for buffer in protocol.encode(frame):
        sock.sendall(buffer)


@contextmanager
def raw(path: Path) -> Iterator[socket.socket]:
    """A connection that need not keep to the protocol."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(str(path))
        yield sock


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[Future[Any]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


@contextmanager
def listening(path: Path, behave: Callable[[socket.socket], None], *, times: int = 1) -> Iterator[None]:
    """A FakeServer: one connection after the other is given to ``behave``, then closed."""

    def serve() -> None:
        for _ in range(times):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_SECONDS)
                behave(connection)

    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.settimeout(PATIENCE_SECONDS)
        listener.bind(str(path))
        listener.listen()
        with in_background(serve) as done:
            yield
            done.result(PATIENCE_SECONDS)


def read_frame(sock: socket.socket) -> Frame:
    return protocol.read_frame(lambda count: sock.recv(count, socket.MSG_WAITALL))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EngineClient]:
    """A client whose engine, if any, the test starts itself."""
    made = EngineClient(tmp_path / "engine.sock")
    yield made
    made.close()


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_image_is_answered_with_its_timings(running: RunningEngine, manifest: Manifest) -> None:
    answer = ask(running.client, manifest, 7)[0]

    assert answer.answer == [Prediction("7", 1.0)]
    assert answer.batch_size == 1
    assert answer.queue_ms >= 0 and answer.predict_ms >= 0


def test_detections_come_with_their_boxes(tmp_path: Path) -> None:
    detector = fakes.make_manifest(tmp_path / "models", task="detect")
    with fakes.running_engine(tmp_path / "engine.sock", [detector]) as engine:
        answers = engine.client.predict(detector, [pixels(5, 3, 6)], [DetectOptions()], soon())

    assert answers[0].answer == [Detection("5", 1.0, Box(0.0, 0.0, 6.0, 3.0))]


def test_options_of_each_image_arrive(running: RunningEngine, manifest: Manifest) -> None:
    running.model.answer = lambda image, requested: [Prediction(str(requested), 1.0)]
    params = [ClassifyOptions(3), ClassifyOptions(0)]

    answers = running.client.predict(manifest, [pixels(1), pixels(2)], params, soon())

    assert labels(answers) == [str(requested) for requested in params]


def test_image_that_does_not_lie_in_one_piece_arrives_whole(running: RunningEngine, manifest: Manifest) -> None:
    mirrored = pixels(9, 4, 6)[:, ::-1][::2]
    seen: list[np.ndarray] = []
    running.model.answer = lambda image, _: seen.append(image.copy()) or []  # type: ignore[func-returns-value]

    running.client.predict(manifest, [mirrored], [ClassifyOptions()], soon())

    assert np.array_equal(seen[0], mirrored)


def test_several_images_are_answered_in_the_order_sent(running: RunningEngine, manifest: Manifest) -> None:
    numbers = list(range(32))
    images = [pixels(number, height=4 + number % 3) for number in numbers]

    answers = running.client.predict(manifest, images, [ClassifyOptions()] * 32, soon())

    assert labels(answers) == [str(number) for number in numbers]


def test_large_images_with_large_answers_do_not_block_each_other(running: RunningEngine, manifest: Manifest) -> None:
    """Neither side reads while it sends; buffers must not fill up on both."""
    running.model.answer = lambda image, _: [Prediction(fakes.name_of(image) + "x" * 20_000, 1.0)]
    images = [pixels(number, 400, 600) for number in range(32)]

    answers = running.client.predict(manifest, images, [ClassifyOptions()] * 32, soon())

    assert [label.rstrip("x") for label in labels(answers)] == [str(number) for number in range(32)]


def test_many_threads_get_their_own_answers(tmp_path: Path, manifest: Manifest) -> None:
    def caller(who: int) -> bool:
        return all(
            labels(ask(engine.client, manifest, n, n + 1)) == [str(n), str(n + 1)]
            for n in range(who * 1000, who * 1000 + 15)
        )

    with (
        fakes.running_engine(tmp_path / "engine.sock", [manifest], threads=3) as engine,
        ThreadPoolExecutor(8) as pool,
    ):
        assert all(pool.map(caller, range(8)))


def test_callers_at_the_same_time_share_a_batch(running: RunningEngine, manifest: Manifest) -> None:
    running.model.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, running.client, manifest, 1)
        running.model.wait_until_busy()
        others = [pool.submit(ask, running.client, manifest, number) for number in (2, 3, 4)]
        eventually(lambda: running.workers.status()["waiting"] == 3)
        running.model.gate.set()

        assert [labels(each.result(PATIENCE_SECONDS)) for each in (first, *others)] == [["1"], ["2"], ["3"], ["4"]]

    assert running.model.batches == [1, 3]


def test_connection_is_used_again(running: RunningEngine, manifest: Manifest) -> None:
    for number in range(5):
        ask(running.client, manifest, number)

    assert len(running.client._idle) == 1


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error",
    [
        EngineBusyError("%(count)s images wait.", hint="Later.", retry_after_seconds=3.5, count=64),
        ModelNotReadyError("It loads.", hint="Soon.", retry_after_seconds=30.0),
        ModelNotFoundError("No such.", hint="Look."),
        DeadlineExceededError("Late.", hint="Sooner."),
        CaskError("The model failed.", hint="Tell the operator of this service the request id."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_keeps_its_class_message_hint_and_time(
    running: RunningEngine, manifest: Manifest, error: CaskError
) -> None:
    running.model.predict_error = error

    with pytest.raises(CaskError) as caught:
        ask(running.client, manifest, 1)

    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
    assert (caught.value.message.id, caught.value.message.values) == (error.message.id, error.message.values)
    assert caught.value.retry_after_seconds == error.retry_after_seconds


def test_the_engines_line_names_the_request_whose_image_failed(
    running: RunningEngine, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    running.model.predict_error = RuntimeError("shape")
    logs.request_id.set("from-the-caller")

    with pytest.raises(CaskError, match="The model failed"):
        ask(running.client, manifest, 1)
    logs.request_id.set("")

    line = next(record for record in caplog.records if "predicting a batch" in record.getMessage())
    assert getattr(line, "request_id", None) == "from-the-caller"


@pytest.mark.parametrize("kind", ["annotations", "Exception", "os", "NoSuchError", None, 5])
def test_error_of_an_unknown_kind_is_a_plain_one(kind: object) -> None:
    error = client_module._error_of({"kind": kind, "message": "what", "hint": None})

    assert (type(error), error.message) == (CaskError, "what")


def test_failure_of_one_image_fails_the_request_and_the_next_succeeds(
    running: RunningEngine, manifest: Manifest
) -> None:
    def fail_on_two(image: np.ndarray, _: object) -> list[Prediction]:
        if fakes.name_of(image) == "2":
            raise RuntimeError
        return [Prediction(fakes.name_of(image), 1.0)]

    running.model.answer = fail_on_two

    with pytest.raises(CaskError, match="The model failed: RuntimeError"):
        ask(running.client, manifest, 1, 2, 3)

    assert labels(ask(running.client, manifest, 4, 5)) == ["4", "5"]


@pytest.mark.parametrize("failure", [RuntimeError, SystemExit, StopIteration])
def test_image_that_a_model_cannot_answer_costs_its_neighbours_in_the_batch_nothing(
    tmp_path: Path, manifest: Manifest, failure: type[BaseException]
) -> None:
    def fail_on_two(image: np.ndarray, _: object) -> list[Prediction]:
        if fakes.name_of(image) == "2":
            raise failure(2)
        return [Prediction(fakes.name_of(image), 1.0)]

    with fakes.running_engine(tmp_path / "engine.sock", [manifest], limits=Limits(8)) as engine:
        engine.model.answer = fail_on_two
        engine.model.gate.clear()
        with in_background(lambda: ask(engine.client, manifest, 99)) as first:
            engine.model.wait_until_busy()
            others = (lambda: ask(engine.client, manifest, 1, 3)), (lambda: ask(engine.client, manifest, 2))
            with in_background(others[0]) as right, in_background(others[1]) as wrong:
                eventually(lambda: engine.workers.status()["waiting"] == 3)
                engine.model.gate.set()

    assert labels(first.result()) == ["99"]
    assert labels(right.result()) == ["1", "3"]
    with pytest.raises(CaskError, match=f"The model failed: {failure.__name__}"):
        wrong.result()


def test_answer_that_a_task_cannot_send_is_told_at_once(
    running: RunningEngine, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises: the caller would wait until the deadline."""
    monkeypatch.setattr("app.engine.server.to_wire", lambda asked, answer: [][0])

    with pytest.raises(CaskError, match="The model gave an answer that cannot be sent: list index out of range"):
        ask(running.client, manifest, 1)


def test_queue_that_overflows_in_mid_request_is_busy_and_empty_again_afterwards(
    tmp_path: Path, manifest: Manifest
) -> None:
    with fakes.running_engine(tmp_path / "engine.sock", [manifest], max_queue_size=4, limits=Limits(1)) as engine:
        engine.model.gate.clear()
        with in_background(lambda: ask(engine.client, manifest, 99)) as first:
            engine.model.wait_until_busy()
            with pytest.raises(EngineBusyError, match="at most 4 may"):
                ask(engine.client, manifest, *range(6))
            wait_until_given_up(engine)
            engine.model.gate.set()

            assert labels(first.result(PATIENCE_SECONDS)) == ["99"]
        assert labels(ask(engine.client, manifest, 1, 2, 3)) == ["1", "2", "3"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), np.float32(0.5)], ids=str)
def test_answer_that_cannot_be_sent_is_an_error_and_the_worker_lives_on(
    running: RunningEngine, manifest: Manifest, score: float
) -> None:
    running.model.answer = lambda *_: [Prediction("cone", score)]
    with pytest.raises(CaskError, match="an answer that cannot be sent"):
        ask(running.client, manifest, 1)

    running.model.answer = lambda *_: [Prediction("cone", 0.5)]
    assert labels(ask(running.client, manifest, 2)) == ["cone"]


def test_model_that_failed_to_load_says_so_to_the_caller(tmp_path: Path, manifest: Manifest) -> None:
    with fakes.running_engine(tmp_path / "engine.sock", [manifest]) as engine:
        engine.model.golden_error = GoldenCheckError("differs")
        engine.workers._load(engine.workers.slots[manifest.key])

        with pytest.raises(ModelNotReadyError, match="failed to load"):
            ask(engine.client, manifest, 1)


# ── the engine is away ────────────────────────────────────────────────────────────────────────────────────────────────


def test_engine_that_has_not_started_is_away(client: EngineClient, manifest: Manifest) -> None:
    with pytest.raises(EngineAwayError, match="it has not started, or is being replaced") as caught:
        ask(client, manifest, 1)

    assert caught.value.retry_after_seconds == 2.0


def test_engine_that_crashed_and_left_its_socket_is_away(client: EngineClient, manifest: Manifest) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(client.socket_path))

    with pytest.raises(EngineAwayError, match="its process has ended"):
        ask(client, manifest, 1)
    assert client.peer_pid() is None


@pytest.mark.parametrize("reply", [b"", HEAD.pack(b"CASK", protocol.VERSION, 2, 0, 100, 0)], ids=["before", "within"])
def test_engine_that_dies_in_mid_request_is_away_at_once(
    client: EngineClient, manifest: Manifest, reply: bytes
) -> None:
    def die(connection: socket.socket) -> None:
        read_frame(connection)
        connection.sendall(reply)

    with listening(client.socket_path, die), pytest.raises(EngineAwayError, match="ended while it worked"):
        ask(client, manifest, 1)

    assert client._idle == []


@pytest.mark.parametrize(
    "meta",
    [{"id": 7}, {"id": -1}, {"id": [0]}, {"id": "0"}],
    ids=str,
)
def test_reply_to_what_was_not_asked_is_refused(client: EngineClient, manifest: Manifest, meta: dict[str, Any]) -> None:
    def reply(connection: socket.socket) -> None:
        read_frame(connection)
        send(connection, Frame(FrameType.ANSWER, meta))
        connection.recv(1)

    with listening(client.socket_path, reply), pytest.raises(EngineAwayError, match="which was not asked"):
        ask(client, manifest, 1)


def test_engine_that_speaks_another_protocol_is_away(client: EngineClient, manifest: Manifest) -> None:
    def speak_http(connection: socket.socket) -> None:
        read_frame(connection)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(client.socket_path, speak_http), pytest.raises(EngineAwayError, match="magic is"):
        ask(client, manifest, 1)


def test_connection_that_an_earlier_engine_left_behind_is_replaced(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "engine.sock"
    client = EngineClient(path)

    def answer_once(connection: socket.socket) -> None:
        read_frame(connection)
        send(connection, Frame(FrameType.ANSWER, {"answer": [], "queue_ms": 0, "predict_ms": 0, "batch_size": 1}))

    with listening(path, answer_once):
        ask(client, manifest, 1)
    with fakes.running_engine(path, [manifest]):
        assert labels(ask(client, manifest, 2)) == ["2"]
        client.close()


def test_new_engine_takes_over_the_path_of_one_that_still_drains(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "engine.sock"
    with fakes.running_engine(path, [manifest]) as old:
        with fakes.running_engine(path, [manifest]) as new:
            old.server.stop(0)

            assert path.exists()
            assert labels(ask(new.client, manifest, 1)) == ["1"]

        assert not path.exists()


def test_engine_that_stops_answers_what_it_has_accepted(running: RunningEngine, manifest: Manifest) -> None:
    running.model.gate.clear()
    with in_background(lambda: ask(running.client, manifest, 1)) as asked:
        running.model.wait_until_busy()
        with in_background(lambda: running.server.stop(PATIENCE_SECONDS)) as stopped:
            eventually(lambda: running.workers.status()["is_stopping"])
            with pytest.raises(EngineAwayError):
                ask(EngineClient(running.client.socket_path), manifest, 2)
            running.model.gate.set()

            assert stopped.result(PATIENCE_SECONDS)
        assert labels(asked.result(PATIENCE_SECONDS)) == ["1"]


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_deadline_that_passes_is_an_error_and_the_work_is_not_done(running: RunningEngine, manifest: Manifest) -> None:
    running.model.gate.clear()
    with in_background(lambda: ask(running.client, manifest, 1)) as first:
        running.model.wait_until_busy()
        with in_background(lambda: ask(running.client, manifest, 2, 3, deadline=time.monotonic() + 0.3)) as late:
            eventually(lambda: running.workers.status()["waiting"] == 2)

            with pytest.raises(DeadlineExceededError, match="before the engine answered"):
                late.result(PATIENCE_SECONDS)

        wait_until_given_up(running)
        running.model.gate.set()
        first.result(PATIENCE_SECONDS)
    ask(running.client, manifest, 4)
    assert running.model.seen == ["1", "4"]


def test_caller_that_hangs_up_cancels_its_work(running: RunningEngine, manifest: Manifest) -> None:
    running.model.gate.clear()
    with in_background(lambda: ask(running.client, manifest, 1)):
        running.model.wait_until_busy()
        with raw(running.client.socket_path) as sock:
            send(sock, Frame(FrameType.PREDICT, predict_meta(manifest), pixels(2).tobytes()))
            eventually(lambda: running.workers.status()["waiting"] == 1)
        wait_until_given_up(running)
        running.model.gate.set()

    ask(running.client, manifest, 3)
    assert running.model.seen == ["1", "3"]


@pytest.mark.parametrize("left", [0.0, -5.0])
def test_deadline_that_has_passed_already_is_refused_without_asking(
    running: RunningEngine, manifest: Manifest, left: float
) -> None:
    with pytest.raises(DeadlineExceededError):
        ask(running.client, manifest, 1, deadline=time.monotonic() + left)

    assert running.model.seen == []


def test_engine_that_never_reads_costs_no_more_than_the_deadline(client: EngineClient, manifest: Manifest) -> None:
    large = np.zeros((2000, 2000, 3), np.uint8)
    stopped = threading.Event()

    with listening(client.socket_path, lambda _: stopped.wait(PATIENCE_SECONDS) and None):
        with pytest.raises(DeadlineExceededError):
            client.predict(manifest, [large], [ClassifyOptions()], time.monotonic() + 0.05)
        stopped.set()


# ── what comes in is not trusted ──────────────────────────────────────────────────────────────────────────────────────

GARBAGE = {
    "other protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "other release": HEAD.pack(b"CASK", 1, 1, 0, 0, 0),
    "too large": HEAD.pack(b"CASK", protocol.VERSION, 1, 0, 2**32 - 1, 0),
    "meta not JSON": HEAD.pack(b"CASK", protocol.VERSION, 1, 0, 4, 0) + b"nope",
    "an answer": b"".join(bytes(b) for b in protocol.encode(Frame(FrameType.ANSWER, {"id": 0}))),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_closes_its_connection_and_no_other(running: RunningEngine, manifest: Manifest, data: bytes) -> None:
    ask(running.client, manifest, 1)

    with raw(running.client.socket_path) as sock:
        sock.sendall(data)
        # Closing with bytes unread resets a connection instead of ending it.
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""

    assert labels(ask(running.client, manifest, 2)) == ["2"]


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": "x"},
        {"id": float("inf")},
        {"model": None},
        {"model": ["a"]},
        {"tensors": [["image", "uint8", [4, 3]]]},
        {"tensors": [["image", "uint8", [4, 5, 3]]]},
        {"tensors": [["image", "uint8", [-1, 4, 3]]]},
        {"tensors": [["image", "uint8", [0, 4, 3]]]},
        {"tensors": [["image", "uint8", [10**30, 4, 3]]]},
        {"tensors": [["image", "uint8", "4x"]]},
        {"tensors": [["image", "uint8", [6, 8]]]},
        {"tensors": [["image", "int8", [4, 4, 3]]]},
        {"tensors": [["picture", "uint8", [4, 4, 3]]]},
        {"tensors": [["image", "object", [4, 4, 3]]]},
        {"tensors": []},
        {"task": None},
        {"options": None},
        {"options": {"top_q": 1}},
        {"timeout_ms": "soon"},
        {"timeout_ms": float("nan")},
        {"timeout_ms": float("inf")},
    ],
    ids=str,
)
def test_predict_frame_that_is_wrong_harms_nobody_else(
    running: RunningEngine, manifest: Manifest, changes: dict[str, Any]
) -> None:
    meta = json.dumps(predict_meta(manifest, **changes)).encode()
    data = HEAD.pack(b"CASK", protocol.VERSION, FrameType.PREDICT, 0, len(meta), 48) + meta + bytes(48)

    with raw(running.client.socket_path) as sock:
        sock.sendall(data)
        if "model" in changes:
            assert read_frame(sock).meta["kind"] == "ModelNotFoundError"
        else:
            assert sock.recv(1) == b""

    assert labels(ask(running.client, manifest, 2)) == ["2"]


def test_predict_frame_without_its_keys_harms_nobody_else(running: RunningEngine, manifest: Manifest) -> None:
    with raw(running.client.socket_path) as sock:
        send(sock, Frame(FrameType.PREDICT, {}))

        assert sock.recv(1) == b""

    assert labels(ask(running.client, manifest, 2)) == ["2"]


def test_id_that_is_in_use_is_refused(running: RunningEngine, manifest: Manifest) -> None:
    running.model.gate.clear()
    with raw(running.client.socket_path) as sock:
        for _ in range(2):
            send(sock, Frame(FrameType.PREDICT, predict_meta(manifest), pixels(1).tobytes()))

        assert sock.recv(1) == b""


def test_frame_that_is_cut_off_holds_up_nobody(running: RunningEngine, manifest: Manifest) -> None:
    whole = b"".join(protocol.encode(Frame(FrameType.PREDICT, predict_meta(manifest), bytes(48))))
    with raw(running.client.socket_path) as sock:
        sock.sendall(whole[:-1])

        assert labels(ask(running.client, manifest, 2)) == ["2"]


def test_caller_that_does_not_read_its_answers_loses_its_connection_and_not_our_time(
    running: RunningEngine, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that was sent in part must not be followed by another."""
    ask(running.client, manifest, 0)
    monkeypatch.setattr(server, "SEND_TIMEOUT", struct.pack("ll", 0, 50_000))
    running.model.answer = lambda image, _: [Prediction(fakes.name_of(image) + "x" * 100_000, 1.0)]
    with raw(running.client.socket_path) as sock:
        with contextlib.suppress(BrokenPipeError):
            for number in range(20):
                send(sock, Frame(FrameType.PREDICT, predict_meta(manifest, id=number), pixels(1).tobytes()))

        assert labels(ask(running.client, manifest, 2))[0].rstrip("x") == "2"
        wait_for_hang_up(sock)
        assert is_whole_but_for_the_last_frame(read_to_end(sock))


def wait_for_hang_up(sock: socket.socket) -> None:
    """Return when the other side has ended the connection, whatever may still be read."""
    poller = select.poll()
    poller.register(sock, 0)
    assert poller.poll(PATIENCE_SECONDS * 1000), "still open"


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def is_whole_but_for_the_last_frame(data: bytes) -> bool:
    while len(data) >= HEAD.size:
        head = protocol.decode_head(data[: HEAD.size])
        data = data[HEAD.size + head.meta_bytes :]
    return True


# ── status ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_names_process_and_models(running: RunningEngine, manifest: Manifest) -> None:
    status = running.client.status()

    assert status["pid"] == os.getpid()
    assert [(row["name"], row["digest"], row["state"]) for row in status["models"]] == [
        (manifest.name, manifest.digest, "ready")
    ]
    assert (status["waiting"], status["busy_workers"], status["is_stopping"]) == (0, 0, False)


def test_status_is_answered_while_the_model_is_busy(running: RunningEngine, manifest: Manifest) -> None:
    running.model.gate.clear()
    with in_background(lambda: ask(running.client, manifest, 1)):
        running.model.wait_until_busy()

        assert running.client.status()["busy_workers"] == 1

        running.model.gate.set()


def test_engine_that_does_not_say_how_it_is_counts_as_away(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "STATUS_TIMEOUT_SECONDS", 0.05)
    asked = threading.Event()

    with listening(client.socket_path, lambda _: asked.wait(PATIENCE_SECONDS) and None):
        with pytest.raises(EngineAwayError, match=r"did not say how it is within 0\.05 s"):
            client.status()
        asked.set()


def test_peer_pid_is_known_although_nobody_answers(client: EngineClient) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(client.socket_path))
        hung.listen()

        assert client.peer_pid() == os.getpid()


def test_peer_of_another_container_has_no_pid(client: EngineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says 0, and a signal to 0 would end our own process group."""
    monkeypatch.setattr(client_module._Connection, "peer_pid", lambda _: 0)

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(client.socket_path))
        other.listen()

        assert client.peer_pid() is None


# ── what is left behind ───────────────────────────────────────────────────────────────────────────────────────────────


def test_socket_is_for_its_own_user_only_and_gone_after_the_stop(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "run" / "engine.sock"
    with fakes.running_engine(path, [manifest]):
        modes = path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777

    assert modes == (0o600, 0o700)
    assert list(path.parent.iterdir()) == []


def test_no_thread_and_no_file_is_left_behind(tmp_path: Path, manifest: Manifest) -> None:
    def open_files() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    threads, files = set(threading.enumerate()), open_files()
    with fakes.running_engine(tmp_path / "engine.sock", [manifest]) as engine:
        for number in range(5):
            ask(engine.client, manifest, number)
            with pytest.raises(DeadlineExceededError):
                ask(engine.client, manifest, number, deadline=time.monotonic() - 1)
            with raw(engine.client.socket_path) as sock:
                sock.sendall(b"x" * 20)

    eventually(lambda: not set(threading.enumerate()) - threads, "threads to end")
    eventually(lambda: open_files() <= files, "files to be closed")


def test_server_goes_on_accepting_after_it_had_no_file_left(
    running: RunningEngine, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SCARCITY_PAUSE_SECONDS", 0.001)
    failures = [OSError(24, "Too many open files"), RuntimeError("can't start new thread")]
    real = server.Connection.start

    def start(self: server.Connection) -> None:
        if failures:
            self._socket.close()
            raise failures.pop()
        real(self)

    monkeypatch.setattr(server.Connection, "start", start)

    for _ in range(2):
        with pytest.raises(EngineAwayError):
            ask(running.client, manifest, 1)

    assert labels(ask(running.client, manifest, 2)) == ["2"]


@pytest.mark.parametrize(
    ("sent", "left"), [(0, [b"abc", b"de"]), (2, [b"c", b"de"]), (3, [b"de"]), (4, [b"e"]), (5, [])]
)
def test_what_was_not_sent_is_sent_next(sent: int, left: list[bytes]) -> None:
    buffers = [memoryview(b"abc"), memoryview(b"de")]

    assert [bytes(each) for each in client_module._unsent(buffers, sent)] == left


# ── changes of versions ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[EngineClient]:
    """A client of a server that may change its versions; demo is there in 1 and 2."""
    for version in ("1", "2"):
        fakes.write_model(tmp_path / "models", "demo", version)
    (tmp_path / "state").mkdir()
    changes = Changes(tmp_path / "models", tmp_path / "state", ("demo",), keep_seconds=60, clock=time.monotonic)
    workers = Workers(changes.manifests_to_load(), FakeModel, threads=1, max_queue_size=8, limits=lambda _: Limits())
    shadows = Shadows(tmp_path / "state")
    made = server.Server(tmp_path / "engine.sock", workers, changes, shadows)
    client = EngineClient(tmp_path / "engine.sock")
    made.start()
    yield client
    client.close()
    made.stop(PATIENCE_SECONDS)


def test_change_tells_what_goes_on_and_what_came_of_it(changing: EngineClient) -> None:
    said: list[str] = []

    done = changing.change("promote", "demo", "1", say=said.append)

    assert (done["before"]["active"], done["after"]["active"], done["after"]["previous"]) == ("2", "1", "2")
    assert said[-1] == "the pointer has moved"
    assert changing.status()["roles"]["demo"]["active"] == "1"


def test_change_that_is_refused_says_why(changing: EngineClient) -> None:
    with pytest.raises(ChangeRefusedError, match="holds no demo of version '9'") as caught:
        changing.change("promote", "demo", "9", say=lambda line: None)

    assert caught.value.hint == "It has: 1, 2. Add it with make model-add."


def test_change_of_an_engine_with_fixed_versions_is_refused(running: RunningEngine) -> None:
    with pytest.raises(ChangeRefusedError, match="are fixed"):
        running.client.change("promote", "demo", "1", say=lambda line: None)


def test_change_is_made_although_nobody_listens_any_more(changing: EngineClient) -> None:
    with raw(changing.socket_path) as sock:
        send(sock, Frame(FrameType.CHANGE, {"action": "promote", "model": "demo", "version": "1", "share": 0}))

    eventually(lambda: changing.status()["roles"]["demo"]["active"] == "1", "the change")


def test_change_without_an_engine_says_that_it_is_away(client: EngineClient) -> None:
    with pytest.raises(EngineAwayError):
        client.change("promote", "demo", "1", say=lambda line: None)


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"action": "explode", "model": "demo", "version": "1", "share": 0},
        {"action": "promote", "model": "demo", "version": "1", "share": "many"},
    ],
)
def test_change_frame_that_is_wrong_ends_the_connection(changing: EngineClient, meta: dict[str, Any]) -> None:
    with raw(changing.socket_path) as sock:
        send(sock, Frame(FrameType.CHANGE, meta))

        assert sock.recv(1) == b""


def test_version_of_another_digest_is_not_asked(running: RunningEngine, manifest: Manifest) -> None:
    other = dataclasses.replace(manifest, digest="sha256:other")

    with pytest.raises(ModelNotFoundError, match="with another digest"):
        ask(running.client, other, 1)


# ── shadows ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ABOUT = {
    "scale_x": 1.0,
    "scale_y": 1.0,
    "width": 4,
    "height": 4,
    "left": 0.0,
    "top": 0.0,
    "answered_by": "2",
    "answer": [{"label": "7", "score": 0.75}],
    "request_id": "a-request",
    "dropped": 2,
}


def test_copy_is_compared_and_counted(changing: EngineClient, tmp_path: Path) -> None:
    changing.change("shadow", "demo", "1", say=lambda line: None)
    manifest = manifests.read(tmp_path / "models" / "demo" / "1")

    changing.shadow(manifest, pixels(7), ClassifyOptions(), ABOUT)

    eventually(lambda: changing.status()["shadows"].get("demo", {}).get("compared") == 1, "the comparison")
    row = changing.status()["shadows"]["demo"]
    assert (row["version"], row["same"], row["largest_difference"], row["dropped"]) == ("1", 1, 0.25, 2)


def test_copy_for_a_version_that_is_not_loaded_is_counted_as_dropped(changing: EngineClient, tmp_path: Path) -> None:
    manifest = manifests.read(tmp_path / "models" / "demo" / "1")

    changing.shadow(manifest, pixels(7), ClassifyOptions(), ABOUT)

    eventually(lambda: changing.status()["shadows"].get("demo", {}).get("dropped") == 3, "the count")


@pytest.mark.parametrize("change", [{"answer": 1}, {"scale_x": "wide"}, {"answered_by": None, "request_id": 1}])
def test_shadow_frame_that_is_wrong_ends_the_connection(
    changing: EngineClient, tmp_path: Path, change: dict[str, Any]
) -> None:
    manifest = manifests.read(tmp_path / "models" / "demo" / "2")
    meta = {**predict_meta(manifest), **ABOUT, **change}
    if "request_id" in change:
        del meta["answered_by"]
    with raw(changing.socket_path) as sock:
        send(sock, Frame(FrameType.SHADOW, meta, pixels(1).tobytes()))

        assert sock.recv(1) == b""


# ── scarcity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_callers_are_refused_at_once_while_the_engine_has_no_file_left(
    running: RunningEngine, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They waited in the queue until their deadlines, and a line was written ten times a second."""
    real, is_short = socket.socket.accept, threading.Event()
    is_short.set()
    taken: list[float] = []

    def accept(self: socket.socket) -> Any:
        # Once each time a descriptor was given up for it.
        if is_short.is_set() and self.gettimeout() is None:
            threading.Event().wait(0.001)
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with contextlib.suppress(EngineBusyError, EngineAwayError):
        # Lets the accepting thread out of its last call.
        ask(running.client, manifest, 1)
    running.client.close()
    for number in range(5):
        began = time.monotonic()
        with pytest.raises((EngineBusyError, EngineAwayError)) as caught:
            ask(EngineClient(running.client.socket_path), manifest, number)
        taken.append(time.monotonic() - began)
        assert caught.value.retry_after_seconds
    told = [record for record in caplog.records if "cannot accept connections" in record.message]
    is_short.clear()

    assert max(taken) < 2
    assert len(told) == 1
    eventually(lambda: answers(running.client, manifest), "an answer")


def answers(client: EngineClient, manifest: Manifest) -> bool:
    try:
        return labels(ask(client, manifest, 2)) == ["2"]
    except EngineBusyError:
        return False


def test_full_queue_is_waited_for_and_then_says_so(client: EngineClient, manifest: Manifest) -> None:
    """EAGAIN means that somebody is there: neither nobody, nor an error at once."""
    with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as stack:
        full.bind(str(client.socket_path))
        full.listen(1)
        for _ in range(2):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(client.socket_path))

        assert client.has_listener()
        began = time.monotonic()
        with pytest.raises(EngineAwayError, match="has taken no new connection for a second"):
            ask(client, manifest, 1, deadline=time.monotonic() + 10)
        assert 0.9 < time.monotonic() - began < 5
        with pytest.raises(DeadlineExceededError):
            ask(client, manifest, 1, deadline=time.monotonic() - 1)

        taking = threading.Timer(0.3, lambda: [stack.enter_context(full.accept()[0]) for _ in range(2)])
        taking.start()
        assert client.has_listener()
        taking.join()
