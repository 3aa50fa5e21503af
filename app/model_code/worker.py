"""A model worker: the process of one model with code, seen from the engine. Started, asked, limited, replaced.

One thread supervises the process: it starts it, notices when it ends or is stopped, and starts the next one. Other
threads send it batches, each over a socket of its own: one at a time, or as many as the model allows.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from app.engine import frame_sockets
from app.engine.protocol import Buffer, Frame, FrameTooLargeError, FrameType, ProtocolError
from app.errors import ModelCrashedError, ModelLoadError, ModelNotReadyError
from app.host import machine
from app.model_code import environments, family, last_words, leftovers
from app.model_code.process import Ending, environment, how_ended
from app.model_code.process import status as process_status
from app.supervision import pulse
from app.telemetry import metrics, post_mortem

log = logging.getLogger("cask.engine")

MEGABYTE = 1024 * 1024
# How often the process is looked at; one that is stopped at two looks is replaced.
LOOK_SECONDS = 0.5
# A process that ended young is started again after a wait that doubles.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, YOUNG_SECONDS = 0.5, 30.0, 60.0
KEPT_LINES, TOLD_LINES, LINE_BYTES = 40, 12, 2000
# How long to wait for the rest of what a process wrote that has ended.
LISTEN_SECONDS = 2.0
# A process that hangs has so long to write where it is.
ABORT_SECONDS = 0.5
# More lines a second are counted, not logged.
LOGGED_LINES_A_SECOND = 20


@dataclass(frozen=True)
class Spec:
    """What a worker runs. ``timeout_seconds``: longest call of predict; ``load_seconds``: longest start.
    ``memory_mb``: 0 for no limit. ``threads``: of one call, as libraries read it; ``calls``: so many at once.
    ``check``: before each start; raises ModelLoadError where it must not be run.
    """

    key: str
    folder: Path
    timeout_seconds: float = 30.0
    load_seconds: float = 120.0
    memory_mb: int = 4096
    threads: int = 1
    calls: int = 1
    check: Callable[[], None] = lambda: None
    # To this process's own input and output, as a debugger wants it; else what it writes is logged.
    is_attached: bool = False
    # Limits that the class may declare otherwise, by name.
    of_class: frozenset[str] = frozenset()
    # Modules that its process imports before it is told to load; None: it loads at once.
    ahead: tuple[str, ...] | None = None


class ModelWorker:
    """One model's process and its successors. ``lines``: the last ones it wrote, for operators."""

    def __init__(self, spec: Spec) -> None:
        # The process has the folder as its own, from where a relative path leads nowhere.
        self.spec = replace(spec, folder=spec.folder.absolute())
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.signature: dict[str, Any] = {}
        # Modules of packages that it had loaded; asked only of one that imports ahead.
        self.imported: tuple[str, ...] = ()
        self.starts = 0
        self.error = ""
        # Why the last process ended: the label of the metric.
        self._why = ""
        # How long the last call of predict took by itself, without the way to it.
        self.predict_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        # Those of the process that is loaded that no call uses.
        self._idle: queue.LifoQueue[socket.socket] | None = None
        self._is_loaded = threading.Event()
        # Set when the first start has ended, well or not.
        self._is_settled = threading.Event()
        self._is_closed = threading.Event()
        # Until then a process that imports ahead waits.
        self._is_wanted = threading.Event()
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._has_said = False
        self._listener: threading.Thread | None = None
        self._keeper = threading.Thread(target=self._keep, name=f"keeper {spec.key}", daemon=True)

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 for none."""
        process = self._process
        # Not reaped here: its number must stay its own until its group was killed.
        return process.pid if process is not None and how_ended(process) is None else 0

    @property
    def trouble(self) -> str:
        """Why a process that had run does not load again, with its last lines; empty where it does."""
        return self._said() if self.error and not self._is_loaded.is_set() else ""

    def prepare(self) -> None:
        """Start the process, which imports ahead and then waits for ``start``."""
        self._keeper.start()

    def start(self) -> None:
        """Start the process and wait until the model is loaded. Raises ModelLoadError with the reason."""
        self._is_wanted.set()
        if self._keeper.ident is None:
            self._keeper.start()
        self._is_settled.wait()
        if not self._is_loaded.is_set():
            self.close()
            raise ModelLoadError(
                f"{self.spec.key}: {self._said()}",
                hint="Mend it and add it as another version; the whole of what it wrote is in the log.",
            )

    @property
    def reason(self) -> str:
        """Why it does not load, in a sentence: what it said, or where it crashed or hung; else with its last lines."""
        lines = list(self.lines)
        place = last_words.place(lines, self.spec.folder)
        return f"{place}{self.error}{last_words.crash(lines)}" if self._has_said or place else self._said()

    def _said(self) -> str:
        """Why it does not load, and the last lines that it wrote."""
        lines = " | ".join(list(self.lines)[-TOLD_LINES:])
        return f"{self.error}; its last lines: {lines}" if lines else self.error

    def close(self) -> None:
        """End the process and whatever it started. Returns when it is gone."""
        self._is_closed.set()
        self._is_wanted.set()
        self._kill()
        if self._keeper.is_alive() and self._keeper is not threading.current_thread():
            self._keeper.join()

    def ask(self, options: dict[str, Any], items: Sequence[tuple[Sequence[Any], Buffer]]) -> list[dict[str, Any]]:
        """Compute one batch: the values of each item, and the bytes that they point into.

        A row has ``answer`` (bytes of JSON), ``refused`` (why) or ``failed`` (the name of what was raised).
        Raises ModelNotReadyError while no process is loaded, ModelCrashedError when it ended or hung meanwhile.
        """
        idle = self._idle
        if idle is None or not self._is_loaded.is_set():
            raise self._not_ready()
        bases, at = [], 0
        for values, data in items:
            bases.append([values, at])
            at += len(data)
        # A picture of 12 megapixels is not copied once more.
        data = items[0][1] if len(items) == 1 else b"".join(data for _, data in items)
        frame = Frame(FrameType.PREDICT, {"options": options, "items": bases}, data)
        # Callers, the self-test too, wait here while all calls are in use.
        sock = idle.get()
        try:
            if self._idle is not idle:
                raise self._not_ready()
            reply = self._exchange(sock, frame)
            self.predict_seconds = float(reply.meta.get("seconds", 0.0))
            return _rows(reply, len(items))
        except FrameTooLargeError as error:
            if len(items) == 1:
                return [{"failed": f"{error}", "bytes": 0, "answer": b""}]
        except TimeoutError:
            self._give_up(idle, f"did not answer within {self.spec.timeout_seconds:g} s and is replaced", "hung")
            raise self._crashed("it did not answer within %(seconds)g s", seconds=self.spec.timeout_seconds) from None
        except (OSError, EOFError, ProtocolError, ValueError, KeyError, TypeError) as error:
            self._give_up(idle, f"ended while it computed ({type(error).__name__})", "")
            raise self._crashed("its process ended while it computed") from None
        finally:
            idle.put(sock)
        # Nothing was sent: each fits alone, together they do not.
        half = len(items) // 2
        return self.ask(options, items[:half]) + self.ask(options, items[half:])

    def _exchange(self, sock: socket.socket, frame: Frame) -> Frame:
        sock.settimeout(self.spec.timeout_seconds)
        frame_sockets.send(sock, frame)
        return _receive(sock, self.spec.timeout_seconds)

    def _give_up(self, idle: queue.LifoQueue[socket.socket], words: str, why: str) -> None:
        if self._idle is not idle:
            # Another call has said so, and the next process may run already.
            return
        log.warning("the worker of %s, process %d, %s", self.spec.key, self.pid, words)
        self._why = self._why or why
        self._is_loaded.clear()
        if why == "hung":
            self._abort()
        self._kill()

    def _not_ready(self) -> ModelNotReadyError:
        return ModelNotReadyError(
            "The model %(name)s is being started again.",
            hint="Send it again after the time in Retry-After.",
            retry_after_seconds=1.0 + self._seconds,
            name=self.spec.key,
        )

    def _crashed(self, reason: str, **values: object) -> ModelCrashedError:
        return ModelCrashedError(
            "The model %(name)s gave no answer: " + reason + ".",
            hint="Send it again after the time in Retry-After; if it stays so, tell the operator of this service.",
            retry_after_seconds=1.0 + self._seconds,
            name=self.spec.key,
            **values,
        )

    # ── the keeper ────────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self) -> None:
        wait = 0.0
        while not self._is_closed.wait(wait):
            started = time.monotonic()
            if self.starts:
                name = self.spec.key.partition("@")[0]
                metrics.MODEL_WORKER_RESTARTS.add(model=name, reason=self._why or "signal")
            try:
                self.spec.check()
                self._run_one()
            except ModelLoadError as error:
                self.error, self._why = error.message, "refused"
                log.error("the worker of %s is not started: %s", self.spec.key, error.message)  # noqa: TRY400
            except Exception as error:
                log.exception("the worker of %s could not be started", self.spec.key)
                self.error, self._why = f"{type(error).__name__}: {error}", "refused"
            is_first_failure = not self._is_settled.is_set()
            self._is_settled.set()
            if is_first_failure:
                return
            is_young = time.monotonic() - started < YOUNG_SECONDS
            wait = min(LONGEST_WAIT_SECONDS, max(FIRST_WAIT_SECONDS, 2 * wait)) if is_young else 0.0

    def _run_one(self) -> None:
        """From one start to its end."""
        self._why = ""
        leftovers.end_of_dead_engines(self.spec.folder)
        mark = leftovers.mark(self.spec.folder)
        pairs = [socket.socketpair() for _ in range(self.spec.calls)]
        with contextlib.ExitStack() as opened:
            ours = [opened.enter_context(one) for one, _ in pairs]
            with contextlib.ExitStack() as lent:
                process = self._spawn([lent.enter_context(other).fileno() for _, other in pairs], mark)
            try:
                self._load(process, ours)
                self._watch(process)
            finally:
                self._is_loaded.clear()
                self._idle = None
                self._why = self._why or _why(how_ended(process))
                self._kill()
                process.wait()
                leftovers.end(mark)
                for sock in ours:
                    # A caller who waits for an answer must not wait for another process that still holds the other end.
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                # Its last words are part of what is said about it.
                if self._listener is not None:
                    self._listener.join(LISTEN_SECONDS)
        log.info("the worker of %s, process %d, has ended with %s", self.spec.key, process.pid, process.returncode)

    def _spawn(self, descriptors: list[int], mark: str) -> subprocess.Popen[bytes]:
        spec = self.spec
        arguments = [",".join(map(str, descriptors)), str(spec.folder), self._memory(), str(os.getpid())]
        python, packages = environments.command(spec.folder)
        arguments += [str(packages or ""), *(["ahead"] if spec.ahead is not None else [])]
        with self._lock:
            if self._is_closed.is_set():
                raise ModelLoadError("it was closed")
            process = self._process = subprocess.Popen(
                [*python, "-P", "-s", "-m", "app.model_code.child", *arguments],
                cwd=spec.folder,
                env=environment(spec.threads, mark, spec.memory_mb),
                stdin=None if spec.is_attached else subprocess.DEVNULL,
                stdout=None if spec.is_attached else subprocess.PIPE,
                stderr=None if spec.is_attached else subprocess.STDOUT,
                pass_fds=descriptors,
                # Whatever it starts ends with it.
                start_new_session=True,
            )
        self.starts += 1
        if process.stdout is not None:
            listen = threading.Thread(
                target=self._listen, args=(process.stdout,), name=f"lines {spec.key}", daemon=True
            )
            listen.start()
            self._listener = listen
        return process

    def _memory(self) -> str:
        return f"{self.spec.memory_mb}{'?' * ('memory_mb' in self.spec.of_class)}"

    def _load(self, process: subprocess.Popen[bytes], ours: list[socket.socket]) -> None:
        try:
            if self.spec.ahead is not None:
                frame_sockets.send(ours[0], Frame(FrameType.CHANGE, {"imports": self.spec.ahead}))
                self._is_wanted.wait()
                frame_sockets.send(ours[0], Frame(FrameType.CHANGE, {}))
            reply = _receive(ours[0], self.spec.load_seconds)
        except TimeoutError:
            self.error, self._why = f"it did not load within {self.spec.load_seconds:g} s", "failed"
            self._abort()
            return
        except (OSError, EOFError, ProtocolError):
            self.error, self._why = f"its process ended while it loaded, status {process_status(process)}", "failed"
            return
        if reply.type is FrameType.ERROR:
            self.error, self._why, self._has_said = str(reply.meta.get("message")), "failed", True
            return
        self.signature, self._seconds, self.error = reply.meta["signature"], float(reply.meta["seconds"]), ""
        limits = reply.meta["limits"]
        self.spec = replace(self.spec, **{name: limits[name] for name in self.spec.of_class & limits.keys()})
        self.imported = tuple(reply.meta.get("imported", ()))
        idle: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        for sock in ours:
            idle.put(sock)
        self._idle = idle
        self._is_loaded.set()
        self._is_settled.set()
        log.info("the worker of %s is process %d, loaded in %.1f s", self.spec.key, process.pid, self._seconds)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Return when the process has ended, or was stopped and killed."""
        if not self._is_loaded.is_set():
            return
        looks = 0
        with contextlib.closing(Ending(process.pid)) as ending:
            while not ending.wait(LOOK_SECONDS):
                looks = looks + 1 if machine.is_stopped(process.pid) else 0
                if looks >= 2:
                    log.warning("the worker of %s, process %d, was stopped and is replaced", self.spec.key, process.pid)
                    self._why = "stopped"
                    return
                written = family.written_bytes(process.pid) // MEGABYTE
                if 0 < self.spec.memory_mb < written:
                    self._say_too_large(process.pid, written)
                    return

    def _say_too_large(self, pid: int, written_mb: int) -> None:
        self._why = "memory"
        log.warning(
            "the worker of %s, process %d, has with the processes that it started %d MB; allowed are %d MB (memory_mb),"
            " and it is replaced",
            self.spec.key,
            pid,
            written_mb,
            self.spec.memory_mb,
        )

    def _abort(self) -> None:
        """Let a process that hangs write where it is (faulthandler), and wait a moment for that."""
        with self._lock:
            process = self._process
            if process is None or how_ended(process) is not None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGABRT)
        with contextlib.suppress(ProcessLookupError), contextlib.closing(Ending(process.pid)) as ending:
            ending.wait(ABORT_SECONDS)

    def _kill(self) -> None:
        with self._lock:
            process = self._process
            if process is None or process.returncode is not None:
                return
            # It leads its group, and is not reaped before: the number is its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def _listen(self, pipe: IO[bytes]) -> None:
        second, count = 0, 0
        with pipe:
            while line := pipe.readline(LINE_BYTES):
                text = line.decode(errors="replace").rstrip()
                self.lines.append(text)
                now = int(time.monotonic())
                if now != second:
                    # A model that prints on and on keeps this thread at work: that is no loop of the engine's.
                    pulse.begin()
                    second, count = now, 0
                count += 1
                if count <= LOGGED_LINES_A_SECOND:
                    log.info("%s wrote: %s", self.spec.key, text)
                elif count == LOGGED_LINES_A_SECOND + 1:
                    log.warning(
                        "%s writes more than %d lines a second; the rest of this one is left out",
                        self.spec.key,
                        LOGGED_LINES_A_SECOND,
                    )


def _why(ended: str | None) -> str:
    """The reason in the metric, by how the process ended."""
    if ended == str(-signal.SIGKILL) and post_mortem.was_out_of_memory():
        return "memory"
    return "exit" if (ended or "-").isdecimal() else "signal"


def _receive(sock: socket.socket, seconds: float) -> Frame:
    """The next frame that is not about progress, each of which gives as much time again."""
    while True:
        frame = frame_sockets.receive(sock, time.monotonic() + seconds)
        if frame.type is not FrameType.PROGRESS:
            return frame


def _rows(reply: Frame, count: int) -> list[dict[str, Any]]:
    rows, data, at = reply.meta["rows"], bytes(reply.payload), 0
    if len(rows) != count:
        raise ProtocolError(f"{len(rows)} rows for {count} items")
    for row in rows:
        row["answer"] = data[at : at + row["bytes"]]
        at += row["bytes"]
    return list(rows)
