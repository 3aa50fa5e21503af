"""What a job is, as values that cross borders: the job, one image of it, a wish for one. A leaf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.config import Settings
from app.manifests import Task

State = Literal["queued", "running", "succeeded", "failed", "expired"]
OPEN: tuple[State, ...] = ("queued", "running")


@dataclass(frozen=True)
class Job:
    """One job as it stands. Moments are seconds since 1970; ``failed`` counts among ``done``.

    ``expires_at``: until when its results are kept; None while it is open.
    """

    id: str
    owner: str
    state: State
    task: Task
    wishes: Mapping[str, Any]
    total: int
    done: int
    failed: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    expires_at: float | None

    @property
    def is_open(self) -> bool:
        """Whether some of its images still wait for their results."""
        return self.state in OPEN


@dataclass(frozen=True)
class Wanted:
    """What a caller wants done with the images of a new job.

    ``key`` is the caller's Idempotency-Key, empty for none; ``request_id`` finds the request in the logs.
    """

    task: Task
    wishes: Mapping[str, Any]
    owner: str = ""
    key: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class Claim:
    """One image to predict. ``attempt`` is 1 when it was never begun before."""

    job_id: str
    number: int
    name: str
    attempt: int
    task: Task
    wishes: Mapping[str, Any]
    request_id: str
    data: bytes


@dataclass(frozen=True)
class Limits:
    """How much is taken, and for how long it is kept."""

    max_images: int
    max_bytes: int
    max_image_bytes: int
    max_queued: int
    max_disk_bytes: int
    keep_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that the settings name."""
        return cls(
            settings.jobs_max_images,
            settings.jobs_max_bytes,
            settings.images_max_bytes,
            settings.jobs_max_queued,
            settings.jobs_max_disk_bytes,
            settings.jobs_keep_seconds,
        )
