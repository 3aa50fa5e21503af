"""Exit 0 when the server in this container is ready; otherwise 1 and what is missing. Standard library only.

With a number of seconds it looks again for so long: one start of Python for all looks.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT_SECONDS = 4
PERIOD_SECONDS = 0.1
# Made by docker/stand-by.sh: another release serves, and this one waits to take over.
STANDS_BY = Path("/tmp/stands-by")  # noqa: S108 - of the container alone


def port() -> str:
    """PORT of this start: the environment, env/local.env, env/<ENV>.env, as app/config/sources.py reads them.

    NOTE: not by importing app.config: Docker runs this every few seconds for years, and it should cost next to nothing.
    """
    if value := os.environ.get("PORT"):
        return value
    root = Path(__file__).resolve().parent.parent
    env = {"development": "dev", "production": "prod"}.get(name := os.environ.get("ENV", "dev"), name)
    for file in (root / "env/local.env", root / f"env/{env}.env"):
        lines = file.read_text("utf-8-sig").splitlines() if file.is_file() else []
        if values := [line.removeprefix("PORT=") for line in lines if line.startswith("PORT=")]:
            return values[-1]
    return "8000"


def missing() -> str:
    """What /readyz says that is missing; empty when the server is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port()}/readyz", timeout=TIMEOUT_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        body = error.read(4000)
        try:
            return "; ".join(json.loads(body)["missing"]) or "not ready"
        except (ValueError, KeyError, TypeError):
            return f"/readyz answered {error.code}"
    except OSError as error:
        return f"nothing answers: {getattr(error, 'reason', error)}"


def main(seconds: float = 0.0) -> int:
    """Ask until it is ready, for so many seconds; once without any, and then standing by is well too."""
    if not seconds and STANDS_BY.exists():
        return 0
    end = time.monotonic() + seconds
    while found := missing():
        if time.monotonic() >= end:
            print(found)
            return 1
        time.sleep(PERIOD_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
