"""Sends copies of answered requests to the shadow version, off the callers' way. Drops what it cannot send in time."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from app import tasks
from app.errors import CaskError
from app.inference import options
from app.inference.images import ImageData, Picture
from app.inference.options import TaskParams
from app.inference.results import Answer, Options, to_dict
from app.models.manifests import InputSpec, Manifest
from app.supervision import pulse
from app.telemetry import logs

log = logging.getLogger("cask.web")

# Requests that wait for their copy; and of one request so many images. What is beyond is dropped and counted.
MAX_WAITING = 4
MAX_IMAGES = 4
# Images a second and process. Copies compete with callers for cores: with one for each request a lone caller's median
# went from 3.0 to 4.3 ms on two cores.
MAX_IMAGES_PER_SECOND = 10


# Nobody waits for a copy.
DECODE_SECONDS = 5.0
# Larger files, and as many rows of pixels, are not copied: those that wait would be memory that nobody counts.
MAX_BYTES = 1024**2

Read = Callable[[ImageData, InputSpec, float], Picture]


class ShadowEngine(Protocol):
    """What is needed of the engine's door."""

    def shadow(self, manifest: Manifest, image: np.ndarray, options: Options, about: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Copy:
    """One image of a request, and what was answered; ``image`` is as it came where the shadow needs another size."""

    shadow: Manifest
    answered_by: Manifest
    image_options: TaskParams
    image: Picture | ImageData
    answer: Answer
    request_id: str


class Shadowing:
    """A thread with a short queue before it; it starts with the first copy."""

    def __init__(self, read: Read, clock: Callable[[], float] = time.monotonic) -> None:
        """``read``: the decoder's, for a shadow whose input has another size."""
        self._read = read
        self._clock = clock
        self._next = -math.inf
        self._waiting: queue.Queue[tuple[ShadowEngine, list[Copy]]] = queue.Queue(MAX_WAITING)
        self._dropped: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def offer(
        self,
        engine: ShadowEngine,
        shadow: Manifest,
        answered_by: Manifest,
        params: Sequence[TaskParams],
        pictures: Sequence[Picture],
        data: Sequence[ImageData],
        answers: Sequence[Answer],
    ) -> None:
        """Take a copy of one answered request, or drop it; costs its caller some microseconds. Never raises."""
        if not self._may_copy(shadow, len(data)):
            return
        is_same_size = shadow.input == answered_by.input
        request_id = logs.request_id.get()
        rows = zip(params, pictures, data, answers, strict=True)
        copies = [
            Copy(shadow, answered_by, image_options, picture if is_same_size else raw, answer, request_id)
            for image_options, picture, raw, answer in list(rows)[:MAX_IMAGES]
            if is_same_size or len(raw) <= MAX_BYTES
        ]
        self._drop(shadow, min(len(data), MAX_IMAGES) - len(copies))
        try:
            self._waiting.put_nowait((engine, copies))
        except queue.Full:
            self._drop(shadow, len(copies))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shadowing", daemon=True)
                self._thread.start()

    def _may_copy(self, shadow: Manifest, images: int) -> bool:
        """Whether it is time for the next copy; what is left out is counted."""
        now, copied = self._clock(), min(images, MAX_IMAGES)
        with self._lock:
            is_time = now >= self._next
            if is_time:
                self._next = now + copied / MAX_IMAGES_PER_SECOND
        self._drop(shadow, images - copied if is_time else images)
        return is_time

    def _drop(self, shadow: Manifest, count: int) -> None:
        if count:
            with self._lock:
                self._dropped[shadow.key] += count

    def _run(self) -> None:
        while True:
            engine, copies = self._waiting.get()
            for copy in copies:
                pulse.begin()
                try:
                    self._send(engine, copy)
                except CaskError as error:
                    # The engine is away, or the picture does not suit the shadow; the caller has long been answered.
                    log.debug("a copy of a request for the shadow version was not sent: %s", error.message)
                except Exception:
                    log.exception("a copy of a request for the shadow version was not sent")

    def _send(self, engine: ShadowEngine, each: Copy) -> None:
        picture = each.image
        if not isinstance(picture, Picture):
            picture = self._read(picture, each.shadow.input, time.monotonic() + DECODE_SECONDS)
        with self._lock:
            dropped = self._dropped.pop(each.shadow.key, 0)
        about = {
            "scale_x": picture.scale_x,
            "scale_y": picture.scale_y,
            "width": picture.width,
            "height": picture.height,
            "left": picture.left,
            "top": picture.top,
            "answered_by": each.answered_by.version,
            "answer": [to_dict(row) for row in tasks.BY_NAME[each.shadow.task].lean(each.answer)],
            "request_id": each.request_id,
            "dropped": dropped,
        }
        image_options = picture.to_input(options.complete(each.image_options, each.shadow))
        engine.shadow(each.shadow, picture.pixels, image_options, about)
