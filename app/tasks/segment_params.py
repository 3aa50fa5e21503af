"""What callers may send with POST /v1/segment."""

from __future__ import annotations

from pydantic import Field

from app.tasks.params import Label, TaskParams
from app.tasks.segment import NO_CLASS


class SegmentParams(TaskParams):
    """Options of POST /v1/segment."""

    max_classes: int | None = Field(None, ge=1, le=NO_CLASS, description="At most so many classes, largest first.")
    only_label: Label | None = Field(None, description="Only this class, or an alias of it; other pixels have none.")
