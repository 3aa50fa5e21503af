"""Networks for instances: Mask R-CNN with random weights, spread so that answers differ, and one with YOLO's head."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from app.models.manifests import InputSpec, Manifest
from app.runtimes.importing.add import NewModel, add_model
from app.runtimes.operators import torchvision

NAME = "maskrcnn_resnet50_fpn"
LABELS = ("red", "green", "blue")
SIDE_PX = 64
SPEC = InputSpec("fit", min_size=96, max_size=192)
# So few proposals, or random weights find hundreds of objects.
FEW = {"rpn_post_nms_top_n_test": 10}
# Of the head: places are 8 × 8 cells, each with a box around it.
CELLS, CELL_PX, BOX_PX, COEFFICIENTS = 8, 8, 32, 32


def add(store: Path, name: str = "things") -> Manifest:
    """A Mask R-CNN in this store, version 1."""
    path = store / f"{name}.pth"
    torch.save(_spread(), path)
    return add_model(NewModel(NAME, str(path), LABELS, name, "1", input_spec=SPEC, architecture_options=FEW), store)


def _spread() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = torchvision.models.get_model(NAME, weights=None, weights_backbone=None, num_classes=1 + len(LABELS))
    heads = network.roi_heads
    heads.box_predictor.cls_score.weight.data *= 40
    heads.mask_predictor.mask_fcn_logits.weight.data *= 40
    state: dict[str, torch.Tensor] = network.state_dict()
    return state


class Coloured(nn.Module):
    """A box where a cell has a colour; the mask is what is bright. As Ultralytics' networks answer."""

    def __init__(self, *, is_suppressed: bool, has_maps: bool) -> None:
        super().__init__()
        self.is_suppressed, self.has_maps = is_suppressed, has_maps
        middles = (torch.arange(CELLS) + 0.5) * CELL_PX
        rows, columns = torch.meshgrid(middles, middles, indexing="ij")
        sides = torch.full((CELLS * CELLS,), float(BOX_PX))
        self.register_buffer("boxes", torch.stack([columns.ravel(), rows.ravel(), sides, sides]))
        self.register_buffer("first", torch.eye(COEFFICIENTS)[:1].clone())

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        count = images.shape[0]
        scores = avg_pool2d(images, CELL_PX).flatten(2)
        boxes = self.boxes.expand(count, 4, CELLS * CELLS)
        coefficients = self.first.mT.expand(count, COEFFICIENTS, CELLS * CELLS)
        bright = (avg_pool2d(images.sum(1, keepdim=True), 4) - 0.5) * 20
        maps = bright * self.first.mT[..., None]
        if self.is_suppressed:
            best, label = scores.max(1, keepdim=True)
            corners = torch.cat([boxes[:, :2] - BOX_PX / 2, boxes[:, :2] + BOX_PX / 2], 1)
            found = torch.cat([corners, best, label.float(), coefficients], 1).mT
        else:
            found = torch.cat([boxes, scores, coefficients], 1)
        return (found, maps) if self.has_maps else (found[:, : 4 + len(LABELS)],)


def save(path: Path, *, is_suppressed: bool = False, has_maps: bool = True) -> None:
    """The network as a program of torch.export."""
    network = Coloured(is_suppressed=is_suppressed, has_maps=has_maps).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    example = torch.zeros(2, 3, SIDE_PX, SIDE_PX)
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=({0: batch},)), path)
