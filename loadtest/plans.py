"""What one run is to do, written down before it begins: run.json, which the workers read and which repeats the run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.storage import json_files
from loadtest import replay
from loadtest.mixes import describe
from loadtest.profiles import Profile, Slo
from loadtest.schedule import Stage, arrivals, highest_rate

FILE_NAME = "run.json"
LOOPBACK = "127.0.0.1"
# People start workers by hand, one machine after another.
JOIN_SECONDS = 60.0
SLOTS_MOST = 2000
SLOTS_LEAST = 64


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is sent, and what the verdict is measured by."""

    folder: Path
    url: str
    env: str
    profile: Profile
    slo: Slo
    mix: dict[str, float]
    seed: int
    workers: int
    slots: int  # requests under way at once, of each worker
    timeout_seconds: float
    repeat_share: float
    fingerprint: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    sources: dict[str, str] = field(default_factory=dict)  # scenario → the file it is in, for those that are not ours
    replay: str = ""  # an access log whose arrivals are sent again, in words; replay.json has them
    is_cask: bool = True  # the target tells of itself, as this service does
    join_port: int = 0  # workers come from elsewhere and join at this port; 0: they are started here
    join_host: str = LOOPBACK

    @property
    def callers(self) -> str:
        """Who calls, as people read it."""
        replay = f"; replayed: {self.replay}" if self.replay else ""
        return f"{describe(self.mix)}{replay}"

    def write(self) -> None:
        """Leave run.json in the run's folder."""
        table = dataclasses.asdict(self)
        table.pop("folder")
        table["slo"]["limits_ms"] = {str(share): limit for share, limit in self.slo.limits_ms.items()}
        # Whole or not at all: workers elsewhere wait for it.
        json_files.replace(self.folder / FILE_NAME, table, indent=1)


def moments(plan: Plan) -> np.ndarray:
    """When each request is meant to start, in seconds from the beginning."""
    found = replay.read(plan.folder)
    return np.array(found.moments) if found else arrivals(plan.profile.stages, plan.profile.arrivals, plan.seed)


def read(folder: Path) -> Plan:
    """The plan in a run's folder. Raises OSError or ValueError where there is none."""
    table = json.loads((folder / FILE_NAME).read_text())
    profile = table.pop("profile")
    stages = tuple(Stage(**stage) for stage in profile.pop("stages"))
    claims = tuple(profile.pop("claims"))
    # Called so by 0.1.0, whose runs are still compared and shown.
    slo = table.pop("slo", None) or table.pop("promise")
    limits = {float(share): limit for share, limit in slo.pop("limits_ms").items()}
    return Plan(
        folder=folder,
        profile=Profile(stages=stages, claims=claims, **profile),
        slo=Slo(limits_ms=limits, **slo),
        **table,
    )


def slots_for(profile: Profile, timeout_seconds: float, workers: int) -> int:
    """As many as can be under way at once before patience ends (Little's law), within what one process can hold."""
    if profile.model == "closed":
        return max(stage.callers for stage in profile.stages)
    under_way = highest_rate(profile.stages) * timeout_seconds / workers
    return int(min(SLOTS_MOST, max(SLOTS_LEAST, under_way)))
