"""The door to decoding: what is quick and small here, what may be dear in a process that can be ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app import images, sizing
from app.budget import Budget, Hold
from app.config import Settings
from app.decoding.children import Children, late
from app.decoding.permits import Permits
from app.errors import ImageTooLargeError
from app.images import ImageData, Limits, Picture
from app.manifests import InputSpec

# A phone's photograph of 12 megapixels takes 0.1 to 0.2 s and some 40 MB. Beyond this, it is decoded elsewhere.
INLINE_SECONDS = 0.3
INLINE_BYTES = 80 * 1024**2
# Of the places for requests, those that may wait for such a process.
WAITING_SHARE = 0.1
# An input is held here, on its way, and by the engine.
COPIES_OF_INPUT = 3


@dataclass(frozen=True)
class Decoder:
    """One for each process. Thread-safe."""

    limits: Limits
    budget: Budget
    permits: Permits
    children: Children

    @classmethod
    def of(cls, settings: Settings, budget: Budget | None = None) -> Decoder:
        """As the settings have it; with a budget of its own unless one is given."""
        sizes = sizing.choose(settings)
        return cls(
            limits(settings),
            budget or Budget.of(sizes.request_memory.value, Path(settings.state_dir)),
            Permits(sizes.web_decoders.value),
            Children(
                sizes.web_decoding_processes.value,
                # They keep a thread each, and must not take the places of all others.
                max(1, int(sizes.web_places.value * WAITING_SHARE)),
                settings.images_max_decode_seconds,
            ),
        )

    def read(self, data: ImageData, spec: InputSpec, deadline: float, hold: Hold | None = None) -> Picture:
        """One image, ready for a model. ``deadline``: a moment of ``time.monotonic``.

        ``hold`` goes on holding what the picture takes until its owner closes it.
        Raises what ``images.read`` raises, MemoryShortError, DecodersBusyError and DeadlineExceededError.
        """
        if time.monotonic() >= deadline:
            raise late()
        with self.budget.hold("pixels") as own:
            picture = self._read(data, spec, deadline, own)
        if hold is not None:
            hold.grow(COPIES_OF_INPUT * picture.pixels.nbytes, deadline, "The request")
        return picture

    def _read(self, data: ImageData, spec: InputSpec, deadline: float, own: Hold) -> Picture:
        if isinstance(data, np.ndarray):
            # Four bytes for each pixel of three.
            self._grow(own, data.size * 4 // 3, deadline)
            with self._permit(deadline):
                return images.from_pixels(data, spec, self.limits)
        found = images.look(data, self.limits)
        peak_bytes = images.peak_bytes(found, spec)
        if peak_bytes > INLINE_BYTES or found.head.seconds > INLINE_SECONDS:
            with self.children.place(deadline):
                self._grow(own, peak_bytes, deadline)
                return self.children.decode(found, spec, deadline, peak_bytes)
        self._grow(own, peak_bytes, deadline)
        with self._permit(deadline):
            return images.decode(found, spec)

    def _grow(self, own: Hold, count: int, deadline: float) -> None:
        most = self.budget.most("pixels", count)
        if count > most:
            raise ImageTooLargeError(
                f"The image needs {count} bytes of memory while it is decoded; at most {most} can be had.",
                hint="Scale it down, or raise REQUEST_MEMORY_BYTES if there is more.",
            )
        own.grow(count, deadline, "The image")

    @contextlib.contextmanager
    def _permit(self, deadline: float) -> Iterator[None]:
        if not self.permits.acquire(max(0.0, deadline - time.monotonic())):
            raise late()
        try:
            yield
        finally:
            self.permits.release()


def limits(settings: Settings) -> Limits:
    """What is accepted, as the settings have it."""
    return Limits(
        settings.images_max_bytes,
        settings.images_max_pixels,
        tuple(name.upper() for name in settings.images_formats),
        settings.images_max_side,
    )
