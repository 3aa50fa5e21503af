"""What is sent: held-out scenes as JPEGs of 640 × 480 pixels and about 90 kB. Seeded, and cached in ``build/bench``."""

from __future__ import annotations

import io
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from training import scenes
from training.scenes import LABELS

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "bench"
WIDTH_PX, HEIGHT_PX = 640, 480
WANTED_BYTES = 90_000
COUNT = 200
# Neither training nor the demonstration models' check uses these seeds.
HELD_OUT_SEED = 7_000_000
CHUNK = 100
# A camera's grain: rendered surfaces are smoother than any photograph and would make too small a file.
GRAIN_LEVELS = 6.0
QUALITIES = range(60, 100)


def held_out(count: int = COUNT) -> list[bytes]:
    """``count`` JPEGs that no training saw; rendered at the first call."""
    folder = FOLDER / "pictures"
    paths = [folder / f"{number:04}.jpg" for number in range(count)]
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        for path, (pixels, _label) in zip(paths, render(HELD_OUT_SEED, count), strict=True):
            path.write_bytes(to_jpeg(pixels))
    return [path.read_bytes() for path in paths]


def render(seed: int, count: int) -> list[tuple[np.ndarray, int]]:
    """``count`` pictures (uint8, height × width × 3) with the number of their label, on all cores."""
    starts = range(0, count, CHUNK)
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        chunks = pool.map(_render_chunk, (seed + start for start in starts), (min(CHUNK, count - s) for s in starts))
        return [picture for chunk in chunks for picture in chunk]


def _render_chunk(seed: int, count: int) -> list[tuple[np.ndarray, int]]:
    rng, library = np.random.default_rng(seed), scenes.SpriteLibrary(seed, per_kind=16)
    labels = rng.integers(len(LABELS), size=count)
    return [(_photograph(rng, library, int(label)), int(label)) for label in labels]


def _photograph(rng: np.random.Generator, library: scenes.SpriteLibrary, label: int) -> np.ndarray:
    pixels = scenes.render_single(rng, library, LABELS[label], WIDTH_PX, HEIGHT_PX).pixels
    grain = rng.normal(0, GRAIN_LEVELS, pixels.shape)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def to_jpeg(pixels: np.ndarray) -> bytes:
    """The picture as the JPEG of the best quality that is no larger than wanted."""
    low, high = QUALITIES.start, QUALITIES.stop - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_encode(pixels, middle)) <= WANTED_BYTES else (low, middle - 1)
    return _encode(pixels, low)


def _encode(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
