"""What a version has to show before it answers callers, besides its stored answers: that its answers are right.

For ``flask model add`` and the engine, which proves each version that a command loads beside the one that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageOps

from app import tasks
from app.inference.images import READER_ERRORS
from app.runtimes.build import samples
from app.runtimes.checks import geometry, golden_answers, known_answers
from app.runtimes.model import TaskModel

PICTURES = 4

Say = Callable[[str], None]


def prove(model: TaskModel, say: Say = lambda line: None) -> None:
    """Check a loaded model on pictures whose right answer is known, and say what was found.

    Raises GoldenCheckError where its answers are wrong, ModelLoadError where its samples cannot be used.
    """
    if tasks.BY_NAME[model.manifest.task].has_boxes:
        geometry.check_marks(model.manifest.input, model.manifest.key)
    if model.manifest.random_weights:
        say("its weights are random, so its answers are not checked")
        return
    if tasks.BY_NAME[model.manifest.task].has_boxes:
        say(_moves(model))
    verdict = known_answers.check(model)
    say(verdict.words() if verdict else "no sample has a right answer to compare with (samples/index.json)")


def _moves(model: TaskModel) -> str:
    pictures = originals(model)
    tallies = geometry.check_moves(model, pictures)
    kind = f"{len(pictures)} sample pictures" if samples.paths(model.manifest) else "a made-up picture"
    if not tallies:
        return f"boxes were checked on marks only: nothing is found in {kind}"
    counts = ", ".join(f"{tally.found} of {tally.expected} in {name} copies" for name, tally in tallies.items())
    return f"boxes follow their objects: {counts} of {kind}"


def originals(model: TaskModel) -> list[np.ndarray]:
    """A few of the sample pictures, upright and as large as they are; a made-up one where there are none."""
    return list(_samples(model)) or [golden_answers.made_up_picture(model.manifest.input)]


def _samples(model: TaskModel) -> Iterator[np.ndarray]:
    """Evenly taken from all."""
    paths = samples.paths(model.manifest)
    for path in paths[:: -(-len(paths) // PICTURES)] if paths else ():
        try:
            with Image.open(path) as image:
                # A JPEG need not be decoded much larger than it is used.
                image.draft("RGB", (geometry.MOST_SIDE_PX, geometry.MOST_SIDE_PX))
                yield np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except READER_ERRORS:
            # Reading the samples as inputs says what is wrong with this one.
            continue
