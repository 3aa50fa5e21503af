"""The capacity card: how much load this service can take, as the last load test measured it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import AliasPath, BaseModel, Field

from app.config import Settings

FILE_NAME = "capacity.json"
# The repository, where `make loadtest-search` leaves what it found.
ROOT = Path(__file__).resolve().parents[2]
# A card of some hundred steps is a few ten kilobytes.
MOST_BYTES = 4 * 1024 * 1024


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


def of(settings: Settings) -> Card | None:
    """The card of this service; None where none was measured."""
    return find((settings.state_dir / FILE_NAME, ROOT / "loadtest" / "results" / f"{settings.env}-{FILE_NAME}"))


def find(paths: tuple[Path, ...]) -> Card | None:
    """The card of the first of these files that holds one."""
    return next((card for card in map(read, paths) if card is not None), None)


def read(path: Path) -> Card | None:
    """The card in this file; None where there is none, or something else."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        card = Card.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    card.steps.sort(key=lambda step: step.rate)
    return card
