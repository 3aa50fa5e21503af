"""The door to decoding: what is quick and small here, what may be dear in a process that can be ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.config import Settings
from app.decoding.children import Children
from app.decoding.slots import SlotQueue, late
from app.errors import ImageTooLargeError
from app.host import sizing
from app.inference import images
from app.inference.images import ImageData, Limits, Picture
from app.inference.memory_budget import Budget, Hold
from app.models.manifests import InputSpec
from app.texts import Text

# A phone's photograph of 12 megapixels takes 0.1 to 0.2 s and some 40 MB. Beyond this, it is decoded elsewhere.
INLINE_SECONDS = 0.3
INLINE_BYTES = 80 * 1024**2
# A picture of three megapixels takes less. What takes more waits in a queue of its own, half as wide: a hundred small
# ones are read in the time of one such.
QUICK_SECONDS = 0.03
# So many quick ones are let in for each decoder: a thread with a slot may wait for the GIL and leave a core idle.
QUICK_A_DECODER = 3
SECONDS_PER_RAW_PIXEL = 3e-9
# Of the places for requests, those that may wait there, and for a process: they must not take the places of all others.
AMPLE_WAITING_SHARE, DEAR_WAITING_SHARE = 0.4, 0.1
# An input is held here, on its way, and by the engine.
COPIES_OF_INPUT = 3
THE_IMAGE = Text("The image")


@dataclass(frozen=True)
class Decoder:
    """One for each process. Thread-safe."""

    limits: Limits
    budget: Budget
    quick: SlotQueue
    ample: SlotQueue
    children: Children

    @classmethod
    def of(cls, settings: Settings) -> Decoder:
        """As the settings have it."""
        sizes = sizing.choose(settings)
        places, decoders = sizes.web_places.value, sizes.web_decoders.value
        return cls(
            limits(settings),
            Budget.of(sizes.request_memory.value, Path(settings.state_dir)),
            SlotQueue(QUICK_A_DECODER * decoders, places),
            SlotQueue(-(-decoders // 2), max(1, int(places * AMPLE_WAITING_SHARE))),
            Children(
                sizes.web_decoding_processes.value,
                max(1, int(places * DEAR_WAITING_SHARE)),
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
        if hold is None:
            with self.budget.hold("pixels") as own:
                return self._read(data, spec, deadline, own)
        before = hold.bytes
        picture = self._read(data, spec, deadline, hold)
        hold.settle(before + COPIES_OF_INPUT * picture.pixels.nbytes, deadline, "The request")
        return picture

    def _read(self, data: ImageData, spec: InputSpec, deadline: float, own: Hold) -> Picture:
        if isinstance(data, np.ndarray):
            # Four bytes for each pixel of three.
            pixels = data.size // 3
            with self._slot_queue(pixels * SECONDS_PER_RAW_PIXEL).slot(deadline):
                self._grow(own, 4 * pixels, deadline)
                return images.from_pixels(data, spec, self.limits)
        found = images.look(data, self.limits)
        peak_bytes = images.peak_bytes(found, spec)
        if peak_bytes > INLINE_BYTES or found.head.seconds > INLINE_SECONDS:
            with self.children.slot_queue.slot(deadline):
                self._grow(own, peak_bytes, deadline)
                return self.children.decode(found, spec, deadline, peak_bytes)
        with self._slot_queue(found.head.seconds).slot(deadline):
            self._grow(own, peak_bytes, deadline)
            return images.decode(found, spec)

    def _slot_queue(self, seconds: float) -> SlotQueue:
        return self.quick if seconds <= QUICK_SECONDS else self.ample

    def _grow(self, own: Hold, count: int, deadline: float) -> None:
        most = self.budget.most("pixels", count)
        if count > most:
            raise ImageTooLargeError(
                "The image needs %(count)s bytes of memory while it is decoded; at most %(most)s can be had.",
                hint="Scale it down; the operator of this service sets the limit.",
                count=count,
                most=most,
            )
        own.grow(count, deadline, THE_IMAGE)


def limits(settings: Settings) -> Limits:
    """What is accepted, as the settings have it."""
    return Limits(
        settings.images_max_bytes,
        settings.images_max_pixels,
        tuple(name.upper() for name in settings.images_formats),
        settings.images_max_side,
    )
