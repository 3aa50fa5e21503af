"""Makes the small weights of table, segment, timm and yolo: drawn shapes, some minutes on one core.

Run by hand where torch, timm and onnx are installed: ``python -m examples.models.make_weights``. What it writes is kept
in the folders of the models, so nobody needs to. On one machine it makes the same bytes each time; of what is trained
the last digits differ from processor to processor.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from examples.models.drawn_shapes import LABELS, SIDE, draw

HERE = Path(__file__).resolve().parent
CELL = 8  # pixels
PICTURES, STEPS, BATCH = 1500, 700, 32


def pixels(pictures: list[Image.Image]) -> Tensor:
    return torch.tensor(np.stack([np.asarray(each) for each in pictures])).permute(0, 3, 1, 2) / 255


def train(
    network: nn.Module, inputs: Tensor, loss: Callable[[Tensor, Tensor], Tensor], steps: int = STEPS
) -> nn.Module:
    """``loss`` gets outputs and the numbers of their pictures."""
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    network.train()
    for step, chosen in enumerate(batches(len(inputs), steps)):
        optimizer.zero_grad()
        found = loss(network(inputs[chosen]), chosen)
        torch.autograd.backward(found)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"  step {step}, loss {found.item():.4f}", flush=True)
    return network.eval()


def batches(count: int, steps: int) -> Iterator[Tensor]:
    for _ in range(steps):
        yield torch.randint(count, (BATCH,))


def save(network: nn.Module, folder: Path) -> None:
    save_file({name: each.half() for name, each in network.state_dict().items()}, folder / "weights.safetensors")


# ── the models ───────────────────────────────────────────────────────────────────────────────────────────────────────


def table(folder: Path, rng: random.Random) -> None:
    """Least squares over flats that are made up."""
    heatings = {"gas": 120, "district": 90, "heat pump": 180}
    flats = [(rng.uniform(20, 150), rng.randint(1, 6), rng.choice(list(heatings))) for _ in range(500)]
    rents = [10.5 * area + 40 * rooms + heatings[heating] + rng.gauss(0, 30) for area, rooms, heating in flats]
    rows = [[area, rooms, *(heating == each for each in heatings)] for area, rooms, heating in flats]
    found = np.linalg.lstsq(np.array(rows, float), np.array(rents), rcond=None)[0]
    euros = dict(zip(("m2", "room", *heatings), found.round(2).tolist(), strict=True))
    (folder / "weights.json").write_text(json.dumps(euros, indent=2) + "\n")


def segment(folder: Path, rng: random.Random) -> None:
    drawn = [draw(rng, 3) for _ in range(PICTURES)]
    masks = torch.tensor(np.stack([np.asarray(mask) for _, mask, _ in drawn])).long()
    layers = [nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 7, 1, 3)]
    upsample = nn.Upsample(scale_factor=4, mode="bilinear")
    network = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(16, 4, 1), upsample)
    train(network, pixels([each[0] for each in drawn]), lambda out, i: functional.cross_entropy(out, masks[i]))
    (folder / "labels.txt").write_text("\n".join(("ground", *LABELS, "")))
    save(network, folder)


def timm(folder: Path, rng: random.Random) -> None:
    import timm

    drawn = [draw(rng, 1) for _ in range(PICTURES)]
    labels = torch.tensor([shapes[0][0] for _, _, shapes in drawn])
    network = timm.create_model("test_resnet", num_classes=3, channels=(8, 8, 16, 16), stem_width=8)
    train(network, pixels([each[0] for each in drawn]), lambda out, i: functional.cross_entropy(out, labels[i]))
    (folder / "labels.txt").write_text("\n".join((*LABELS, "")))
    save(network, folder)


class Detector(nn.Module):
    """A YOLO of five layers: [n, 4 + classes, cells], boxes by centre and size in pixels, scores after the sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        strided = [part for pair in itertools.pairwise((3, 12, 16, 24)) for part in self.layer(*pair, stride=2)]
        self.layers = nn.Sequential(*strided, *self.layer(24, 24, dilation=2), nn.Conv2d(24, 7, 1))
        steps = (torch.arange(SIDE // CELL) + 0.5) * CELL
        grid = torch.meshgrid(steps, steps, indexing="xy")
        self.register_buffer("grid", torch.stack(grid).flatten(1))

    @staticmethod
    def layer(before: int, after: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
        convolution = nn.Conv2d(before, after, 3, stride, dilation, dilation)
        return convolution, nn.BatchNorm2d(after), nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        out = self.layers(inputs).flatten(2)
        centre, size = out[:, :2] * CELL + self.grid, out[:, 2:4].exp() * 3 * CELL
        return torch.cat([centre, size, out[:, 4:].sigmoid()], 1)


def yolo(folder: Path, rng: random.Random) -> None:
    drawn = [draw(rng, 3) for _ in range(PICTURES)]
    cells = (SIDE // CELL) ** 2
    wanted = torch.zeros(PICTURES, 7, cells)
    for row, (_, _, shapes) in zip(wanted, drawn, strict=True):
        for label, x, y, half in shapes:
            cell = int(y // CELL) * (SIDE // CELL) + int(x // CELL)
            row[:4, cell] = torch.tensor([x, y, 2 * half, 2 * half])
            row[4 + label, cell] = 1

    def loss(out: Tensor, i: Tensor) -> Tensor:
        target = wanted[i]
        is_there = target[:, 4:].amax(1, keepdim=True)
        wrong = (out[:, :4] - target[:, :4]) * is_there / CELL
        boxes = functional.smooth_l1_loss(wrong, torch.zeros_like(wrong), reduction="sum")
        scores = functional.binary_cross_entropy(out[:, 4:], target[:, 4:], reduction="sum")
        return (boxes + scores) / BATCH

    network = train(Detector(), pixels([each[0] for each in drawn]), loss, 2 * STEPS)
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, SIDE, SIDE),),
        str(folder / "yolo.onnx"),
        dynamo=False,
        input_names=["images"],
        output_names=["output0"],
        dynamic_axes={"images": [0], "output0": [0]},
    )
    (folder / "labels.txt").write_text("\n".join((*LABELS, "")))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for make in (table, yolo, segment, timm):
        torch.manual_seed(1)
        print(make.__name__)
        make(HERE / make.__name__, random.Random(1))  # noqa: S311
