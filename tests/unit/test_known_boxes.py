"""A network that is always right says where the blue square is: its box must be that of the upright original."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.inference import images
from app.inference.images import Limits
from app.inference.results import Answer, Box, Detection, DetectOptions, Options
from app.models.manifests import InputSpec, Manifest
from tests import fakes
from tests.unit.inference.test_images import STORED, as_stored, exif

LIMITS = Limits(16_000_000, 50_000_000, ("JPEG", "PNG"))
INPUTS: dict[str, dict[str, Any]] = {
    "crop": {"kind": "crop", "size": 96, "resize_size": 128},
    "whole-crop": {"kind": "crop", "size": 128, "resize_size": 128},
    "letterbox": {"kind": "letterbox", "size": 160},
    "fit": {"kind": "fit", "min_size": 120, "max_size": 200},
}
# Upright originals, and where the blue square lies in them: within the middle that every crop shows.
SCENES = {
    "landscape": ((800, 600), Box(300, 200, 420, 330)),
    "portrait": ((600, 800), Box(180, 300, 300, 420)),
    "square": ((640, 640), Box(200, 350, 330, 460)),
}


def scene(size: tuple[int, int], square: Box) -> Image.Image:
    image = Image.new("RGB", size, (200, 200, 190))
    image.paste((20, 30, 220), tuple(int(side) for side in (square.x_min, square.y_min, square.x_max, square.y_max)))
    return image


def encoded(image: Image.Image, kind: str, orientation: int) -> bytes:
    buffer = io.BytesIO()
    as_stored(image, orientation).save(buffer, kind, exif=exif(orientation))
    return buffer.getvalue()


def square_in(pixels: np.ndarray) -> Box:
    """What a network that is always right answers, in pixels of its input."""
    rows, columns = np.nonzero((pixels[:, :, 2] > 150) & (pixels[:, :, 0] < 110))
    assert rows.size, "the square is not in the input"
    return Box(float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))


def is_near(found: Box, expected: Box, pixels: float) -> bool:
    sides = ("x_min", "y_min", "x_max", "y_max")
    return all(abs(getattr(found, side) - getattr(expected, side)) <= pixels for side in sides)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("scene_name", SCENES)
@pytest.mark.parametrize("input_name", INPUTS)
def test_box_of_the_input_is_that_of_the_upright_original(
    input_name: str, scene_name: str, orientation: int, kind: str
) -> None:
    size, square = SCENES[scene_name]
    picture = images.read(encoded(scene(size, square), kind, orientation), InputSpec(**INPUTS[input_name]), LIMITS)

    found = picture.to_original(square_in(picture.pixels))

    assert (picture.width, picture.height) == size
    # One pixel of the input is up to six of the original.
    assert is_near(found, square, 1.2 / min(picture.scale_x, picture.scale_y)), found


@pytest.mark.parametrize("input_name", INPUTS)
def test_what_the_input_shows_is_where_its_edges_lie(input_name: str) -> None:
    size, square = SCENES["landscape"]
    spec = InputSpec(**INPUTS[input_name])
    picture = images.read(encoded(scene(size, square), "PNG", 1), spec, LIMITS)
    height, width = picture.pixels.shape[:2]

    shown = images.seen(spec, *size)

    # A letterbox shows more than the image; boxes are cut at the image's edges.
    within = Box(shown.x_min, shown.y_min, min(shown.x_max, size[0]), min(shown.y_max, size[1]))
    assert is_near(picture.to_original(Box(0, 0, width, height)), within, 0.01)
    assert is_near(picture.to_original(picture.box_in_input(square)), square, 0.01)


class Seeing(fakes.FakeEngine):
    """An engine whose network is always right."""

    def predict(self, manifest: Manifest, pixels: Any, options: Any, deadline: float, sizes: Any = ()) -> Any:
        self.asked.append(fakes.Asked(manifest, list(pixels), list(options), deadline))
        answers = [self._answer(*pair) for pair in zip(pixels, options, strict=True)]
        return [fakes.EngineAnswer(answer, 1.0, 2.0, len(answers), "") for answer in answers]

    def _answer(self, pixels: np.ndarray, requested: Options) -> Answer:
        box = square_in(pixels)
        assert isinstance(requested, DetectOptions)
        is_large = box.x_max - box.x_min >= requested.min_width and box.y_max - box.y_min >= requested.min_height
        return [Detection("cone", 0.9, box)] if is_large else []


@pytest.mark.parametrize("input_name", INPUTS)
@pytest.mark.parametrize(("least", "count"), [(110, 1), (125, 0)])
def test_the_api_answers_in_pixels_of_the_original_and_counts_least_sizes_in_them(
    tmp_path: Path, input_name: str, least: int, count: int
) -> None:
    fakes.write_model(tmp_path / "models", "detector", task="detect", input=INPUTS[input_name])
    size, square = SCENES["landscape"]
    with fakes.logging_kept():
        client = fakes.make_app(tmp_path, Seeing()).test_client()

    answer = client.post(
        f"/v1/detect?min_width={least}&min_height={least}",
        data=encoded(scene(size, square), "JPEG", 6),
        content_type="image/jpeg",
    )

    (result,) = answer.json["results"]
    rows = result["detections"]
    assert len(rows) == count
    assert all(is_near(Box(**row["box"]), square, 8) for row in rows)
