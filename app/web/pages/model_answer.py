"""What a model with code answered, for people: labels as bars, boxes on the picture, masks in colours, else JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from app.inference.results import Box, Detection, Prediction
from app.model_code.schema_marks import KIND
from app.tasks.segment import Segment, colour
from app.web.pages import drawing
from app.web.pages.drawing import DrawnBox
from app.web.pages.previews import Preview

SHOWN_CHARACTERS = 20_000
LABEL, DETECTION = {"label", "score"}, {"label", "score", "box"}
MASK = {"png", "areas"}
SIDES = ("x_min", "y_min", "x_max", "y_max")


@dataclass(frozen=True)
class ModelAnswer:
    """One answer. ``kind``: labels, detections, mask, image, plain or json, which says what else is there."""

    kind: str
    document: str
    labels: list[Prediction] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)
    drawn: list[DrawnBox] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    picture: str = ""


def of(schema: Mapping[str, Any], answer: Any, seen: Preview | None, size: tuple[int, int]) -> ModelAnswer:
    """What stands on the page. ``seen``: the picture that was sent, ``size``: its width and height."""
    text = json.dumps(answer, indent=2, ensure_ascii=False)
    document = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
    rows = answer if isinstance(answer, list) else [answer]
    fields = set((schema.get("items") or schema).get("properties", ()))
    if fields == LABEL and all(0 <= row["score"] <= 1 for row in rows):
        return ModelAnswer("labels", document, labels=[Prediction(row["label"], row["score"]) for row in rows])
    if fields == DETECTION and seen and all(0 <= row["score"] <= 1 for row in rows):
        found = [Detection(row["label"], row["score"], Box(*(row["box"][side] for side in SIDES))) for row in rows]
        names = sorted({row.label for row in found})
        return ModelAnswer("detections", document, detections=found, drawn=drawing.draw(found, *size, names))
    if fields == MASK and not isinstance(answer, list):
        return _mask(answer)
    if schema.get(KIND) == "image":
        return ModelAnswer("image", "", picture=f"data:image/png;base64,{answer}")
    return ModelAnswer("plain" if isinstance(answer, str | int | float) else "json", document)


def _mask(answer: Mapping[str, Any]) -> ModelAnswer:
    """The mask in colours: in the PNG of an answer each pixel is the number of its class."""
    numbers = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"]))))
    counts = np.bincount(numbers.ravel(), minlength=1)
    # Both are ordered by area.
    classes = sorted((number for number in range(len(counts)) if counts[number]), key=lambda number: -counts[number])
    segments = [
        Segment(label=area["label"], area=area["pixels"] / numbers.size, colour=f"#{bytes(colour(number)).hex()}")
        for number, area in zip(classes, answer["areas"], strict=False)
    ]
    picture, buffer = Image.fromarray(numbers.astype(np.uint8)), io.BytesIO()
    picture.putpalette(b"".join(bytes(colour(number)) for number in range(256)))
    picture.save(buffer, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    areas = {"areas": answer["areas"], "png": f"{len(answer['png'])} characters of base64"}
    return ModelAnswer("mask", json.dumps(areas, indent=2), segments=segments, picture=address)
