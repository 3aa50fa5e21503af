"""Exit 0 when the server in this container is ready; otherwise 1 and what is missing. Standard library only."""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT_SECONDS = 4


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


def main() -> int:
    """Ask once."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port()}/readyz", timeout=TIMEOUT_SECONDS):
            return 0
    except urllib.error.HTTPError as error:
        body = error.read(4000)
        try:
            print("; ".join(json.loads(body)["missing"]))
        except (ValueError, KeyError, TypeError):
            print(f"/readyz answered {error.code}")
    except OSError as error:
        print(f"nothing answers: {getattr(error, 'reason', error)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
