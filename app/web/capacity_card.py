"""The capacity card: how much load this service can take, as the last load test measured it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app.config import Settings

if TYPE_CHECKING:
    from app.web.capacity_fields import Card

FILE_NAME = "capacity.json"
# The repository, where `make loadtest-search` leaves what it found.
ROOT = Path(__file__).resolve().parents[2]
# A card of some hundred steps is a few ten kilobytes.
MOST_BYTES = 4 * 1024 * 1024


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
        # With pydantic, which ops does without where no card is.
        from app.web.capacity_fields import Card

        card = Card.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    card.steps.sort(key=lambda step: step.rate)
    return card
