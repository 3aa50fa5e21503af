"""Which head another's detector has: read from the shapes of its outputs and the number of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from app.errors import ModelLoadError
from app.runtimes import detection_heads as heads
from app.runtimes.importing.network_heads import Head, described, outputs_in_words, sides
from app.runtimes.importing.network_wanted import Wanted

# Ultralytics' networks for masks append so many coefficients to each place.
MASK_COEFFICIENTS = 32
COLUMNS_SUPPRESSED = (6, 6 + MASK_COEFFICIENTS)
KNOWN = (
    "boxes, labels and scores as torchvision has them; YOLO's [n, 4 + labels, places] or [n, boxes, 6]; "
    "or logits and boxes as DETR has them"
)

KNOWN_MASKS = (
    f"boxes, labels, scores and masks [k, 1, height, width] as torchvision has them, or YOLO's boxes with "
    f"{MASK_COEFFICIENTS} coefficients and maps [n, {MASK_COEFFICIENTS}, height, width]"
)


def find(model: Any, wanted: Wanted) -> Head:
    """The head of a detector. Raises ModelLoadError where none fits."""
    ports = list(model.outputs)
    for finder in (_torchvision, _detr, _yolo_nms, _yolo):
        for found in finder(ports, wanted):
            return found
    raise ModelLoadError(
        f"{wanted.file} gives {outputs_in_words(model)}; a detector gives {KNOWN}.",
        hint="Export it with one of these, or take TASK=tensor and decode the arrays yourself.",
    )


def find_with_masks(model: Any, wanted: Wanted) -> Head:
    """The head of a detector whose boxes have masks. Raises ModelLoadError where none fits."""
    ports = list(model.outputs)
    shapes = [sides(port) for port in ports]
    maps = [place for place, shape in enumerate(shapes) if len(shape) == 4 and shape[1] == MASK_COEFFICIENTS]
    listed = [place for place, shape in enumerate(shapes) if len(shape) in (3, 4) and shape[1] in (1, *shape[-1:])]
    for finder, masks in ((_torchvision, listed), (_yolo_nms, maps), (_yolo, maps)):
        for found in finder(ports, wanted) if masks else ():
            said = f"{found.said}; masks from {described(ports[masks[0]])}"
            return replace(found, outputs=(*found.outputs, masks[0]), said=said)
    raise ModelLoadError(
        f"{wanted.file} gives {outputs_in_words(model)}; a network for instances gives {KNOWN_MASKS}.",
        hint="TASK=detect takes boxes without masks; TASK=tensor gives arrays as they are.",
    )


def _head(ports: list[Any], places: list[int], count: int, words: str, **options: Any) -> Head:
    read = ", ".join(described(ports[place]) for place in places)
    return Head(tuple(places), lambda outputs: outputs, count, f"boxes are read from {read}: {words}", options)


def _torchvision(ports: list[Any], wanted: Wanted) -> Iterator[Head]:
    shapes = [sides(port) for port in ports]
    whole = [port.get_element_type().is_integral() for port in ports]
    boxes = [place for place, shape in enumerate(shapes) if len(shape) == 2 and shape[1] == 4 and not whole[place]]
    labels = [place for place, shape in enumerate(shapes) if len(shape) == 1 and whole[place]]
    scores = [place for place, shape in enumerate(shapes) if len(shape) == 1 and not whole[place]]
    if boxes and labels and scores:
        first = int(wanted.options.get("first_label", 1))
        words = f"chosen inside as torchvision does, labels counted from {first}"
        places = [boxes[0], labels[0], scores[0]]
        yield _head(ports, places, 0, words, head=heads.TORCHVISION, first_label=first)


def _detr(ports: list[Any], wanted: Wanted) -> Iterator[Head]:
    shapes = [sides(port) for port in ports]
    boxes = [place for place, shape in enumerate(shapes) if len(shape) == 3 and shape[2] == 4]
    # Three labels and no object are four as well: names tell, else the order.
    boxes.sort(key=lambda place: (any("box" in name.lower() for name in ports[place].get_names()), place))
    for place, shape in enumerate(shapes):
        if len(shape) == 3 and boxes and place != boxes[-1] and shape[1] == shapes[boxes[-1]][1]:
            is_softmax = shape[2] != wanted.labels
            count = shape[2] - is_softmax
            words = "DETR's, the last label being no object" if is_softmax else "DETR's with a sigmoid for each label"
            yield _head(ports, [place, boxes[-1]], count, words, head=heads.DETR, is_softmax=is_softmax)


def _yolo_nms(ports: list[Any], wanted: Wanted) -> Iterator[Head]:
    for place, port in enumerate(ports):
        shape = sides(port)
        # One label with an objectness, or two, have six columns too; their places are many thousands.
        if len(shape) == 3 and shape[2] in COLUMNS_SUPPRESSED and (wanted.labels not in (1, 2) or shape[1] <= 1000):
            yield _head(ports, [place], 0, "YOLO's, suppressed inside", head=heads.YOLO_NMS)


def _yolo(ports: list[Any], wanted: Wanted) -> Iterator[Head]:
    for place, port in enumerate(ports):
        shape = sides(port)
        if len(shape) != 3 or min(shape[1:]) < 5:
            continue
        is_by_place = shape[1] > shape[2]
        columns = min(shape[1:])
        if any(len(sides(other)) == 4 and sides(other)[1] == MASK_COEFFICIENTS for other in ports):
            columns -= MASK_COEFFICIENTS
        has_objectness = columns == wanted.labels + 5
        count = columns - (5 if has_objectness else 4)
        words = f"YOLO's, {'with' if has_objectness else 'without'} objectness, not suppressed"
        options = {"head": heads.YOLO, "is_by_place": is_by_place, "has_objectness": has_objectness}
        yield _head(ports, [place], count, words, **options)
