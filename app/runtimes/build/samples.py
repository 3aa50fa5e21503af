"""A model's sample pictures: some teach int8 its ranges, the others compare the candidates; and what is truly on them.

``models/<name>/<version>/samples/*.jpg`` (or PNG, WebP); ``index.json`` beside them may list the true objects. A
network of arrays has arrays there, see ``array_samples``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app import tasks
from app.errors import ModelLoadError
from app.inference import images
from app.inference.images import Picture
from app.inference.results import Box, Detection
from app.models import builds
from app.models.manifests import TENSOR, Manifest
from app.runtimes.build import array_samples
from app.runtimes.model import warm_up_shape
from app.storage import files

FOLDER = "samples"
INDEX_FILE = "index.json"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LEAST = builds.LEAST_IMAGES

LIMITS = images.Limits(2**31, 2**31, ("JPEG", "PNG", "WEBP"))
MAX_PICTURE_BYTES = 256 << 20

Truth = Sequence[Sequence[Detection]]


@dataclass(frozen=True)
class Samples:
    """Inputs as the engine gets them, uint8 or ``array_samples.Item``, and the true objects of the compared ones in
    pixels of the input.

    ``calibration`` is empty where there are too few pictures to keep both apart. ``truth`` is None where it is unknown.
    """

    calibration: list[Any]
    comparison: list[Any]
    truth: Truth | None = None

    @property
    def are_enough(self) -> bool:
        """Whether an agreement on them says something."""
        return len(self.comparison) >= LEAST


def read(manifest: Manifest) -> Samples:
    """A model's sample pictures, scaled as the web tier does; a grey one where it has none.

    The first half calibrates and the second compares, where each half has at least LEAST. Raises ModelLoadError when
    the index cannot be read, and what ``images.read`` raises.
    """
    if manifest.task == TENSOR:
        items = array_samples.read(folder(manifest), array_samples.inputs(manifest))
        half = _half(items)
        # Those of one file are often of one kind: every other one teaches.
        return Samples(items[1::2] if half else [], items[::2] if half else items)
    found = paths(manifest)
    if not found:
        return Samples([], [np.full((*warm_up_shape(manifest.input), 3), 114, np.uint8)])
    half = _half(found)
    pictures = [read_one(path, manifest) for path in found]
    pixels = [picture.pixels for picture in pictures]
    return Samples(pixels[:half], pixels[half:], _truth(manifest, found[half:], pictures[half:]))


def _half(found: Sequence[Any]) -> int:
    return len(found) // 2 if len(found) >= 2 * LEAST else 0


def paths(manifest: Manifest) -> list[Path]:
    """The files of the sample pictures, by name."""
    return pictures_in(folder(manifest))


def pictures_in(folder: Path) -> list[Path]:
    """The files of a folder that are named like pictures, by name."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)


def read_each(manifest: Manifest) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """The sample pictures one after another, as a model gets them, each with width and height of its original.

    Raises what ``images.read`` raises.
    """
    for path in paths(manifest):
        picture = read_one(path, manifest)
        yield picture.pixels, (picture.width, picture.height)


def read_one(path: Path, manifest: Manifest) -> Picture:
    """One sample picture as a model gets it. Raises ModelLoadError, and what ``images.read`` raises."""
    try:
        data = files.read(path, MAX_PICTURE_BYTES)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {files.reason(error)}.", hint="Remove it.") from None
    return images.read(data, manifest.input, LIMITS)


def folder(manifest: Manifest) -> Path:
    """Where the sample pictures lie."""
    return manifest.directory / FOLDER


def _truth(manifest: Manifest, files_compared: Sequence[Path], pictures: Sequence[Picture]) -> Truth | None:
    path = folder(manifest) / INDEX_FILE
    if not tasks.BY_NAME[manifest.task].has_boxes or not path.exists():
        return None
    try:
        known = {entry["file"]: entry["objects"] for entry in json.loads(files.read(path, files.TEXT_BYTES))}
        if not all(file.name in known for file in files_compared):
            # Average precision over some of the pictures would compare something else.
            return None
        return [_in_input(known[file.name], picture) for file, picture in zip(files_compared, pictures, strict=True)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"{path} cannot be used: {error!r}.", hint="It must list file and objects (label, box) of samples."
        ) from None


def _in_input(objects: Sequence[dict[str, Any]], picture: Picture) -> list[Detection]:
    """The objects as far as the input shows them; a crop leaves some of them out."""
    shown = [(object_["label"], picture.box_in_input(Box(**object_["box"]))) for object_ in objects]
    return [Detection(label, 1.0, box) for label, box in shown if box.x_min < box.x_max and box.y_min < box.y_max]
