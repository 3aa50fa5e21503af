"""What a job is, as values that cross borders: the job, one image of it, a request for one. A leaf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from app.config import Settings
from app.models.manifests import Task

State = Literal["queued", "running", "succeeded", "failed", "expired"]
OPEN: tuple[State, ...] = ("queued", "running")


@dataclass(frozen=True)
class Webhook:
    """Who is told of a job's end, and how far that is.

    ``state``: waiting for the end, pending (until it was heard), delivered, or failed for good. ``error``: of the last
    try.
    """

    url: str
    state: Literal["waiting", "pending", "delivered", "failed"]
    attempts: int
    error: str


@dataclass(frozen=True)
class Job:
    """One job as it stands. Moments are seconds since 1970; ``failed`` counts among ``done``.

    ``expires_at``: until when its results are kept; None while it is open.
    """

    id: str
    owner: str
    state: State
    task: Task
    params: Mapping[str, Any]
    total: int
    done: int
    failed: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    expires_at: float | None
    webhook: Webhook | None = None

    @property
    def is_open(self) -> bool:
        """Whether some of its images still wait for their results."""
        return self.state in OPEN


@dataclass(frozen=True)
class Wanted:
    """What a caller wants done with the images of a new job.

    ``key`` is the caller's Idempotency-Key, empty for none; ``request_id`` finds the request in the logs;
    ``webhook_url``: who is told of the end, empty for nobody. ``answered_by``: model and version of all images, chosen
    when the job is taken; it does not belong to what the caller said.
    """

    task: Task
    params: Mapping[str, Any]
    owner: str = ""
    key: str = ""
    request_id: str = ""
    webhook_url: str = ""
    answered_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """One image to predict. ``attempt`` is 1 when it was never begun before.

    ``token``: under which its worker holds it, where there may be several workers.
    """

    job_id: str
    number: int
    name: str
    attempt: int
    task: Task
    params: Mapping[str, Any]
    request_id: str
    data: bytes
    token: int = 0


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


def row(job: Job) -> dict[str, Any]:
    """A job in plain JSON types, without results."""
    moments = {name: getattr(job, name) for name in ("created_at", "started_at", "ended_at", "expires_at")}
    return {
        "id": job.id,
        "state": job.state,
        "task": job.task,
        "options": dict(job.params),
        "progress": {"done": job.done, "failed": job.failed, "total": job.total},
        **{name: None if seconds is None else moment(seconds) for name, seconds in moments.items()},
        "webhook": None if job.webhook is None else asdict(job.webhook),
    }


def moment(seconds: float) -> str:
    """``2026-11-21T12:00:00.250Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
