"""The engine's side of the Unix socket: one reading thread a connection, answers sent by the thread that has them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.engine import calls, frame_sockets, protocol, tensors
from app.engine.batcher import Work
from app.engine.builder import Builder
from app.engine.changes import ACTIONS, GIVE_UP, Change, Changes
from app.engine.code_shadows import CodeShadows
from app.engine.monitor import ModelMonitor
from app.engine.protocol import Buffer, Frame, FrameType, ProtocolError
from app.engine.shadows import ShadowedAnswer, Shadows
from app.engine.worker import Reply, Workers
from app.errors import CaskError, ChangeRefusedError, EngineBusyError
from app.inference.results import EXPLAIN
from app.models.manifests import CODE
from app.supervision import pulse
from app.tasks import IMAGE, answer_from_json, options_from_json, to_wire
from app.texts import packed

log = logging.getLogger("cask.engine")

# A caller that does not read its own small answer for so long is gone; a worker thread must not wait for it.
SEND_TIMEOUT_SECONDS = 2
SEND_TIMEOUT = struct.pack("ll", SEND_TIMEOUT_SECONDS, 0)
# The kernel cuts it to its own limit (net.core.somaxconn): all threads of all web processes may come at once.
LISTEN_BACKLOG = 4096
# How long to leave the machine alone when it has no file or thread for one more connection.
SCARCITY_PAUSE_SECONDS = 0.1


class Server:
    """Listens on a Unix socket that only the service user may open, and speaks ``protocol``."""

    def __init__(
        self,
        socket_path: Path,
        workers: Workers,
        changes: Changes | None = None,
        shadows: Shadows | None = None,
        builder: Builder | None = None,
        inspector: ModelMonitor | None = None,
    ) -> None:
        """Without ``changes`` the versions are fixed, and a request for a change is refused; without ``shadows`` copies
        are thrown away. ``builder`` and ``inspector`` begin and end with us.
        """
        self.socket_path = socket_path
        self._workers = workers
        self._changes = changes
        self._shadows = shadows
        self._code_shadows = CodeShadows(workers, changes, shadows) if changes and shadows else None
        self._builder = builder
        self._inspector = inspector
        self._started = time.time()
        self._born = time.monotonic()
        self._listener: socket.socket | None = None
        self._inode = 0
        self._is_stopped = threading.Event()

    def start(self) -> None:
        """Listen, then load. A socket left behind by an engine that died is replaced. Raises OSError."""
        self._listener = _listen(self.socket_path)
        self._inode = self.socket_path.stat().st_ino
        threading.Thread(target=self._accept, args=(self._listener,), name="accept", daemon=True).start()
        self._workers.start()
        if self._changes is not None:
            self._changes.start(self._workers)
        if self._builder is not None:
            self._builder.start()
        if self._inspector is not None:
            self._inspector.start()
        log.info("engine %d listens on %s", os.getpid(), self.socket_path)

    @property
    def has_code(self) -> bool:
        """Whether a model is among ours that computes in a process of its own."""
        return any(slot.manifest.task == CODE for slot in list(self._workers.slots.values()))

    def wait_started(self, seconds: float) -> bool:
        """Wait until the models of the start are loaded or have failed. Returns False when the time was not enough."""
        return self._workers.is_started.wait(seconds)

    def stop(self, drain_seconds: float) -> bool:
        """Take the socket away, finish what is in hand. Returns False when the time was not enough."""
        self._remove_socket()
        if self._builder is not None:
            self._builder.stop()
        if self._inspector is not None:
            self._inspector.stop()
        is_done = self._workers.drain(drain_seconds)
        self._is_stopped.set()
        if self._listener is not None:
            # Closing alone would leave the thread in accept() for ever (Linux).
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        log.info("engine %d stopped%s", os.getpid(), "" if is_done else " with work left undone")
        return is_done

    def status(self) -> dict[str, Any]:
        """What the status frame answers: process, models, queue."""
        return {
            "pid": os.getpid(),
            "started": self._started,
            "uptime_seconds": round(time.monotonic() - self._born, 1),
            **self._workers.status(),
            **(self._changes.status() if self._changes else {}),
            **(self._shadows.status() if self._shadows else {}),
        }

    def stuck_seconds(self) -> float:
        """For how long a batch has lasted beyond what its model has shown to need."""
        return self._workers.stuck_seconds()

    def _remove_socket(self) -> None:
        """Only our own: a successor may listen on the same path already."""
        try:
            if self.socket_path.stat().st_ino == self._inode:
                self.socket_path.unlink()
        except FileNotFoundError:
            pass

    def _accept(self, listener: socket.socket) -> None:
        spare, is_told = _spare(), False
        while not self._is_stopped.is_set():
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if self._is_stopped.is_set():
                    break
                # Too many open files, or a client that gave up: the next ones are to be heard all the same.
                if not is_told:
                    log.warning("cannot accept connections: %s; they are refused until it can", error)
                is_told = True
                spare = self._refuse_one(listener, spare)
                continue
            try:
                Connection(sock, self._workers, self.status, self._changes, self._shadows, self._code_shadows).start()
                is_told = False
            except (OSError, RuntimeError) as error:
                if not is_told:
                    log.warning("no thread for a connection: %s; connections are refused until there is one", error)
                is_told = True
                _refuse_connection(sock)
                self._is_stopped.wait(SCARCITY_PAUSE_SECONDS)
        if spare is not None:
            os.close(spare)

    def _refuse_one(self, listener: socket.socket, spare: int | None) -> int | None:
        """Take one with a descriptor kept for that, and say no: who waits in the queue would wait until its deadline.

        Returns the descriptor to keep for the next one.
        """
        if spare is None:
            self._is_stopped.wait(SCARCITY_PAUSE_SECONDS)
            return _spare()
        os.close(spare)
        try:
            listener.settimeout(SCARCITY_PAUSE_SECONDS)
            sock, _ = listener.accept()
            _refuse_connection(sock)
        except OSError:
            # Gone, or another thread took the descriptor.
            self._is_stopped.wait(SCARCITY_PAUSE_SECONDS)
        finally:
            with contextlib.suppress(OSError):
                listener.settimeout(None)
        return _spare()


@dataclass
class _Pending:
    """A work in hand and the id under which the client knows it."""

    id: int
    work: Work


class Connection:
    """One client. When it closes, whatever it still waited for is cancelled."""

    def __init__(
        self,
        sock: socket.socket,
        workers: Workers,
        status: Callable[[], dict[str, Any]],
        changes: Changes | None = None,
        shadows: Shadows | None = None,
        code_shadows: CodeShadows | None = None,
    ) -> None:
        self._socket = sock
        # Python's own timeout would hold for reading too, and a client may well be silent between two requests.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_TIMEOUT)
        self._workers = workers
        self._status = status
        self._changes = changes
        self._shadows = shadows
        self._code_shadows = code_shadows
        self._send_lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}

    def start(self) -> None:
        """Serve it in a thread of its own. Raises RuntimeError when there is none to be had."""
        try:
            threading.Thread(target=self._serve, name="connection", daemon=True).start()
        except RuntimeError:
            self._socket.close()
            raise

    def _serve(self) -> None:
        try:
            while True:
                frame = frame_sockets.receive(self._socket)
                # One that always has another frame to read, or waits for a core, is no loop.
                pulse.begin()
                self._handle(frame)
        except EOFError:
            pass
        except ProtocolError as error:
            log.warning("a client sent an invalid frame: %s", error)
        except OSError as error:
            log.debug("a client's connection broke: %s", error)
        finally:
            self._close()

    def _close(self) -> None:
        for pending in list(self._pending.values()):
            self._workers.cancel(pending.work)
        self._break()
        # Not while another thread sends: its bytes could go to the next owner of the same file descriptor.
        with self._send_lock:
            self._socket.close()

    def _break(self) -> None:
        """End both directions; threads that read or send notice at once."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _handle(self, frame: Frame) -> None:
        if frame.type is FrameType.STATUS:
            self._send(protocol.encode(Frame(FrameType.STATUS_ANSWER, self._status())))
        elif frame.type is FrameType.PREDICT:
            self._submit(self._parse_predict(frame))
        elif frame.type is FrameType.CALL:
            self._handle_call(frame)
        elif frame.type is FrameType.SHADOW:
            self._handle_shadow(frame)
        elif frame.type is FrameType.CHANGE:
            self._handle_change(frame)
        else:
            raise ProtocolError(f"a client may not send {frame.type.name}")

    def _handle_shadow(self, frame: Frame) -> None:
        """Nobody waits for an answer; what cannot be done now is dropped and counted."""
        asked = _parse_asked(frame)
        work = self._work(frame, lambda reply: self._note(asked, reply))
        if self._shadows is None:
            return
        dropped = int(frame.meta.get("dropped", 0)) + (not self._workers.offer(work))
        if dropped:
            self._shadows.drop(asked.model, asked.shadow, dropped)

    def _note(self, asked: ShadowedAnswer, reply: Reply) -> None:
        if self._shadows is not None:
            self._shadows.note(asked, reply)

    def _handle_change(self, frame: Frame) -> None:
        """Made in this thread: each change has a connection of its own. It is finished also when nobody listens."""
        change = _parse_change(frame)
        with pulse.heat.exempt():
            self._change(change)

    def _change(self, change: Change) -> None:
        try:
            if self._changes is None:
                raise ChangeRefusedError("The versions of this engine are fixed.", hint="Start it from the settings.")
            answer = Frame(FrameType.CHANGED, self._changes.apply(change, self._tell))
        except CaskError as error:
            answer = _error_frame(0, error)
        self._send(protocol.encode(answer))

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._send(protocol.encode(Frame(FrameType.PROGRESS, {"line": line})))

    def _handle_call(self, frame: Frame) -> None:
        number = _number(frame)

        def answer(reply: Reply) -> None:
            self._reply(number, reply, CODE)
            if self._code_shadows is not None:
                self._code_shadows.offer(work, reply)

        work = calls.work(frame, self._workers.clock(), answer)
        self._submit(_Pending(number, work))

    def _submit(self, pending: _Pending) -> None:
        if pending.id in self._pending:
            raise ProtocolError(f"the id {pending.id} is in use already")
        self._pending[pending.id] = pending
        try:
            self._workers.submit(pending.work)
        except CaskError as error:
            self._reply(pending.id, Reply(error=error), "")

    def _parse_predict(self, frame: Frame) -> _Pending:
        number, asked = _number(frame), str(frame.meta.get("task"))
        return _Pending(number, self._work(frame, lambda reply: self._reply(number, reply, asked)))

    def _work(self, frame: Frame, reply: Callable[[Reply], None]) -> Work:
        meta = frame.meta
        try:
            image = _image(tensors.unpack(meta["tensors"], frame.payload))
            height, width = image.shape[:2]
            asked = str(meta["task"])
            timeout_seconds = float(meta["timeout_ms"]) / 1000
            if not math.isfinite(timeout_seconds):
                raise ValueError(f"a timeout of {timeout_seconds} s")
            now = self._workers.clock()
            return Work(
                model_key=str(meta["model"]),
                # Predictions and explanations of one shape are computed by different networks.
                shape=(height, width, EXPLAIN) if asked == EXPLAIN else (height, width),
                arrived=now,
                deadline=now + timeout_seconds,
                image=image,
                size=_size(meta.get("size")),
                options=options_from_json(asked, meta["options"]),
                digest=str(meta.get("digest", "")),
                reply=reply,
                request_id=str(meta.get("request_id", ""))[:64],
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ProtocolError(f"a predict frame is wrong: {type(error).__name__}: {error}") from None

    def _reply(self, number: int, reply: Reply, asked: str) -> None:
        pending = self._pending.pop(number, None)
        if pending is None or pending.work.is_cancelled:
            return
        try:
            buffers = protocol.encode(_frame_of(number, reply, asked))
        except Exception as error:
            # Whatever a task makes of it: the caller would wait until the deadline.
            request = {"request_id": pending.work.request_id}
            log.exception("%s returned an answer that cannot be sent", pending.work.model_key, extra=request)
            failure = CaskError(
                "The model gave an answer that cannot be sent: %(reason)s.",
                hint="Tell the operator of this service the request id.",
                reason=error,
            )
            buffers = protocol.encode(_error_frame(number, failure))
        try:
            self._send(buffers)
        except OSError as error:
            log.debug("an answer could not be delivered: %s", error)
            # It may be there in part, so nothing may follow it; and the client is not to wait until its deadline.
            self._break()

    def _send(self, buffers: list[Buffer]) -> None:
        with self._send_lock:
            for buffer in buffers:
                self._socket.sendall(buffer)


def _spare() -> int | None:
    """A descriptor to give up when there is no other; None when there is none left for it."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _refuse_connection(sock: socket.socket) -> None:
    """Say that there is no room, and hang up."""
    error = EngineBusyError(
        "The engine can take no more connections.",
        hint="Send it again later; if it stays so, tell the operator of this service.",
    )
    with sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_TIMEOUT)
        for buffer in protocol.encode(_error_frame(0, error)):
            sock.sendall(buffer)
        # What it sends is not read; without this end of ours it could lose our word with it.
        sock.shutdown(socket.SHUT_WR)


def _number(frame: Frame) -> int:
    try:
        return int(frame.meta["id"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a predict frame is wrong: {type(error).__name__}: {error}") from None


def _size(sides: Any) -> tuple[int, int] | None:
    if sides is None:
        return None
    width, height = sides
    return int(width), int(height)


def _parse_asked(frame: Frame) -> ShadowedAnswer:
    meta = frame.meta
    try:
        model, _, version = str(meta["model"]).partition("@")
        return ShadowedAnswer(
            str(meta["task"]),
            model,
            str(meta["answered_by"]),
            version,
            answer_from_json(str(meta["task"]), meta["answer"]),
            float(meta["scale_x"]),
            float(meta["scale_y"]),
            float(meta["left"]),
            float(meta["top"]),
            str(meta["request_id"]),
            int(meta["width"]),
            int(meta["height"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a shadow frame is wrong: {type(error).__name__}: {error}") from None


def _parse_change(frame: Frame) -> Change:
    meta = frame.meta
    try:
        change = Change(
            str(meta["action"]),
            str(meta["model"]),
            str(meta["version"]),
            float(meta["share"]),
            meta.get("is_anyway") is True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a change frame is wrong: {type(error).__name__}: {error}") from None
    if change.action not in (*ACTIONS, GIVE_UP):
        raise ProtocolError(f"a change {change.action!r} is unknown")
    return change


def _image(arrays: dict[str, Any]) -> np.ndarray:
    """The image that a task is asked about. Raises KeyError, ValueError."""
    image: np.ndarray = arrays[IMAGE]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 1:
        raise ValueError(f"an image of {image.dtype} {image.shape}, expected uint8 [height, width, 3]")
    return image


def _error_frame(number: int, error: CaskError) -> Frame:
    meta = {
        "id": number,
        "kind": type(error).__name__,
        "message": packed(error.message),
        "hint": packed(error.hint),
        "retry_after_seconds": error.retry_after_seconds,
    }
    return Frame(FrameType.ERROR, meta)


def _frame_of(number: int, reply: Reply, asked: str) -> Frame:
    """``asked``: the task, or EXPLAIN."""
    if reply.error is not None:
        return _error_frame(number, reply.error)
    if isinstance(reply.answer, bytes):
        return calls.answer(number, reply)
    rows, arrays = to_wire(asked, reply.answer or [])
    meta = {
        "id": number,
        "answer": rows,
        "queue_ms": round(reply.queue_ms, 3),
        "predict_ms": round(reply.predict_ms, 3),
        "batch_size": reply.batch_size,
        "form": reply.form,
    }
    if not arrays:
        return Frame(FrameType.ANSWER, meta)
    named, payload = tensors.pack(arrays)
    return Frame(FrameType.ANSWER, {**meta, "tensors": named}, payload)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(temporary))
    temporary.chmod(0o600)
    listener.listen(LISTEN_BACKLOG)
    # Renamed into place when it already listens, so that no client meets a socket without an engine behind it.
    temporary.rename(path)
    return listener
