"""`make reload`: web processes one by one, ops and jobs read the settings anew, and no request is lost.

Engine, models and Apache's own part (ports, certificates, limits) stay as they are: those need a stop and a start.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app import config  # noqa: E402 - the line above makes it importable
from app.errors import CaskError  # noqa: E402
from app.telemetry import shares  # noqa: E402

PERIOD_SECONDS = 0.1
# A new one is there within seconds; on a machine without a free core it takes longer.
START_SECONDS = 60.0


def main() -> int:
    """Returns 2 and one line when nothing runs, the settings are wrong, or a process does not come back."""
    try:
        settings = config.load()
    except CaskError as error:
        print(f"FAIL: {error.message} {error.hint} Nothing was touched.".replace("  ", " "), file=sys.stderr)
        return 2
    # What is in hand is finished first.
    patience = settings.server_shutdown_seconds + START_SECONDS
    # The jobs' worker reads them when it ends; what it has in hand is predicted, the rest waits.
    for role, number in (("web", signal.SIGUSR1), ("ops", signal.SIGUSR1), ("jobs", signal.SIGTERM)):
        old = _pids(settings.state_dir, role)
        if role == "web" and not old:
            print(f"FAIL: nothing runs with {settings.state_dir}.", file=sys.stderr)
            return 2
        for pid in old:
            if not _replaced(settings.state_dir, role, pid, number, patience):
                print(f"FAIL: nobody has taken the place of {role} {pid}; see the error log.", file=sys.stderr)
                return 2
            print(f"{role} {pid} was replaced.")
    return 0


def _pids(state_dir: Path, role: str) -> list[int]:
    """Living processes of a role that have begun to serve."""
    return [sign.pid for sign in shares.signs(state_dir) if sign.role == role and sign.beat]


def _replaced(state_dir: Path, role: str, pid: int, number: int, patience: float) -> bool:
    """Ask one to finish and go; wait until another one is there in its place."""
    count = len(_pids(state_dir, role))
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    end = time.monotonic() + patience
    while time.monotonic() < end:
        now = _pids(state_dir, role)
        if pid not in now and len(now) >= count:
            return True
        time.sleep(PERIOD_SECONDS)
    return False


if __name__ == "__main__":
    sys.exit(main())
