"""What is dear is decoded where it can be ended: at the deadline, at its own limit, or when it dies of itself."""

from __future__ import annotations

import functools
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.decoding import children as children_module
from app.decoding.children import Children
from app.errors import (
    CaskError,
    DeadlineExceededError,
    DecodersBusyError,
    ImageTooComplexError,
    ImageUndecodableError,
)
from app.image_headers.inspection import Look
from app.inference import images
from app.inference.images import Limits
from app.models.manifests import InputSpec
from tests import servers
from tests.fakes import eventually

MEGABYTE = 1024**2
# The processes step back behind all others: on a busy machine the largest picture may need a minute.
PATIENCE_SECONDS = 120.0
LIMITS = Limits(16 * MEGABYTE, 50_000_000, ("JPEG", "PNG", "WEBP", "TIFF"))
SPEC = InputSpec("letterbox", size=64)


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children(1, 4, PATIENCE_SECONDS)
    yield made
    made.close()


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def photograph() -> bytes:
    rows = np.random.default_rng(3).integers(0, 255, (300, 400, 3), np.uint8)
    return encoded(Image.fromarray(rows), "JPEG", quality=80)


def slow(scans: int = 99) -> bytes:
    """A JPEG of 49 megapixels whose last scan is said again and again; each takes some 30 ms."""
    whole = encoded(Image.new("L", (7000, 7000), 100), "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    return whole[:at] + whole[at:-2] * (scans - whole.count(b"\xff\xda") + 1) + b"\xff\xd9"


def decode(
    children: Children, data: bytes, seconds: float = PATIENCE_SECONDS, most_bytes: int = 400 * MEGABYTE
) -> images.Picture:
    found, deadline = images.look(data, LIMITS), time.monotonic() + seconds
    with children.slot_queue.slot(deadline):
        return children.decode(found, SPEC, deadline, most_bytes)


def test_pixels_are_the_same_as_here(children: Children) -> None:
    here, there = images.read(photograph(), SPEC, LIMITS), decode(children, photograph())

    assert (there.pixels == here.pixels).all()
    assert (there.width, there.height, there.scale_x, there.scale_y) == (400, 300, here.scale_x, here.scale_y)


def test_one_process_serves_one_image_after_the_other(children: Children) -> None:
    decode(children, photograph())
    (first,) = children._idle
    decode(children, photograph())

    assert children._idle == [first]


def test_damage_is_told_as_here_and_the_process_lives_on(children: Children) -> None:
    with pytest.raises(ImageUndecodableError, match=r"The JPEG image of .* bytes cannot be decoded") as caught:
        decode(children, photograph()[:5000])

    assert caught.value.message.values["size"] == 5000
    assert len(children._idle) == 1
    assert decode(children, photograph()).width == 400


def test_deadline_ends_the_decoding(children: Children) -> None:
    decode(children, photograph())
    process, data = children._idle[0].process, slow()
    began = time.monotonic()

    with pytest.raises(DeadlineExceededError, match="before the image was decoded"):
        decode(children, data, seconds=0.5)

    # The whole image takes 3 s on an idle core, and as many times longer on a busy one as its end here.
    assert time.monotonic() - began < 5
    assert process.returncode == -signal.SIGKILL
    assert decode(children, photograph()).width == 400


def test_image_that_takes_too_long_is_told_so() -> None:
    children = Children(1, 4, 0.5)

    with pytest.raises(ImageTooComplexError, match=r"not decoded within 0\.5 s of processor time"):
        decode(children, slow())


def test_image_is_not_too_complex_because_its_process_got_no_processor() -> None:
    children = Children(1, 4, 0.5)
    decode(children, photograph())
    process = children._idle[0].process
    servers.suspend(process.pid)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        asked = pool.submit(decode, children, photograph())
        eventually(lambda: time.monotonic() - began > 1, "twice its time to pass")
        servers.resume(process.pid)

        assert asked.result().width == 400


def test_process_that_dies_takes_its_image_with_it_and_no_other(children: Children) -> None:
    decode(children, photograph())
    process = children._idle[0].process
    servers.suspend(process.pid)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(decode, children, photograph())
        eventually(lambda: not children._idle, "the process to be taken")
        process.kill()

        with pytest.raises(ImageTooComplexError, match="ended the process that decoded it"):
            asked.result()
    assert decode(children, photograph()).width == 400


def test_memory_that_it_may_not_have_is_told(children: Children) -> None:
    data = encoded(Image.new("RGBA", (6000, 6000)), "PNG")

    with pytest.raises(CaskError) as caught:
        decode(children, data, most_bytes=10 * MEGABYTE)

    assert caught.value.code == "image_too_complex"
    assert "needs more than 10485760 bytes" in caught.value.message


def test_more_than_may_wait_are_refused_at_once(children: Children) -> None:
    go_on = threading.Event()

    def occupy() -> None:
        with children.slot_queue.slot(time.monotonic() + 20):
            assert go_on.wait(20)

    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(occupy) for _ in range(1 + 4)]
        eventually(lambda: children.slot_queue.waiting == 4, "all to wait")
        with pytest.raises(DecodersBusyError), children.slot_queue.slot(time.monotonic() + 20):
            pass
        go_on.set()
        for each in asked:
            each.result()


def test_who_waits_for_a_place_waits_no_longer_than_to_its_deadline(children: Children) -> None:
    with (
        children.slot_queue.slot(time.monotonic() + 20),
        pytest.raises(DeadlineExceededError),
        children.slot_queue.slot(time.monotonic() + 0.05),
    ):
        pass


def test_idle_processes_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children_module, "IDLE_SECONDS", 0.1)
    children = Children(1, 4, 10.0)
    decode(children, photograph())
    process = children._idle[0].process

    eventually(lambda: not children._idle, "the process to go")

    eventually(lambda: process.returncode is not None, "its end")


def test_processes_end_with_the_one_that_asked(children: Children) -> None:
    decode(children, photograph())
    one = children._idle[0]

    os.close(one.line.detach())

    assert one.process.wait(20) == 0


# ── what it takes ─────────────────────────────────────────────────────────────────────────────────────────────────────

MEASURED = {
    "JPEG": lambda: encoded(Image.new("RGB", (4000, 3000), "red"), "JPEG"),
    "JPEG, progressive": lambda: encoded(Image.new("RGB", (4000, 3000), "red"), "JPEG", progressive=True),
    "JPEG, CMYK, progressive": lambda: encoded(Image.new("CMYK", (4000, 3000)), "JPEG", progressive=True),
    "PNG": lambda: encoded(Image.new("RGB", (4000, 3000), "red"), "PNG"),
    "PNG, RGBA": lambda: encoded(Image.new("RGBA", (4000, 3000), "red"), "PNG"),
    "PNG, grey with alpha": lambda: encoded(Image.new("LA", (4000, 3000)), "PNG"),
    "PNG, palette with transparency": lambda: encoded(Image.new("P", (4000, 3000)), "PNG", transparency=0),
    "PNG, 16 bits": lambda: encoded(Image.new("I;16", (4000, 3000)), "PNG"),
    "PNG, a strip": lambda: encoded(Image.new("LA", (400, 30_000)), "PNG"),
    "WebP": lambda: encoded(Image.new("RGB", (4000, 3000), "red"), "WEBP"),
    "WebP, lossless with alpha": lambda: encoded(Image.new("RGBA", (4000, 3000), "red"), "WEBP", lossless=True),
    "TIFF of real numbers": lambda: encoded(Image.new("F", (2000, 1500)), "TIFF"),
    "TIFF, LZW": lambda: encoded(Image.new("RGB", (2000, 1500)), "TIFF", compression="tiff_lzw"),
}


@functools.cache
def measured(name: str) -> bytes:
    """Encoded once: that takes longer than to decode it."""
    return MEASURED[name]()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", MEASURED)
def test_no_image_takes_more_memory_than_is_reckoned(children: Children, name: str, turned: bool) -> None:
    """The limit is on addresses, so it holds for every moment. Too much by more than half would be wasted room."""
    data = measured(name)
    found = images.look(data, LIMITS)
    if turned:
        with Image.open(io.BytesIO(data)) as image:
            exif = Image.Exif()
            exif[0x0112] = 6
            found = images.look(encoded(image, image.format or "", exif=exif), LIMITS)
    deadline, spec = time.monotonic() + PATIENCE_SECONDS, InputSpec("fit", min_size=800, max_size=1333)

    with children.slot_queue.slot(deadline):
        picture = children.decode(found, spec, deadline, images.peak_bytes(found, spec))

    assert max(picture.pixels.shape[:2]) <= 1333


def test_look_is_what_travels() -> None:
    found = images.look(photograph(), LIMITS)

    assert isinstance(found, Look)
    assert found.kind == "JPEG"
