"""Which way an image goes, and that what is dear keeps nobody waiting who is not."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app import config
from app.config import Settings
from app.decoding.decoder import Decoder
from app.errors import DeadlineExceededError, ImageTooLargeError, MemoryShortError
from app.inference import images
from app.models.manifests import InputSpec
from tests.fakes import picture

MEGABYTE = 1024**2
PATIENCE_SECONDS = 60.0
SPEC = InputSpec("crop", size=224, resize_size=256)


def settings(folder: Path, **changed: Any) -> Settings:
    (folder / "run").mkdir(exist_ok=True)
    # A busy machine takes long to start the process that decodes what is dear.
    patient = {"images_max_decode_seconds": PATIENCE_SECONDS}
    return config.describe("prod").model_copy(update={"state_dir": folder, **patient, **changed})


@pytest.fixture
def decoder(tmp_path: Path) -> Iterator[Decoder]:
    made = Decoder.of(settings(tmp_path))
    yield made
    made.children.close()


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def soon(seconds: float = PATIENCE_SECONDS) -> float:
    return time.monotonic() + seconds


def photograph(width: int, height: int, **how: Any) -> bytes:
    rows = np.random.default_rng(3).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return encoded(Image.fromarray(rows).resize((width, height)), "JPEG", quality=85, **how)


WAYS = {
    "photograph of 90 kB": (lambda: photograph(1024, 768), "quick"),
    "photograph of 3 megapixels": (lambda: photograph(2048, 1536), "quick"),
    "photograph of 12 megapixels": (lambda: photograph(4032, 3024), "ample"),
    "photograph of 12 megapixels, progressive": (lambda: photograph(4032, 3024, progressive=True), "ample"),
    "PNG of 12 megapixels": (lambda: encoded(Image.new("RGB", (4000, 3000)), "PNG"), "ample"),
    "PNG of 12 megapixels that shines through": (lambda: encoded(Image.new("RGBA", (4000, 3000)), "PNG"), "child"),
    "photograph of 48 megapixels, progressive": (
        lambda: encoded(Image.new("RGB", (8000, 6000)), "JPEG", progressive=True),
        "child",
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_only_what_is_dear_leaves_the_process(decoder: Decoder, name: str) -> None:
    make, way = WAYS[name]
    data = make()
    slot_queues = {"quick": decoder.quick, "ample": decoder.ample, "child": decoder.children.slot_queue}
    with ExitStack() as stack:
        # All others are taken; it is answered all the same.
        for slot_queue in (slot_queue for each, slot_queue in slot_queues.items() if each != way):
            while slot_queue._free:
                stack.enter_context(slot_queue.slot(soon()))
        assert decoder.read(data, SPEC, soon()).pixels.shape == (224, 224, 3)


def test_tiff_is_decoded_elsewhere_however_small(tmp_path: Path) -> None:
    decoder = Decoder.of(settings(tmp_path, images_formats=("tiff",)))

    decoder.read(picture(8, 8, "TIFF"), SPEC, soon())

    assert len(decoder.children._idle) == 1
    decoder.children.close()


def test_all_memory_is_given_back(decoder: Decoder) -> None:
    for data in (picture(), np.zeros((10, 10, 3), np.uint8)):
        decoder.read(data, SPEC, soon())
        with pytest.raises(DeadlineExceededError):
            decoder.read(data, SPEC, time.monotonic())

    assert decoder.budget.used_bytes == 0


def test_what_the_engine_will_be_sent_stays_held(decoder: Decoder) -> None:
    with decoder.budget.hold("pixels") as hold:
        decoder.read(picture(), SPEC, soon(), hold)
        assert decoder.budget.used_bytes == 3 * 224 * 224 * 3

    assert decoder.budget.used_bytes == 0


def test_image_that_never_fits_is_told_so_at_once(tmp_path: Path) -> None:
    decoder = Decoder.of(settings(tmp_path, request_memory_bytes=50 * MEGABYTE))

    with pytest.raises(ImageTooLargeError, match=r"needs \d+ bytes of memory while it is decoded; at most 44564480"):
        decoder.read(encoded(Image.new("RGB", (4000, 3000)), "PNG"), SPEC, soon())


def test_image_that_finds_no_memory_waits_to_its_deadline_and_small_ones_go_on(tmp_path: Path) -> None:
    decoder = Decoder.of(settings(tmp_path, request_memory_bytes=100 * MEGABYTE))
    with decoder.budget.hold("pixels") as hold:
        hold.grow(80 * MEGABYTE, soon(), "Another")

        with pytest.raises(MemoryShortError):
            decoder.read(encoded(Image.new("RGB", (3000, 2000)), "PNG"), SPEC, soon(0.1))
        assert decoder.read(picture(), SPEC, soon()).width


@pytest.mark.parametrize("shape", [(1, 40_000, 3), (40_000, 1, 3)])
def test_raw_pixels_keep_to_the_same_sides(decoder: Decoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageTooLargeError, match="at most 30000 a side"):
        decoder.read(np.zeros(shape, np.uint8), SPEC, soon())


def test_same_pixels_as_without_a_decoder(decoder: Decoder) -> None:
    data = photograph(640, 480)

    assert (decoder.read(data, SPEC, soon()).pixels == images.read(data, SPEC, decoder.limits).pixels).all()
