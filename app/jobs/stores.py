"""Which store of jobs this is: the settings say it, here and nowhere else."""

from __future__ import annotations

from app.config import Settings
from app.jobs.disk_store import DiskStore
from app.jobs.jobs import Limits
from app.jobs.store import JobStore


def of(settings: Settings) -> JobStore:
    """The jobs of this service. Opens nothing yet."""
    limits = Limits.of(settings)
    if not settings.are_jobs_shared:
        return DiskStore(settings.state_dir, limits)
    # Imported here: only few have one.
    from app.jobs.redis_link import Link
    from app.jobs.redis_store import RedisStore

    return RedisStore(settings.state_dir, limits, Link(settings.redis_address, settings.redis_place))
