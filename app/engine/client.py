"""The door to the engine. Knows sockets and deadlines; no Flask, no torch. Raises errors that a caller understands."""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app import errors
from app.engine import protocol
from app.engine.protocol import Buffer, Frame, FrameTooLargeError, FrameType, ProtocolError
from app.errors import CaskError, DeadlineExceededError, EngineAwayError, RequestTooLargeError
from app.inference.results import EXPLAIN, Answer, ExplainOptions, Options, to_dict
from app.models.manifests import Manifest
from app.tasks import IMAGE, from_wire
from app.telemetry import logs
from app.texts import Text, unpacked

if TYPE_CHECKING:
    import numpy as np

STATUS_TIMEOUT_SECONDS = 1.0
# A copy that was not compared by then is worth nothing more.
SHADOW_TIMEOUT_SECONDS = 5.0
# A large model is read, compiled and compared in minutes.
CHANGE_TIMEOUT_SECONDS = 3600.0
CONNECT_TIMEOUT_SECONDS = 1.0
RETRY_AFTER_SECONDS = 2.0
# Room for a whole image: with the kernel's 208 kB a sender waits for its reader twice an image.
SEND_BUFFER_BYTES = 1024 * 1024
SHORTEST_WAIT_SECONDS = 1e-5
Say = Callable[[str], None]
# A reply to one image has some hundred bytes: one call into the kernel brings all of it.
RECEIVE_BYTES = 64 * 1024
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
TIME_SPAN = struct.Struct("@ll")  # struct timeval: seconds and microseconds


@dataclass(frozen=True)
class EngineAnswer:
    """One image's answer, where its time went (milliseconds), and how it was computed (a runtime variant)."""

    answer: Answer
    queue_ms: float
    predict_ms: float
    batch_size: int
    form: str = ""


@dataclass(frozen=True)
class CallAnswer:
    """What a model with code answers to one item: JSON, and where its time went (milliseconds)."""

    json: bytes
    queue_ms: float
    predict_ms: float
    batch_size: int


Received = TypeVar("Received", bytes, int)


class _Connection:
    """One open socket to the engine, used by one thread at a time."""

    def __init__(self, path: Path, deadline: float = math.inf) -> None:
        """Raises OSError; BlockingIOError when the engine took nobody before the deadline, or for a second."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            # The kernel counts the time (socket(7), SO_SNDTIMEO, SO_RCVTIMEO): Python's own way asks twice more a call,
            # lets go of its lock each time, and fails at once where the listener's queue is full.
            self._limit(socket.SO_SNDTIMEO, min(deadline, time.monotonic() + CONNECT_TIMEOUT_SECONDS))
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._ahead = b""

    def send(self, frame: Frame, deadline: float) -> None:
        buffers = [memoryview(buffer) for buffer in protocol.encode(frame)]
        while buffers:
            self._limit(socket.SO_SNDTIMEO, deadline)
            buffers = _unsent(buffers, self._sendmsg(buffers))

    def receive(self, deadline: float) -> Frame:
        return protocol.read_frame(lambda count: self._read_exactly(count, deadline))

    def peer_pid(self) -> int:
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        pid: int = CREDENTIALS.unpack(credentials)[0]
        return pid

    def close(self) -> None:
        self._socket.close()

    def _sendmsg(self, buffers: list[memoryview]) -> int:
        try:
            return self._socket.sendmsg(buffers)
        except BlockingIOError:
            raise TimeoutError from None

    def _read_exactly(self, count: int, deadline: float) -> Buffer:
        if count > RECEIVE_BYTES:
            return self._read_large(count, deadline)
        while len(self._ahead) < count:
            received = self._received(deadline, lambda: self._socket.recv(RECEIVE_BYTES))
            self._ahead += received
        data, self._ahead = self._ahead[:count], self._ahead[count:]
        return data

    def _read_large(self, count: int, deadline: float) -> Buffer:
        """Into one piece of memory: to put 64 KiB pieces together again and again takes 10 s for 100 MB."""
        data = bytearray(count)
        data[: len(self._ahead)] = self._ahead[:count]
        view, self._ahead = memoryview(data)[len(self._ahead) :], self._ahead[count:]
        while view:
            view = view[self._received(deadline, partial(self._socket.recv_into, view)) :]
        return data

    def _received(self, deadline: float, receive: Callable[[], Received]) -> Received:
        self._limit(socket.SO_RCVTIMEO, deadline)
        try:
            received = receive()
        except BlockingIOError:
            raise TimeoutError from None
        if not received:
            raise ConnectionResetError("the engine closed the connection")
        return received

    def _limit(self, what: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        # Nothing at all would mean for ever.
        if left < SHORTEST_WAIT_SECONDS:
            raise TimeoutError
        seconds = int(left)
        self._socket.setsockopt(socket.SOL_SOCKET, what, TIME_SPAN.pack(seconds, int((left - seconds) * 1e6)))


class EngineClient:
    """Asks the engine. Thread-safe; keeps connections open between requests; one for each process."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()

    def predict(
        self,
        manifest: Manifest,
        images: Sequence[np.ndarray],
        options: Sequence[Options],
        deadline: float,
        sizes: Sequence[tuple[int, int]] = (),
    ) -> list[EngineAnswer]:
        """Predict images (uint8, height × width × 3) and return one answer each, in order.

        ``sizes``: width and height of the originals, where they are known. ``deadline`` is a moment of
        ``time.monotonic``. Raises EngineAwayError, EngineBusyError, ModelNotReadyError,
        ModelNotFoundError, DeadlineExceededError, GpuOutOfMemoryError.
        """
        frames = [
            _predict_frame(number, manifest, image, image_options, deadline, sizes[number] if sizes else None)
            for number, (image, image_options) in enumerate(zip(images, options, strict=True))
        ]
        replies = self._exchange(frames, deadline)
        return [_read_answer(manifest, replies[number], image_options) for number, image_options in enumerate(options)]

    def call(
        self,
        manifest: Manifest,
        items: Sequence[tuple[Sequence[Any], Buffer]],
        options: dict[str, Any],
        deadline: float,
    ) -> list[CallAnswer]:
        """Ask a model with code: the values of each item and the bytes that they point into, and the options of all.

        Raises InputRefusedError, ModelCrashedError, and what ``predict`` raises.
        """
        about = {
            "model": manifest.key,
            "digest": manifest.digest,
            "options": options,
            "request_id": logs.request_id.get(),
            "timeout_ms": max(0.0, (deadline - time.monotonic()) * 1000),
        }
        frames = [
            Frame(FrameType.CALL, {"id": number, "values": values, **about}, data)
            for number, (values, data) in enumerate(items)
        ]
        replies = self._exchange(frames, deadline)
        return [_read_call(replies[number]) for number in range(len(frames))]

    def status(self) -> dict[str, Any]:
        """What the engine says of itself. Raises EngineAwayError when it does not answer within a second."""
        deadline = time.monotonic() + STATUS_TIMEOUT_SECONDS
        try:
            return self._exchange([Frame(FrameType.STATUS, {})], deadline)[0].meta
        except DeadlineExceededError:
            raise EngineAwayError(
                "The engine did not say how it is within %(seconds)g s.",
                hint="It hangs or the machine is overloaded.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
                seconds=STATUS_TIMEOUT_SECONDS,
            ) from None

    def change(
        self, action: str, model: str, version: str = "", share: float = 0.0, *, is_anyway: bool = False, say: Say
    ) -> dict[str, Any]:
        """Ask for a change of versions and wait for its end; ``say`` is told what goes on.

        ``action``: one of promote, rollback, canary, shadow, reload. ``is_anyway``: also to a slower version.
        Returns the model's roles before and after.
        Raises ChangeRefusedError, ModelLoadError, ManifestError, EngineAwayError.
        """
        deadline = time.monotonic() + CHANGE_TIMEOUT_SECONDS
        meta = {"action": action, "model": model, "version": version, "share": share, "is_anyway": is_anyway}
        connection: _Connection | None = None
        try:
            connection = _Connection(self.socket_path)
            connection.send(Frame(FrameType.CHANGE, meta), deadline)
            while (reply := connection.receive(deadline)).type is FrameType.PROGRESS:
                say(str(reply.meta.get("line", "")))
        except (OSError, ProtocolError) as error:
            raise _away(error) from None
        finally:
            if connection is not None:
                connection.close()
        if reply.type is FrameType.ERROR:
            raise _error_of(reply.meta)
        return reply.meta

    def shadow(self, manifest: Manifest, image: np.ndarray, options: Options, about: dict[str, Any]) -> None:
        """Send one image to be predicted when the engine has time, and compared with what ``about`` tells.

        Waits for no answer. Raises EngineAwayError, DeadlineExceededError.
        """
        deadline = time.monotonic() + SHADOW_TIMEOUT_SECONDS
        frame = _predict_frame(0, manifest, image, options, deadline)
        connection, _ = self._borrow(deadline)
        try:
            connection.send(Frame(FrameType.SHADOW, {**frame.meta, **about}, frame.payload), deadline)
        except OSError as error:
            connection.close()
            raise _away(error) from None
        self._give_back(connection)

    def peer_pid(self) -> int | None:
        """The process that listens on the socket, also when it hangs; None when nobody does, or its queue is full.

        The kernel completes a connection and knows its other end without the listener's doing (unix(7), SO_PEERCRED).
        It says 0 for a process of another container, which is None to us: signals to 0 reach one's own group.
        """
        try:
            connection = _Connection(self.socket_path)
        except OSError:
            return None
        try:
            return connection.peer_pid() or None
        finally:
            connection.close()

    def has_listener(self) -> bool:
        """Whether a process listens on the socket. One with a full queue is there, though it takes nobody."""
        try:
            _Connection(self.socket_path).close()
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _exchange(self, frames: list[Frame], deadline: float) -> dict[int, Frame]:
        """Send frames and wait for a reply to each. A connection that an earlier engine left behind is tried anew."""
        while True:
            connection, is_fresh = self._borrow(deadline)
            try:
                replies = _ask(connection, frames, deadline)
            except TimeoutError:
                # Closing tells the engine that nobody waits any more.
                connection.close()
                raise _late() from None
            except FrameTooLargeError as error:
                connection.close()
                raise RequestTooLargeError(
                    "The request is too large for the engine: %(why)s.",
                    hint="Send less at once: smaller pictures, or fewer and shorter values.",
                    why=str(error),
                ) from None
            except (OSError, ProtocolError) as error:
                connection.close()
                if is_fresh:
                    raise _away(error) from None
                self.close()
            except BaseException:
                connection.close()
                raise
            else:
                self._give_back(connection)
                return replies

    def _borrow(self, deadline: float) -> tuple[_Connection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        try:
            return _Connection(self.socket_path, deadline), True
        except TimeoutError:
            raise _late() from None
        except OSError as error:
            raise _away(error) from None

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            self._idle.append(connection)


def _unsent(buffers: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of buffers of bytes when so many bytes have gone."""
    while buffers and sent >= buffers[0].nbytes:
        sent -= buffers[0].nbytes
        buffers = buffers[1:]
    return [buffers[0][sent:], *buffers[1:]] if buffers else []


def _ask(connection: _Connection, frames: list[Frame], deadline: float) -> dict[int, Frame]:
    for frame in frames:
        connection.send(frame, deadline)
    replies: dict[int, Frame] = {}
    while len(replies) < len(frames):
        reply = connection.receive(deadline)
        if reply.type is FrameType.ERROR:
            raise _error_of(reply.meta)
        number = reply.meta.get("id", 0)
        if number not in range(len(frames)) or number in replies:
            raise ProtocolError(f"a reply to {number!r}, which was not asked")
        replies[number] = reply
    return replies


def _predict_frame(
    number: int,
    manifest: Manifest,
    image: np.ndarray,
    options: Options,
    deadline: float,
    size: tuple[int, int] | None = None,
) -> Frame:
    # With numpy, which a worker of jobs that has no work does without.
    from app.engine import tensors

    rows, payload = tensors.pack({IMAGE: image})
    meta = {
        "id": number,
        "model": manifest.key,
        "digest": manifest.digest,
        "task": _task_of(manifest, options),
        "tensors": rows,
        "size": size,
        "options": to_dict(options),
        "request_id": logs.request_id.get(),
        "timeout_ms": max(0.0, (deadline - time.monotonic()) * 1000),
    }
    return Frame(FrameType.PREDICT, meta, payload)


def _task_of(manifest: Manifest, options: Options) -> str:
    return EXPLAIN if isinstance(options, ExplainOptions) else manifest.task


def _read_answer(manifest: Manifest, frame: Frame, options: Options) -> EngineAnswer:
    meta = frame.meta
    from app.engine import tensors

    arrays = tensors.unpack(meta["tensors"], frame.payload) if "tensors" in meta else {}
    answer = from_wire(_task_of(manifest, options), meta["answer"], arrays)
    form = str(meta.get("form", ""))
    return EngineAnswer(answer, meta["queue_ms"], meta["predict_ms"], meta["batch_size"], form)


def _read_call(frame: Frame) -> CallAnswer:
    meta = frame.meta
    return CallAnswer(bytes(frame.payload), meta["queue_ms"], meta["predict_ms"], meta["batch_size"])


def _error_of(meta: dict[str, Any]) -> CaskError:
    kind = getattr(errors, str(meta.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, CaskError)):
        kind = CaskError
    error = kind(unpacked(meta.get("message", "The engine failed.")), hint=unpacked(meta.get("hint", "")))
    if meta.get("retry_after_seconds") is not None:
        error.retry_after_seconds = meta["retry_after_seconds"]
    error.number = meta.get("id", 0)
    return error


def _late() -> DeadlineExceededError:
    return DeadlineExceededError(
        "The deadline passed before the engine answered.",
        hint="Allow more time with X-Request-Timeout, or send fewer images at once.",
    )


def _away(error: Exception) -> EngineAwayError:
    reasons: dict[type[Exception], str] = {
        FileNotFoundError: Text("it has not started, or is being replaced"),
        ConnectionRefusedError: Text("its process has ended and a new one has not started yet"),
        ConnectionResetError: Text("its process ended while it worked"),
        BrokenPipeError: Text("its process ended while it worked"),
        BlockingIOError: Text("it has taken no new connection for a second"),
        PermissionError: Text("this process may not open its socket"),
    }
    reason = reasons.get(type(error), f"{type(error).__name__}: {error}")
    away = EngineAwayError(
        "The engine does not answer: %(reason)s.",
        hint="Send it again after the time in Retry-After; /readyz tells when it is back.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        reason=reason,
    )
    away.was_working = isinstance(error, ConnectionResetError | BrokenPipeError)
    return away
