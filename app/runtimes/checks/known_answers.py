"""Sample pictures whose right answers a team has written down: how many of them does a model answer right?

``samples/index.json`` beside the pictures: ``[{"file": "0.jpg", "label": "cone"}]`` for classifiers, and
``[{"file": "0.jpg", "objects": [{"label": "cone", "box": {"x_min": …}}]}]`` for detectors, boxes in pixels of the
upright picture. Not every picture needs an answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from app import tasks
from app.errors import GoldenCheckError, ModelLoadError
from app.inference.results import Options
from app.models.manifests import Manifest
from app.runtimes.build import samples
from app.runtimes.model import TaskModel
from app.storage import files

# The pictures are taken evenly from all; no further one is begun after this time.
MOST_PICTURES = 64
LIMIT_SECONDS = 20.0
SHOWN = 3

HINT = 'It is a list of {"file": …, "label": …}, for detectors {"file": …, "objects": [{"label": …, "box": {…}}]}.'


@dataclass(frozen=True)
class Known:
    """One picture and what is truly on it: a label, objects in pixels of the upright picture, or what its task has."""

    path: Path
    truth: Any


@dataclass(frozen=True)
class Verdict:
    """How many of the judged pictures were answered right. ``known``: pictures with a right answer, judged or not.

    ``wrong``: what was wrong, one line a picture.
    """

    right: int
    judged: int
    known: int
    wrong: tuple[str, ...] = ()

    def words(self) -> str:
        """In one sentence, with the first wrong ones."""
        left = f" ({self.known} have a right answer)" if self.judged < self.known else ""
        more = f" and {len(self.wrong) - SHOWN} more" if len(self.wrong) > SHOWN else ""
        wrong = f"; wrong: {', '.join(self.wrong[:SHOWN])}{more}" if self.wrong else ""
        return f"{self.right} of {self.judged} samples right{left}{wrong}"


def read(manifest: Manifest) -> list[Known]:
    """The sample pictures of a version with their right answers, by file name; none where it has no index.

    Raises ModelLoadError where the index cannot be used: no such file, an unknown label.
    """
    path = samples.folder(manifest) / samples.INDEX_FILE
    if not path.exists():
        return []
    try:
        rows = json.loads(files.read(path, files.TEXT_BYTES))
        found = [_known(path.parent / str(row["file"]), row, manifest) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{path} cannot be used: {error!r}.", hint=HINT) from None
    missing = next((each.path.name for each in found if not each.path.is_file()), "")
    if missing:
        raise ModelLoadError(f"{path} names {missing!r}, which does not lie beside it.", hint="Correct the name.")
    return sorted(found, key=lambda each: each.path.name)


def check(model: TaskModel, clock: Callable[[], float] = time.monotonic) -> Verdict | None:
    """Ask the model about the samples whose answers are known; None where there are none.

    Raises GoldenCheckError where fewer are right than the manifest's ``tolerance.right`` wants, ModelLoadError where
    the index or a picture cannot be used.
    """
    known = read(model.manifest)
    if not known:
        return None
    verdict = _judge(model, known, clock)
    least = model.manifest.tolerance.right
    if verdict.right < least * verdict.judged:
        raise GoldenCheckError(
            f"{model.manifest.key}: only {verdict.words()}; at least {least:.0%} is needed.",
            hint="Are the labels in the order of the outputs, and are size, mean and std those of the training? "
            "The manifest's [tolerance] right is the share that is needed.",
        )
    return verdict


def _judge(model: TaskModel, known: Sequence[Known], clock: Callable[[], float]) -> Verdict:
    chosen = known[:: -(-len(known) // MOST_PICTURES)]
    began, judged, wrong = clock(), 0, []
    for one in chosen:
        if judged and clock() - began > LIMIT_SECONDS:
            break
        judged += 1
        if fault := _fault(model, one):
            wrong.append(f"{one.path.name}: {fault}")
    return Verdict(judged - len(wrong), judged, len(known), tuple(wrong))


def _fault(model: TaskModel, one: Known) -> str:
    """What is wrong with the answer to a picture; empty where it is right."""
    picture = samples.read_one(one.path, model.manifest)
    image_options: Options = model.manifest.default_options()
    answer = model.predict([picture.pixels], [image_options])[0]
    return model.fault(picture, answer, one.truth)


def _known(path: Path, row: dict[str, Any], manifest: Manifest) -> Known:
    truth = tasks.BY_NAME[manifest.task].model_class.truth(row, partial(_label, manifest))
    return Known(path, truth)


def _label(manifest: Manifest, text: Any) -> str:
    label = manifest.label_of(str(text))
    if not label:
        raise ValueError(f"{text!r} is none of the labels of {manifest.key}")
    return label
