"""What all peers share: torchvision's resnet18 and preset as torchvision documents them, or our built model.

Of the documented way only the declaration that lets torchvision import beside a CPU-only torch is ours, and it costs
nothing at run time. With our built model a peer imports no torch, as our engine imports none: the preset's steps are
then Pillow's own, which torchvision calls on pictures. As a twin a peer has our preparation of pictures too.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent.parent / "build" / "bench"
WEIGHTS = FOLDER / "resnet18.pth"
LABELS_FILE = FOLDER / "labels.json"
RESIZE_PX, CROP_PX = 256, 224
# Each contender runs as many workers as there are cores, so more threads in one would only wait for each other.
THREADS = 1
# What a peer serves: "documented", "built" (our model) or "twin" (our model and our preparation). Read from the
# environment, for servers start peers themselves.
MODEL_VARIABLE = "BENCH_MODEL"

# JPEG bytes to whatever ``predict`` takes a list of.
Prepare = Callable[[bytes], Any]
Predict = Callable[[Sequence[Any]], list[str]]


def load() -> tuple[Prepare, Predict]:
    """How to prepare one picture and how to name several, as BENCH_MODEL params."""
    kind = os.environ.get(MODEL_VARIABLE, "documented")
    return _load_documented() if kind == "documented" else _load_built(is_twin=kind == "twin")


def labels() -> list[str]:
    """The labels in the order of the model's outputs."""
    names: list[str] = json.loads(LABELS_FILE.read_text())
    return names


def network(count: int, weights: Path = WEIGHTS) -> Any:
    """torchvision's resnet18 with the trained weights."""
    import torch

    from app.runtimes.operators import torchvision

    built = torchvision.models.resnet18(num_classes=count)
    built.load_state_dict(torch.load(weights, weights_only=True))
    return built.eval()


def preset() -> Any:
    """torchvision's preset for classification, with the numbers that resnet18's published weights carry."""
    from app.runtimes.operators import torchvision

    return torchvision.transforms._presets.ImageClassification(crop_size=CROP_PX, resize_size=RESIZE_PX)


def _load_documented() -> tuple[Prepare, Predict]:
    import torch

    torch.set_num_threads(THREADS)
    names = labels()
    built, transforms = network(len(names)), preset()

    def prepare(data: bytes) -> Any:
        return transforms(Image.open(io.BytesIO(data)).convert("RGB"))

    def predict(prepared: Sequence[Any]) -> list[str]:
        with torch.inference_mode():
            return [names[int(i)] for i in built(torch.stack(list(prepared))).argmax(1)]

    return prepare, predict


def _load_built(*, is_twin: bool) -> tuple[Prepare, Predict]:
    """Our built model; with our own preparation for a twin, so that only the server around it differs."""
    from app.inference import images
    from app.inference.results import ClassifyOptions
    from app.models import manifests
    from app.runtimes import registry

    # Beside it is the same network as a model with code.
    manifest = next(each for each in manifests.find(FOLDER / "models") if not each.code)
    # Each process is one worker, as each core has one process.
    model = registry.load_model(manifest, plan=registry.Plan(FOLDER / "state", workers=1))
    limits = images.Limits(max_bytes=2**24, max_pixels=50_000_000, formats=("JPEG",))

    def prepare_as_ours(data: bytes) -> Any:
        return images.read(data, manifest.input, limits).pixels

    def predict(prepared: Sequence[Any]) -> list[str]:
        answers = model.predict(list(prepared), [ClassifyOptions(top_k=1)] * len(prepared))
        return [answer[0].label for answer in answers]

    return prepare_as_ours if is_twin else _prepare_as_documented, predict


def _prepare_as_documented(data: bytes) -> Any:
    """torchvision's preset up to the pixels: the shorter side to 256, bilinear, then 224 × 224 from the middle."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = RESIZE_PX / min(image.size)
    width, height = int(image.width * scale), int(image.height * scale)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - CROP_PX) / 2), round((height - CROP_PX) / 2)
    return np.asarray(resized.crop((left, top, left + CROP_PX, top + CROP_PX)))
