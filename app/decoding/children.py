"""Processes that decode what may take long or much memory: each can be ended when its time is over, and takes only its
own image with it."""

from __future__ import annotations

import dataclasses
import logging
import math
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.decoding import child
from app.decoding.slots import SlotQueue, late
from app.errors import DecodersBusyError, ImageTooComplexError, RequestError
from app.host import machine
from app.image_headers.inspection import Look
from app.inference.images import Picture
from app.models.manifests import InputSpec
from app.texts import unpacked

log = logging.getLogger("cask.web")

ROOT = Path(__file__).resolve().parents[2]
# One that has had no work for so long goes.
IDLE_SECONDS = 20.0
# Threads of numpy's libraries, each with memory of its own, which nobody here needs.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def command() -> Sequence[str]:
    """What starts one."""
    return [machine.python(), "-m", "app.decoding.child"]


@dataclass
class Child:
    """One process and the line to it."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    idle_since: float = field(default=math.inf)

    @classmethod
    def start(cls) -> Child:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                command(),
                cwd=ROOT,
                env=ENVIRONMENT,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        return cls(process, ours)

    def end(self) -> None:
        """Whatever it is doing."""
        self.line.close()
        self.process.kill()
        self.process.wait()


class Children:
    """At most so many, started when there is work. Thread-safe."""

    def __init__(self, most: int, most_waiting: int, most_seconds: float) -> None:
        """``most_waiting``: so many may wait for one. ``most_seconds``: the most processor time that one image may
        take; on a busy machine that is more by the clock, and no fault of the image.
        """
        self.slot_queue = SlotQueue(most, most_waiting)
        self._most_seconds = most_seconds
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._sweeper: threading.Thread | None = None

    def decode(self, found: Look, spec: InputSpec, deadline: float, most_bytes: int) -> Picture:
        """As ``images.decode``, elsewhere. ``most_bytes``: so much memory it may take beside the file.

        Raises what that raises; DeadlineExceededError at the deadline, a moment of ``time.monotonic``,
        ImageTooComplexError when it takes longer than any image may. Called within a slot of ``slot_queue``.
        """
        one = self._take()
        is_fit = False
        try:
            answer = _exchange(one.line, found, spec, deadline, most_bytes, self._most_seconds)
            is_fit = answer is not None
        except TimeoutError:
            raise late() from None
        except RequestError:
            is_fit = True
            raise
        except OSError:
            answer = None
        finally:
            if is_fit:
                self._give_back(one)
            else:
                one.end()
        if answer is None:
            raise self._ended(one.process.returncode, found.kind)
        return answer

    def close(self) -> None:
        """End those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            each.end()

    def _ended(self, status: int, kind: str) -> ImageTooComplexError:
        """What is said of an image whose process ended so."""
        if status == -child.TOO_LONG:
            return ImageTooComplexError(
                "The %(format)s image was not decoded within %(seconds)g s of processor time.",
                hint="Open it in another program and save it again; the operator of this service sets the limit.",
                format=kind,
                seconds=self._most_seconds,
            )
        log.warning("the process that decoded a %s image ended with status %d", kind, status)
        return ImageTooComplexError(
            "The %(format)s image ended the process that decoded it.",
            hint="Open it in another program and save it again.",
            format=kind,
        )

    def _take(self) -> Child:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            return Child.start()
        except OSError as error:
            raise DecodersBusyError(
                "No process to decode the image can be started: %(reason)s.",
                hint="Send it again after the time in Retry-After.",
                reason=error.strerror,
            ) from None

    def _give_back(self, one: Child) -> None:
        one.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(one)
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep, name="decoders", daemon=True)
                self._sweeper.start()

    def _sweep(self) -> None:
        """End who has been idle for long, until none is left."""
        while True:
            time.sleep(IDLE_SECONDS / 4)
            with self._lock:
                late_since = time.monotonic() - IDLE_SECONDS
                ended = [each for each in self._idle if each.idle_since < late_since]
                self._idle = [each for each in self._idle if each not in ended]
                is_done = not self._idle
                if is_done:
                    self._sweeper = None
            for each in ended:
                each.end()
            if is_done:
                return


def _exchange(
    line: socket.socket, found: Look, spec: InputSpec, deadline: float, most_bytes: int, most_seconds: float
) -> Picture | None:
    """None when the process has ended. Raises TimeoutError at the deadline, OSError, and what decoding raised there."""
    head = dataclasses.asdict(found.head)
    data = head.pop("data")
    asked = {
        "kind": found.kind,
        "size": found.size,
        "head": head,
        "spec": dataclasses.asdict(spec),
        "bytes": most_bytes,
        "seconds": most_seconds,
    }
    child.limit(line, deadline)
    child.send(line, asked, data)
    frame = child.receive(line, deadline)
    if frame is None:
        return None
    answer, pixels = frame
    if "code" in answer:
        raise child.ERRORS[answer["code"]](unpacked(answer["message"]), hint=unpacked(answer["hint"]))
    return Picture(np.frombuffer(pixels, np.uint8).reshape(answer.pop("shape")), **answer)
