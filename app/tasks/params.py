"""What callers may send with a task: base and types of the options of each, in ``<name>_params.py``.

Here is pydantic, which engine and ops do without: they ask no task for its ``params``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from app.inference.results import NAME
from app.plain_numbers import PlainNumbers

Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Label = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra={"format": "label"})]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# The key of an option's schema that says its unit, for people: json_schema_extra={UNIT: "px"}.
UNIT = "x-unit"
Pixels = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, json_schema_extra={UNIT: "px"})]


class TaskParams(PlainNumbers):
    """What every task understands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name | None = Field(None, description="Name of the model; the first one of the task when left out.")
    version: Name | None = Field(None, description="Version of the model; the one that answers now when left out.")

    @property
    def wants_explanation(self) -> bool:
        """Whether the caller also asks why; no task but those that can say so is ever asked."""
        return False
