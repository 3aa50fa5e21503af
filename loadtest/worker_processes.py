"""Workers on this machine for a load test that another machine plans: one process each, begun again for every run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from loadtest.driver import GRACE_SECONDS, LOCUSTFILE, PERIOD_SECONDS, ROOT, go_first
from loadtest.statuses import Status

# With these another attempt would end alike: a person must change something.
FINAL = (Status.USAGE, Status.REFUSED)
AGAIN_SECONDS = 2.0


def keep(master: tuple[str, int], processes: int, scenario: str, confirmed: str) -> Status:
    """Serve one run after another until interrupted, or until a worker may not take part; returns why it ended."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker", "--join", "--loglevel=WARNING"]
    command += [f"--master-host={master[0]}", f"--master-port={master[1]}"]
    command += [f"--scenario={scenario}", f"--confirm={confirmed}"]
    children: list[subprocess.Popen[bytes]] = []
    try:
        while True:
            ended = [child for child in children if child.poll() is not None]
            for child in ended:
                children.remove(child)
                if child.returncode in FINAL:
                    return Status(child.returncode)
            if any(child.returncode for child in ended):
                # It was lost, or came too late; what it says stands above.
                time.sleep(AGAIN_SECONDS)
            while len(children) < processes:
                children.append(_begin(command))
            time.sleep(PERIOD_SECONDS)
    finally:
        _end(children)


def _begin(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=go_first)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
