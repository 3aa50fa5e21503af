"""Train the demonstration models from nothing on rendered scenes: ``make train``. Two cores, no GPU, some 20 minutes.

The detector is trained by two processes of one thread each: on two cores that is faster than one process of two. They
share nothing but their gradients. Every seed is fixed and the learning rate follows the step, not the clock, so that a
second run gives nearly the same model.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812  (the name that every torch reader knows)
from safetensors.torch import load_file, save_file
from torch import nn
from torch.multiprocessing.spawn import spawn

from app.models.manifests import LETTERBOX_GREY, InputSpec
from app.runtimes import demo_networks
from app.runtimes.operators import torchvision
from app.runtimes.registry import load_model
from training import check, publish, scenes

ImageList = torchvision.models.detection.image_list.ImageList

BUILD = Path("build/training")
CHUNK = 250
PROCESSES = 2

# ImageNet's, as everywhere in torchvision; the manifest's default as well.
MEAN, STD = InputSpec("crop").mean, InputSpec("crop").std


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to learn."""

    scenes: int
    steps: int
    batch: int
    peak_rate: float
    weight_decay: float = 0.02
    warm_up_steps: int = 200
    ema_decay: float = 0.998
    clip_norm: float = 5.0
    empty_share: float = 0.14
    seed: int = 1_000_000


DETECTOR = Recipe(scenes=8000, steps=3000, batch=16, peak_rate=2e-3)
# Then once more, half of the scenes new and empty: on empty scenes it leaves half of the false boxes.
POLISH = Recipe(scenes=4000, steps=600, batch=16, peak_rate=8e-4, warm_up_steps=50, empty_share=0.5, seed=1_500_000)
CLASSIFIER = Recipe(scenes=8000, steps=700, batch=64, peak_rate=3e-3, warm_up_steps=100)


def rate_at(recipe: Recipe, step: int) -> float:
    """Learning rate of this step: linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < recipe.warm_up_steps:
        return recipe.peak_rate * (step + 1) / recipe.warm_up_steps
    share = (step - recipe.warm_up_steps) / max(1, recipe.steps - recipe.warm_up_steps)
    return recipe.peak_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


# ---------------------------------------------------------------------------------------------------- rendered sets


def _render_chunk(path: Path, sample: Callable, recipe: Recipe, start: int, stop: int) -> list[list]:
    seed = recipe.seed + start
    pixels = np.lib.format.open_memmap(path, "r+")
    library, rng = scenes.SpriteLibrary(seed, per_kind=48), np.random.default_rng(seed)
    shown = []
    for i in range(start, stop):
        pixels[i], *what = sample(rng, library)
        shown.append(what)
    return shown


def _render(path: Path, sample: Callable, recipe: Recipe, size: int) -> list[list]:
    """Render a recipe's pictures into an .npy file, chunk by chunk on all processes; returns what they show."""
    count = recipe.scenes
    path.parent.mkdir(parents=True, exist_ok=True)
    np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size, 3)).flush()
    starts = range(0, count, CHUNK)
    began, shown = time.monotonic(), []
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(_render_chunk, path, sample, recipe, start, min(start + CHUNK, count)) for start in starts]
        for job in jobs:
            shown.extend(job.result())
            print(f"\rrendered {len(shown)} of {count} scenes in {time.monotonic() - began:.0f} s", end="", flush=True)
    print(flush=True)
    return shown


def detection_set(recipe: Recipe) -> tuple[Path, Path]:
    """Files with a recipe's letterboxed scenes and their boxes; rendered where they are not there yet."""
    name = f"detector-{recipe.seed}-{recipe.scenes}"
    pixels, truths = BUILD / f"{name}.npy", BUILD / f"{name}-truths.npz"
    if not (truths.exists() and pixels.exists()):
        sample = functools.partial(scenes.detection_sample, empty_share=recipe.empty_share)
        shown = _render(pixels, sample, recipe, scenes.DETECTOR_SIZE_PX)
        np.savez(
            truths,
            boxes=np.concatenate([boxes for boxes, _ in shown]),
            labels=np.concatenate([labels for _, labels in shown]),
            counts=np.array([len(labels) for _, labels in shown]),
        )
    return pixels, truths


def classification_set(recipe: Recipe) -> tuple[Path, Path]:
    """Files with a recipe's crops and their label numbers; rendered where they are not there yet."""
    name = f"classifier-{recipe.seed}-{recipe.scenes}"
    pixels, truths = BUILD / f"{name}.npy", BUILD / f"{name}-truths.npz"
    if not (truths.exists() and pixels.exists()):
        shown = _render(pixels, scenes.classification_sample, recipe, scenes.CLASSIFIER_SIZE_PX)
        np.savez(truths, labels=np.array([label for (label,) in shown]))
    return pixels, truths


# ---------------------------------------------------------------------------------------------------- augmentation


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 or float 0 … 255 [B, 3, H, W] to what the network expects."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return (pixels.float() - mean) / std


def _zoom(pixels: torch.Tensor, zooms: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Scale each picture by its zoom and shift it (in half-widths), grey beyond its edge."""
    theta = torch.zeros(len(pixels), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zooms
    theta[:, :, 2] = -shifts / zooms[:, None]
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels - LETTERBOX_GREY, grid, align_corners=False) + LETTERBOX_GREY


def augment_detection(
    rng: np.random.Generator, pixels: torch.Tensor, truths: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Mirror half of a batch, zoom half of it by 0.7 to 1.4, change the channels' gain. ``pixels`` 0 … 255, float."""
    count, _, height, width = pixels.shape
    flips = torch.from_numpy(rng.random(count) < 0.5)
    pixels = torch.where(flips[:, None, None, None], pixels.flip(3), pixels)
    zooms = torch.from_numpy(np.where(rng.random(count) < 0.5, np.exp(rng.uniform(-0.36, 0.34, count)), 1)).float()
    shifts = torch.from_numpy(rng.uniform(-0.3, 0.3, (count, 2))).float() * (zooms != 1)[:, None]
    if bool((zooms != 1).any()):
        pixels = _zoom(pixels, zooms, shifts)
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (count, 1, 1, 1)) * rng.uniform(0.92, 1.08, (count, 3, 1, 1)))
    pixels = (pixels * gain.float()).clamp(0, 255)
    targets = []
    for i, (boxes, labels) in enumerate(truths):
        moved = boxes.clone()
        if flips[i]:
            moved[:, [0, 2]] = width - boxes[:, [2, 0]]
        centre = torch.tensor([width, height] * 2) / 2
        moved = (moved - centre) * zooms[i] + centre + shifts[i].repeat(2) * centre
        clipped = torch.stack([moved[:, 0::2].clamp(0, width), moved[:, 1::2].clamp(0, height)], 2).flatten(1)
        sides, whole = clipped[:, 2:] - clipped[:, :2], moved[:, 2:] - moved[:, :2]
        keep = (sides.min(1).values >= 8) & (sides.prod(1) >= 0.4 * whole.prod(1))
        targets.append({"boxes": clipped[keep], "labels": labels[keep]})
    return pixels, targets


# ---------------------------------------------------------------------------------------------------- learning


class Average:
    """Exponential moving average of a model's weights and statistics; what is saved in the end."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = deepcopy(model), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        for mine, new in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(new, 1 - decay)
            else:
                mine.copy_(new)


def _in_channels_last(model: Any) -> nn.Module:
    """The model ready to learn, its weights in the memory order that convolutions on a CPU like best."""
    trained: nn.Module = model.train().to(memory_format=torch.channels_last)
    return trained


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate)


def _share_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over the processes; one message for all of them."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def _batches(rng: np.random.Generator, count: int, batch: int) -> Iterator[np.ndarray]:
    """Index sets for ever: each pass goes through all pictures in a new order."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def detector_loss(model: Any, pixels: torch.Tensor, targets: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """FCOS's three losses, summed. The network runs in bf16, the losses in fp32."""
    images = normalise(pixels).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        maps = list(model.backbone(images).values())
        outputs = {name: value.float() for name, value in model.head(maps).items()}
    anchors = model.anchor_generator(ImageList(images, [(320, 320)] * len(images)), maps)
    per_level = [m.shape[2] * m.shape[3] for m in maps]
    losses = model.compute_loss(targets, outputs, anchors, per_level)
    return torch.stack(list(losses.values())).sum()


def _train_detector_process(
    rank: int, recipe: Recipe, pixels_path: Path, truths_path: Path, target: Path, start: Path | None
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    dist.init_process_group("gloo", init_method=f"file://{target.absolute()}.meet", rank=rank, world_size=PROCESSES)
    model = _in_channels_last(demo_networks.narrow_fcos(len(scenes.LABELS)))
    if start:
        model.load_state_dict(load_file(start))
    optimiser, average = _optimiser(model, recipe), Average(model, recipe.ema_decay)
    pixels, truths = np.load(pixels_path, mmap_mode="r"), _read_truths(truths_path)
    order, rng = np.random.default_rng(7), np.random.default_rng(100 + rank)
    began, shown_loss = time.monotonic(), 0.0
    for step, index in zip(range(recipe.steps), _batches(order, len(pixels), recipe.batch), strict=False):
        mine = index[rank::PROCESSES]
        batch = torch.from_numpy(pixels[np.sort(mine)]).permute(0, 3, 1, 2).float()
        images, targets = augment_detection(rng, batch, [truths[i] for i in np.sort(mine)])
        loss = detector_loss(model, images, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        _share_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(recipe, step)
        optimiser.step()
        shown_loss = loss.item() if step == 0 else 0.98 * shown_loss + 0.02 * loss.item()
        if rank == 0:
            average.update(model, step)
            if step % 25 == 24:
                _progress("detector", step + 1, recipe, began, shown_loss)
            if step % 400 == 399:
                _save(average.model, target)
    if rank == 0:
        _save(average.model, target)
    dist.barrier()
    dist.destroy_process_group()


def _read_truths(path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Boxes [N, 4] and label numbers [N] of each scene."""
    with np.load(path) as stored:
        counts = stored["counts"].tolist()
        boxes, labels = (torch.from_numpy(stored[name]) for name in ("boxes", "labels"))
    return list(zip(boxes.split(counts), labels.split(counts), strict=True))


def _progress(what: str, step: int, recipe: Recipe, began: float, loss: float) -> None:
    elapsed = time.monotonic() - began
    left = elapsed / step * (recipe.steps - step)
    speed = step * recipe.batch / elapsed
    print(
        f"\r{what}: step {step} of {recipe.steps}, loss {loss:.3f}, {speed:.0f} images/s, "
        f"{elapsed / 60:.1f} min gone, {left / 60:.1f} min to go   ",
        end="\n" if step == recipe.steps else "",
        flush=True,
    )


def _save(model: nn.Module, target: Path) -> None:
    """Write the weights as fp16 safetensors, by rename; half the size costs at most 1e-5 of mAP (measured)."""
    state = {
        name: (value.half() if value.dtype.is_floating_point else value).contiguous()
        for name, value in model.state_dict().items()
    }
    partial = target.with_suffix(".partial")
    save_file(state, partial)
    partial.replace(target)


def train_detector(recipe: Recipe = DETECTOR, start: Path | None = None) -> Path:
    """Train the detector, from nothing or from the weights ``start``; returns the file of its weights."""
    pixels, truths = detection_set(recipe)
    target = BUILD / ("detector-polished.safetensors" if start else "detector.safetensors")
    Path(f"{target.absolute()}.meet").unlink(missing_ok=True)
    spawn(_train_detector_process, (recipe, pixels, truths, target, start), nprocs=PROCESSES)
    return target


def train_classifier(recipe: Recipe = CLASSIFIER) -> Path:
    """Train the classifier; returns the file of its weights."""
    pixels_path, truths_path = classification_set(recipe)
    pixels, labels = np.load(pixels_path, mmap_mode="r"), torch.from_numpy(np.load(truths_path)["labels"])
    # Two threads wait for each other at every layer: 4 images/s on a busy machine, where one thread did 122.
    torch.set_num_threads(1)
    torch.manual_seed(2)
    rng = np.random.default_rng(9)
    model = _in_channels_last(demo_networks.narrow_resnet10(len(scenes.LABELS)))
    optimiser, average = _optimiser(model, recipe), Average(model, recipe.ema_decay)
    began, shown_loss = time.monotonic(), 0.0
    for step, index in zip(range(recipe.steps), _batches(rng, len(pixels), recipe.batch), strict=False):
        batch = torch.from_numpy(pixels[np.sort(index)]).permute(0, 3, 1, 2).float()
        images, _ = augment_detection(rng, batch, [])
        images = normalise(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels[np.sort(index)], label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(recipe, step)
        optimiser.step()
        average.update(model, step)
        shown_loss = loss.item() if step == 0 else 0.98 * shown_loss + 0.02 * loss.item()
        if step % 25 == 24:
            _progress("classifier", step + 1, recipe, began, shown_loss)
    target = BUILD / "classifier.safetensors"
    _save(average.model, target)
    return target


def publish_trained() -> None:
    """Put what was trained into the store, measure it there on held-out scenes, and write the figures beside it."""
    torch.set_num_threads(1)
    built = {
        publish.DETECTOR: BUILD / "detector-polished.safetensors",
        publish.CLASSIFIER: BUILD / "classifier.safetensors",
    }
    detector, classifier = (load_model(publish.publish(name, path, {})) for name, path in built.items())
    figures = list(check.measure(detector, classifier, check.FULL))
    for name, path in built.items():
        table = check.held_out_table(figures, check.FULL, for_detector=name == publish.DETECTOR)
        publish.publish(name, path, table)
    publish.write_samples()
    for text in check.failures(figures[0], check.FULL):
        print(f"WARNING: {text}")


def main() -> None:
    """Train both models, or the one that was asked for, and put them into the model store with their figures."""
    parser = argparse.ArgumentParser(prog="make train", description=__doc__)
    parser.add_argument("--only", choices=["detector", "classifier"], help="train this one, keep the other")
    parser.add_argument("--steps", type=int, help="train each for so many steps, to try something out")
    parser.add_argument("--no-publish", action="store_true", help="leave the weights in build/training")
    arguments = parser.parse_args()
    os.nice(5)

    def shortened(recipe: Recipe) -> Recipe:
        return replace(recipe, steps=arguments.steps) if arguments.steps else recipe

    if arguments.only != "detector":
        train_classifier(shortened(CLASSIFIER))
    if arguments.only != "classifier":
        train_detector(shortened(POLISH), start=train_detector(shortened(DETECTOR)))
    if not arguments.no_publish:
        publish_trained()


if __name__ == "__main__":
    main()
