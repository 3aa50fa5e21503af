"""The model that every contender serves: resnet18 at 224 pixels, trained for some minutes on rendered scenes.

``python -m bench.model`` makes what is missing in ``build/bench``: the weights, the model store (by the same code as
``make model-add``), what ``make model-build`` builds, and the reference's labels. Trained, because agreement of a
model with random weights means nothing: it names one class whatever it sees.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from app.model_code import adding
from app.models import builds, manifests
from app.models.manifests import InputSpec, Manifest
from app.runtimes.build import build, samples
from app.runtimes.importing import add
from app.runtimes.operators import torchvision
from bench import pictures
from bench.peers import network
from bench.peers.network import CROP_PX, RESIZE_PX
from training.scenes import LABELS

STORE = pictures.FOLDER / "models"
# A state folder that holds nothing but what was built; each start of ours gets a copy: a warm cache.
BUILT_STATE = network.FOLDER / "state"
REFERENCE = pictures.FOLDER / "reference.json"
NAME, VERSION = "bench-resnet18", "1"
# The same network as a model with code.
CODE_NAME = "bench-code"
CODE = Path(__file__).resolve().parent / "code_model"
# The same network inside the engine, with pictures prepared as for the model with code: scaled to the input's side and
# never larger, so that a JPEG is decoded at half its size. Under the same name; the other ours do not load it.
SQUARE_STORE = pictures.FOLDER / "square"
SQUARE = InputSpec("crop", size=CROP_PX, resize_size=CROP_PX)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINING_SEED = 6_000_000
TRAINING_PICTURES = 3000
# What the build learns int8's ranges from and compares candidates on; neither training nor requests hold them.
SAMPLES_SEED = 5_000_000
SAMPLES = 200
# A little more than the crop, so that training can move it.
STORED_PX = 240


@dataclass(frozen=True)
class Stage:
    """A part of the training: pixels of the input's side, rounds over all pictures, highest learning rate."""

    side_px: int
    epochs: int
    rate: float


# Small pictures first: a quarter of the work for each, and the filters learn as well.
STAGES = (Stage(112, 8, 2e-3), Stage(224, 2, 5e-4))
BATCH = 50


def ensure() -> Manifest:
    """Make what is missing, and return the manifest of the model."""
    pictures.FOLDER.mkdir(parents=True, exist_ok=True)
    network.LABELS_FILE.write_text(json.dumps(LABELS) + "\n")
    if not network.WEIGHTS.exists():
        _train()
    directory = STORE / NAME / VERSION
    new = add.NewModel("resnet18", str(network.WEIGHTS), LABELS, NAME, VERSION, description="For make bench.")
    if not directory.exists():
        add.add_model(new, STORE)
        _write_samples(directory / samples.FOLDER)
    if not (SQUARE_STORE / NAME / VERSION).exists():
        add.add_model(replace(new, input_spec=SQUARE), SQUARE_STORE)
    manifest = manifests.read(directory)
    if not _has_code():
        _add_code(directory / manifest.weights)
    if builds.read(BUILT_STATE, manifest) is None:
        print(build.table(build.build_model(manifest, BUILT_STATE)), flush=True)
    if not REFERENCE.exists() or json.loads(REFERENCE.read_text())["digest"] != manifest.digest:
        _write_reference(manifest)
    return manifest


def _has_code() -> bool:
    """Whether the store has the folder ``code_model`` as it is now."""
    added = STORE / CODE_NAME / VERSION / "model.py"
    return added.exists() and added.read_bytes() == (CODE / "model.py").read_bytes()


def _add_code(weights: Path) -> None:
    """The folder ``code_model`` with the same weights and labels."""
    shutil.rmtree(STORE / CODE_NAME, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = shutil.copytree(CODE, Path(scratch) / "code", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(weights, folder / "weights.safetensors")
        (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
        adding.add(adding.NewCode(folder, CODE_NAME, VERSION), STORE)


def _write_samples(folder: Path) -> None:
    folder.mkdir()
    for number, (pixels, _label) in enumerate(pictures.render(SAMPLES_SEED, SAMPLES)):
        (folder / f"{number:03}.jpg").write_bytes(pictures.to_jpeg(pixels))


def reference() -> list[str]:
    """The label of each held-out picture by the reference: eager fp32 and torchvision's own preprocessing."""
    labels: list[str] = json.loads(REFERENCE.read_text())["labels"]
    return labels


# ---------------------------------------------------------------------------------------------------------- training


def _train() -> None:
    began = time.monotonic()
    print(f"rendering {TRAINING_PICTURES} scenes", flush=True)
    pixels, labels = _training_set()
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    built = torchvision.models.resnet18(num_classes=len(LABELS)).to(memory_format=torch.channels_last)
    for stage in STAGES:
        _train_stage(built, stage, pixels, labels, began)
    torch.save(built.eval().state_dict(), network.WEIGHTS)


def _training_set() -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [N, 3, 240, 240] and label numbers [N]."""
    rendered = pictures.render(TRAINING_SEED, TRAINING_PICTURES)
    squares = np.stack([_square(image) for image, _ in rendered])
    return torch.from_numpy(squares).permute(0, 3, 1, 2), torch.tensor([label for _, label in rendered])


def _square(image: np.ndarray) -> np.ndarray:
    """The middle, scaled as the preset does."""
    scale = RESIZE_PX / min(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    top, left = (size[1] - STORED_PX) // 2, (size[0] - STORED_PX) // 2
    return resized[top : top + STORED_PX, left : left + STORED_PX]


def _train_stage(built: nn.Module, stage: Stage, pixels: torch.Tensor, labels: torch.Tensor, began: float) -> None:
    steps = stage.epochs * (len(pixels) // BATCH)
    optimiser = torch.optim.AdamW(built.parameters(), lr=stage.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, stage.rate, total_steps=steps)
    built.train()
    for step, index in enumerate(_batches(len(pixels), stage.epochs)):
        with torch.autocast("cpu", torch.bfloat16):
            logits = built(_augment(pixels[index], stage.side_px))
        loss = nn.functional.cross_entropy(logits.float(), labels[index], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            seconds = time.monotonic() - began
            print(f"{stage.side_px} px, step {step} of {steps}, loss {loss.item():.3f}, {seconds:.0f} s", flush=True)


def _batches(count: int, epochs: int) -> Iterator[torch.Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count)[: count - count % BATCH].split(BATCH)


def _augment(pixels: torch.Tensor, side_px: int) -> torch.Tensor:
    """Moved, mirrored, lit otherwise and normalised; float32 [B, 3, side, side]."""
    top, left = torch.randint(STORED_PX - CROP_PX + 1, (2,)).tolist()
    images = pixels[:, :, top : top + CROP_PX, left : left + CROP_PX].float() / 255
    if torch.rand(()) < 0.5:
        images = images.flip(3)
    images = images * (0.8 + 0.4 * torch.rand(len(images), 3, 1, 1))
    if side_px != CROP_PX:
        images = nn.functional.interpolate(images, size=side_px, mode="bilinear", antialias=True)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


# --------------------------------------------------------------------------------------------------------- reference


def _write_reference(manifest: Manifest) -> None:
    images = pictures.held_out()
    labels = name_all(images)
    REFERENCE.write_text(json.dumps({"digest": manifest.digest, "labels": labels}, indent=1) + "\n")
    counts = {label: labels.count(label) for label in LABELS}
    sizes = [len(image) for image in images]
    print(f"{len(images)} held-out pictures of {np.mean(sizes) / 1000:.0f} kB on average: {counts}", flush=True)
    print(f"of these named as they were rendered: {_accuracy(labels):.1%}", flush=True)


def name_all(images: Sequence[bytes]) -> list[str]:
    """The best label of each JPEG by the reference."""
    built, prepare = network.network(len(LABELS)), network.preset()
    found = []
    with torch.inference_mode():
        for image in images:
            prepared = prepare(Image.open(io.BytesIO(image)).convert("RGB"))
            found.append(LABELS[int(built(prepared[None]).argmax())])
    return found


def _accuracy(labels: Sequence[str]) -> float:
    truths = [LABELS[label] for _, label in pictures.render(pictures.HELD_OUT_SEED, len(labels))]
    return float(np.mean([found == truth for found, truth in zip(labels, truths, strict=True)]))


if __name__ == "__main__":
    print(f"{ensure().key} is in {STORE.relative_to(pictures.ROOT)}")
