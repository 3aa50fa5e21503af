"""The jobs' process before there has been a job: signs of life and a look five times a second.

It knows neither settings nor stores, whose libraries are two thirds of what an idle worker would hold.
"""

from __future__ import annotations

import time
from pathlib import Path

from app.jobs.folder import Look
from app.supervision import pulse
from app.telemetry import metrics, shards

LOOK_SECONDS = 0.2


def wait(state_dir: Path) -> bool:
    """Wait until there may be something to do. False: the process is to end.

    Returns at once where another process of this role ran before since the service began: how that one ended is to be
    told, in lines as the settings say.
    """
    if (state_dir / shards.FOLDER / "jobs-0").exists():
        return True
    look = Look(state_dir)
    try:
        metrics.begin(state_dir, "jobs")
        metrics.watch_memory("jobs")
        pulse.start()
        while look.is_empty():
            time.sleep(LOOK_SECONDS)
    except (SystemExit, KeyboardInterrupt):
        # As in ``service.run``.
        pulse.stopping()
        metrics.end()
        return False
    return True
