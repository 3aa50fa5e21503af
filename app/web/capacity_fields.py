"""What stands on a capacity card, as `make loadtest-search` writes it."""

from __future__ import annotations

from typing import Any

from pydantic import AliasPath, BaseModel, Field


class Step(BaseModel):
    """One rate that was tried. ``rate`` in requests a second, ``p95_ms`` of the answers."""

    rate: float
    right: float = Field(validation_alias="right_rps")
    p95_ms: float | None = Field(None, validation_alias=AliasPath("response_ms", "p95"))
    verdict: str

    @property
    def is_kept(self) -> bool:
        return self.verdict.upper().startswith("PASS")


class Card(BaseModel):
    """What `make loadtest-search` found. ``limits``: milliseconds by percentile, such as p95."""

    rate: float = Field(validation_alias="capacity_rps")
    lowest_failing: float | None = Field(None, validation_alias="lowest_failing_rps")
    not_measured: Any = None
    measured_at: str
    env: str
    limits: dict[str, float] = Field(validation_alias=AliasPath("promise", "limits_ms"))
    failed_share: float = Field(validation_alias=AliasPath("promise", "max_failed_share"))
    confidence: float
    weights: dict[str, float] = Field(validation_alias="mix")
    cores: float | None = Field(None, validation_alias=AliasPath("server", "cores"))
    fingerprint: dict[str, Any]
    command: str = ""
    steps: list[Step] = []

    @property
    def failing(self) -> float | None:
        """What could not be measured is not shown as too much."""
        return None if self.not_measured else self.lowest_failing

    @property
    def mix(self) -> dict[str, float]:
        """Who called, as shares of one."""
        total = sum(self.weights.values()) or 1.0
        return {name: weight / total for name, weight in self.weights.items()}
