"""A process of the service on its own: what Apache does for the engine and the jobs' worker, elsewhere.

For ``make dev``, other WSGI servers and tests.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from app import config
from app.config import Settings
from app.errors import CaskError
from app.telemetry import logs

PARENT_PERIOD_SECONDS = 1.0


def main(program: str, description: str, role: str, run: Callable[[Settings], None]) -> int:
    """Run until SIGTERM, with the settings in force. Returns 2 when settings or manifests are wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    arguments = parser.parse_args()
    try:
        settings = config.load()
        logs.configure(settings, role=role)
        handle_signals()
        if arguments.with_parent:
            end_with_parent()
        run(settings)
    except CaskError as error:
        print(" ".join(filter(None, (error.message, error.hint))), file=sys.stderr)
        return 2
    return 0


def handle_signals() -> None:
    """Make SIGTERM raise SystemExit in the main thread. Not under mod_wsgi, which does it and forbids it to others."""
    signal.signal(signal.SIGTERM, _raise_system_exit)


def end_with_parent() -> None:
    """End this process soon after the one that started it, however that one ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_PERIOD_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _raise_system_exit(_number: int, _frame: object) -> None:
    raise SystemExit
