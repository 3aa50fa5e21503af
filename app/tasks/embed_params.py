"""What callers may send with POST /v1/embed."""

from __future__ import annotations

from pydantic import Field

from app.tasks.embed import MOST_DIMENSIONS
from app.tasks.params import TaskParams


class EmbedParams(TaskParams):
    """Options of POST /v1/embed."""

    dimensions: int | None = Field(
        None,
        ge=1,
        le=MOST_DIMENSIONS,
        description="Only the first so many numbers, of length 1 again where the vectors are. All when left out.",
    )
