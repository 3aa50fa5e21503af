"""For tests only, on PYTHONPATH of a service: each of its processes hangs as a file of its number asks.

``$CASK_HANG_DIR/<pid>`` holds ``lock`` (a call in C that keeps Python's lock) or ``loop`` (one thread that loops).
"""

import os
import threading
import time

FOLDER = os.environ.get("CASK_HANG_DIR", "")


def _wait() -> None:
    path = os.path.join(FOLDER, str(os.getpid()))  # noqa: PTH118
    while not os.path.exists(path):  # noqa: PTH110
        time.sleep(0.1)
    with open(path) as file:  # noqa: PTH123
        kind = file.read()
    if kind == "lock":
        import ctypes

        ctypes.PyDLL(None).sleep(600)
    while True:
        pass


if FOLDER:
    threading.Thread(target=_wait, daemon=True).start()
