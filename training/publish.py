"""Put the trained demonstration models into the store, with their figures, and write the sample images beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.inference.results import to_dict
from app.models.manifests import InputSpec, Manifest, ServeSpec
from app.runtimes.importing.add import NewModel, add_model
from training import scenes

STORE = Path("models")
DETECTOR, CLASSIFIER, VERSION = "site-safety-detector", "site-safety-classifier", "1"
# Where few enough false boxes remain on empty scenes; lower ones find more of the small helmets.
SERVED_SCORE_THRESHOLD = 0.55
GOLDEN_SEED = 4_000_000

_DESCRIPTIONS = {
    DETECTOR: "Finds barriers, cones, helmets, signs and vests. A demonstration, trained on rendered scenes only.",
    CLASSIFIER: "Names a barrier, cone, helmet, sign or vest. A demonstration, trained on rendered scenes only.",
}


def publish(name: str, weights: Path, held_out: dict[str, Any], store: Path = STORE) -> Manifest:
    """Add one of the two demonstration models to the store, replacing what was there."""
    is_detector = name == DETECTOR
    return add_model(
        NewModel(
            "narrow_fcos" if is_detector else "narrow_resnet10",
            str(weights),
            scenes.LABELS,
            name,
            VERSION,
            description=_DESCRIPTIONS[name],
            input_spec=_input_spec(is_detector),
            serve=ServeSpec(top_k=5, score_threshold=SERVED_SCORE_THRESHOLD, iou_threshold=0.5, max_batch_size=8),
            demonstration=True,
            aliases={"safetycone": "cone"} if is_detector else None,
            held_out=held_out,
            golden_pictures=golden_pictures(is_detector),
            half=True,
        ),
        store,
        force=True,
    )


def _input_spec(is_detector: bool) -> InputSpec:
    if is_detector:
        return InputSpec("letterbox", size=scenes.DETECTOR_SIZE_PX)
    return InputSpec("crop", size=scenes.CLASSIFIER_SIZE_PX, resize_size=scenes.CLASSIFIER_SIZE_PX)


def golden_pictures(is_detector: bool) -> list[np.ndarray]:
    """Inputs whose answers are stored with the model: scenes that no training or test uses."""
    rng, library = np.random.default_rng(GOLDEN_SEED), scenes.SpriteLibrary(GOLDEN_SEED, per_kind=8)
    if is_detector:
        return [scenes.letterbox(scenes.render(rng, library, 320, 240, 5).pixels)[0] for _ in range(2)]
    return [scenes.classification_sample(rng, library)[0] for _ in range(4)]


def _objects(objects: Sequence[scenes.Truth]) -> list[dict[str, Any]]:
    return [{"label": each.label, "box": {k: round(v, 1) for k, v in to_dict(each.box).items()}} for each in objects]


# ---------------------------------------------------------------------------------------------------- sample images

SAMPLES = STORE / "samples"
SAMPLE_QUALITY = 84
MAX_SAMPLE_BYTES = 90_000


def write_samples(folder: Path = SAMPLES) -> None:
    """Write the sample images and index.json, which tells what is truly on each of them.

    index.json: a list; each entry has ``file``, ``task`` (``detect`` or ``classify``), ``width``, ``height`` in
    pixels, ``objects`` (label and box in pixels, from the renderer), and for ``classify`` the expected ``label``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = [_write_sample(folder, name, scene) for name, scene in sample_scenes().items()]
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    (folder / "index.json").write_text(text + "\n", encoding="utf-8")


def sample_scenes() -> dict[str, scenes.Scene]:
    """The scenes of the sample images by file name; the same each time."""
    return {
        "site-morning.jpg": scenes.render_site(0, 1280, 853),
        "site-corner.jpg": scenes.render_site(9, 853, 1024),
        "site-wide.jpg": scenes.render_site(6, 1280, 720),
        "cone.jpg": scenes.render_portrait(4, "cone"),
        "helmet.jpg": scenes.render_portrait(3, "helmet"),
        "vest.jpg": scenes.render_portrait(4, "vest"),
    }


def _write_sample(folder: Path, name: str, scene: scenes.Scene) -> dict[str, Any]:
    quality = SAMPLE_QUALITY
    while True:
        Image.fromarray(scene.pixels).save(folder / name, "JPEG", quality=quality, optimize=True)
        if (folder / name).stat().st_size <= MAX_SAMPLE_BYTES:
            break
        quality -= 6
    height, width = scene.pixels.shape[:2]
    is_site = name.startswith("site")
    entry: dict[str, Any] = {
        "file": name,
        "task": "detect" if is_site else "classify",
        "width": width,
        "height": height,
    }
    if not is_site:
        entry["label"] = scene.objects[0].label
    return {**entry, "objects": _objects(scene.objects)}
