"""Measure the demonstration models on scenes they never saw: ``make model-check``. Exit status 1: below target."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from app import config
from app.inference.results import Box, ClassifyOptions, Detection, DetectOptions, Prediction
from app.models import builds, manifests
from app.runtimes.build.agreement import mean_average_precision
from app.runtimes.model import Model
from app.runtimes.registry import Plan, load_model
from training import publish, scenes
from training.scenes import LABELS, Truth

HELD_OUT_SEED = 3_000_000
CHUNK = 50

TARGET_MAP = 0.95
TARGET_TOP1 = 0.97
# 5 of 150 scenes without objects.
TARGET_FALSE_BOXES_PER_EMPTY_SCENE = 5 / 150
# Low, for average precision looks at the whole curve.
CURVE_OPTIONS = DetectOptions(score_threshold=0.02, iou_threshold=0.5, max_results=100)


@dataclass(frozen=True)
class Size:
    """How many held-out pictures of each sort."""

    scenes: int
    empty_scenes: int
    crops: int


FULL = Size(scenes=400, empty_scenes=150, crops=600)
QUICK = Size(scenes=80, empty_scenes=60, crops=150)


@dataclass(frozen=True)
class Figures:
    """What was measured under one condition."""

    condition: str
    map_50: float
    false_boxes: int
    top1: float


@dataclass(frozen=True)
class Picture:
    """A held-out picture as the model gets it, and what is on it."""

    pixels: np.ndarray
    truths: tuple[Truth, ...]


# ---------------------------------------------------------------------------------------------------- conditions


def as_rendered(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Nothing done."""
    return pixels


def jpeg_20(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Stored as JPEG of quality 20."""
    return scenes.jpeg(pixels, 20)


def blurred(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Blurred by a Gaussian of 1.5 pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.5)))


def dark(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Four tenths of the light."""
    return (pixels * 0.4).astype(np.uint8)


def noisy(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Noise with a standard deviation of 25 of 255."""
    noise = np.random.default_rng(seed).normal(0, 25, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


CONDITIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "as rendered": as_rendered,
    "JPEG quality 20": jpeg_20,
    "blur 1.5 px": blurred,
    "dark × 0.4": dark,
    "noise σ 25": noisy,
}

# ---------------------------------------------------------------------------------------------------- held-out sets


def held_out_scenes(count: int, *, are_empty: bool) -> list[Picture]:
    """Letterboxed scenes of seeds that training does not use; all with objects, or all without."""
    return _in_chunks(_empty_chunk if are_empty else _scene_chunk, count)


def held_out_crops(count: int) -> list[Picture]:
    """Crops of seeds that training does not use; the label is the first truth's."""
    return _in_chunks(_crop_chunk, count)


def _in_chunks(make: Callable[[int, int], list[Picture]], count: int) -> list[Picture]:
    starts = range(0, count, CHUNK)
    with ProcessPoolExecutor(min(len(starts), os.cpu_count() or 1)) as pool:
        chunks = pool.map(make, starts, (min(CHUNK, count - start) for start in starts))
        return [picture for chunk in chunks for picture in chunk]


def _chunk_source(start: int, offset: int) -> tuple[np.random.Generator, scenes.SpriteLibrary]:
    seed = HELD_OUT_SEED + offset + start
    return np.random.default_rng(seed), scenes.SpriteLibrary(seed, per_kind=24)


def _scene_chunk(start: int, count: int) -> list[Picture]:
    rng, library = _chunk_source(start, 0)
    pictures: list[Picture] = []
    while len(pictures) < count:
        picture = _scene_picture(rng, library, 0.0)
        if picture.truths:
            pictures.append(picture)
    return pictures


def _empty_chunk(start: int, count: int) -> list[Picture]:
    rng, library = _chunk_source(start, 100_000)
    return [_scene_picture(rng, library, 1.0) for _ in range(count)]


def _scene_picture(rng: np.random.Generator, library: scenes.SpriteLibrary, empty_share: float) -> Picture:
    pixels, boxes, labels = scenes.detection_sample(rng, library, empty_share)
    truths = (Truth(LABELS[n], Box(*box)) for n, box in zip(labels, boxes.tolist(), strict=True))
    return Picture(pixels, tuple(truths))


def _crop_chunk(start: int, count: int) -> list[Picture]:
    rng, library = _chunk_source(start, 200_000)
    samples = [scenes.classification_sample(rng, library) for _ in range(count)]
    return [Picture(pixels, (Truth(LABELS[n], Box(0, 0, 0, 0)),)) for pixels, n in samples]


# ---------------------------------------------------------------------------------------------------- measuring


def measure(detector: Model, classifier: Model, size: Size) -> Iterator[Figures]:
    """Figures under each condition, one after the other."""
    with_objects = held_out_scenes(size.scenes, are_empty=False)
    empty, crops = held_out_scenes(size.empty_scenes, are_empty=True), held_out_crops(size.crops)
    served = detector.manifest.default_options()
    assert isinstance(served, DetectOptions)
    truth = [[Detection(each.label, 1.0, each.box) for each in picture.truths] for picture in with_objects]
    for name, condition in CONDITIONS.items():
        found = detect(detector, [condition(p.pixels, i) for i, p in enumerate(with_objects)], CURVE_OPTIONS)
        false = detect(detector, [condition(p.pixels, i) for i, p in enumerate(empty)], served)
        named = classify(classifier, [condition(p.pixels, i) for i, p in enumerate(crops)])
        yield Figures(
            condition=name,
            map_50=round(mean_average_precision(truth, found), 4),
            false_boxes=sum(len(boxes) for boxes in false),
            top1=round(float(np.mean([n == p.truths[0].label for n, p in zip(named, crops, strict=True)])), 4),
        )


def detect(model: Model, pictures: Sequence[np.ndarray], options: DetectOptions) -> list[list[Detection]]:
    """Detections of each picture."""
    answers: list[list[Detection]] = []
    for start in range(0, len(pictures), 8):
        batch = pictures[start : start + 8]
        for answer in model.predict(batch, [options] * len(batch)):
            answers.append([d for d in answer if isinstance(d, Detection)])
    return answers


def classify(model: Model, pictures: Sequence[np.ndarray]) -> list[str]:
    """The best label of each picture."""
    names: list[str] = []
    for start in range(0, len(pictures), 32):
        batch = pictures[start : start + 32]
        answers = model.predict(batch, [ClassifyOptions(top_k=1)] * len(batch))
        names += [answer[0].label for answer in answers if isinstance(answer[0], Prediction)]
    return names


# ---------------------------------------------------------------------------------------------------- telling


def failures(plain: Figures, size: Size) -> list[str]:
    """What misses its target; the targets are for scenes as rendered."""
    allowed = int(TARGET_FALSE_BOXES_PER_EMPTY_SCENE * size.empty_scenes)
    checks = [
        (plain.map_50 >= TARGET_MAP, f"mAP@0.5 is {plain.map_50:.3f}; at least {TARGET_MAP} is expected"),
        (plain.false_boxes <= allowed, f"{plain.false_boxes} false boxes; at most {allowed} are expected"),
        (plain.top1 >= TARGET_TOP1, f"top-1 is {plain.top1:.3f}; at least {TARGET_TOP1} is expected"),
    ]
    return [text for is_met, text in checks if not is_met]


def held_out_table(figures: Sequence[Figures], size: Size, *, for_detector: bool) -> dict[str, object]:
    """What goes into the manifest's [held_out] table, keys by condition."""
    keys = dict(zip(CONDITIONS, ("", "_jpeg_20", "_blurred", "_dark", "_noisy"), strict=True))
    table: dict[str, object] = {"command": "make model-check", "pictures": size.scenes if for_detector else size.crops}
    if for_detector:
        table["empty_scenes"] = size.empty_scenes
        table |= {f"map_50{keys[f.condition]}": f.map_50 for f in figures}
        table |= {f"false_boxes{keys[f.condition]}": f.false_boxes for f in figures}
    else:
        table |= {f"top1{keys[f.condition]}": f.top1 for f in figures}
    return table


def _print_row(figures: Figures) -> None:
    print(f"{figures.condition:<18}{figures.map_50:>9.3f}{figures.false_boxes:>13}{figures.top1:>9.3f}", flush=True)


def _print_head(detector: Model, size: Size) -> None:
    threshold = detector.manifest.serve.score_threshold
    print(
        f"Computed by {detector.computed_by}\n"
        f"{size.scenes} held-out scenes, {size.empty_scenes} without objects at score threshold {threshold}, "
        f"{size.crops} crops\n\n{'':<18}{'mAP@0.5':>9}{'false boxes':>13}{'top-1':>9}",
        flush=True,
    )


def check(store: Path, runtime: str, precision: str, *, is_quick: bool = False, as_json: bool = False) -> bool:
    """Measure the models of a store and print the figures; whether all targets are met. Raises ModelLoadError."""
    plan = _plan(runtime, precision)
    detector, classifier = (
        load_model(manifests.read(store / name / publish.VERSION), plan=plan)
        for name in (publish.DETECTOR, publish.CLASSIFIER)
    )
    return _report(detector, classifier, QUICK if is_quick else FULL, as_json)


def _plan(runtime: str, precision: str) -> Plan:
    """How to compute: torch in fp32 as it is in the store, anything else as it was built here."""
    if (runtime, precision) == builds.REFERENCE:
        return Plan()
    return Plan(config.resolve().state_dir, runtime=runtime, precision=precision)


def _report(detector: Model, classifier: Model, size: Size, as_json: bool) -> bool:
    if not as_json:
        _print_head(detector, size)
    figures = []
    for one in measure(detector, classifier, size):
        figures.append(one)
        if not as_json:
            _print_row(one)
    missed = failures(figures[0], size)
    if as_json:
        print(json.dumps({"size": asdict(size), "figures": [asdict(f) for f in figures], "failures": missed}, indent=1))
    else:
        print("\n" + ("\n".join(f"FAIL: {text}" for text in missed) if missed else "PASS: every target is met"))
    return not missed
