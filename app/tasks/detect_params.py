"""What callers may send with POST /v1/detect."""

from __future__ import annotations

from pydantic import Field

from app.inference.results import MAX_RESULTS
from app.tasks.params import Label, Pixels, Share, TaskParams


class DetectParams(TaskParams):
    """Options of POST /v1/detect."""

    score_threshold: Share | None = Field(None, description="Detections with a lower score are left out.")
    iou_threshold: Share | None = Field(None, description="Boxes that overlap more than this are one object.")
    max_results: int | None = Field(None, ge=0, le=MAX_RESULTS, description="At most so many detections, best first.")
    min_width: Pixels | None = Field(None, description="Narrower boxes are left out; pixels of the upright image.")
    min_height: Pixels | None = Field(None, description="Lower boxes are left out; pixels of the upright image.")
    label: Label | None = Field(None, description="Only detections with this label, or an alias of it.")
