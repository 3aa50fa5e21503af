"""What callers may send with POST /v1/classify."""

from __future__ import annotations

from pydantic import Field

from app.inference.results import MAX_RESULTS
from app.tasks.params import Label, TaskParams


class ClassifyParams(TaskParams):
    """Options of POST /v1/classify."""

    top_k: int | None = Field(None, ge=0, le=MAX_RESULTS, description="How many labels, best first.")
    explain: bool | None = Field(None, description="Also say where the model looked, as a map and a picture.")
    explain_label: Label | None = Field(None, description="Explain this label; the best one when left out.")

    @property
    def wants_explanation(self) -> bool:
        """They said so, or named a label to be explained."""
        return bool(self.explain_label) if self.explain is None else self.explain
