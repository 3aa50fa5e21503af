"""Say the address when a prediction has succeeded, or why none does. Runs beside Apache while it starts, then ends."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app import config  # noqa: E402 - the line above makes it importable
from app.config import Settings  # noqa: E402

PATIENCE_SECONDS = 120.0
PERIOD_SECONDS = 0.2
SAMPLES = ROOT / "models" / "samples"


def main() -> int:
    """Wait for ready, predict one image, print the address. Returns 1 when it never gets there."""
    settings = config.load()
    base = f"http://{_reachable(settings.listen_host)}:{settings.port}"
    started = time.monotonic()
    apache = os.getppid()
    said = ""
    while time.monotonic() - started < PATIENCE_SECONDS:
        if os.getppid() != apache:
            return 1
        missing = _missing(base)
        if not missing:
            _say(settings, base, time.monotonic() - started)
            return 0
        if missing != said and time.monotonic() - started > 2:
            print(f"  … {missing}", file=sys.stderr, flush=True)
            said = missing
        time.sleep(PERIOD_SECONDS)
    print(
        f"FAIL: not ready after {PATIENCE_SECONDS:.0f} s: {said}. See docs/operations.md.", file=sys.stderr, flush=True
    )
    return 1


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _missing(base: str) -> str:
    """What is missing, in words; empty when everything is there."""
    try:
        with urllib.request.urlopen(f"{base}/readyz", timeout=3):
            return ""
    except urllib.error.HTTPError as error:
        try:
            return "; ".join(json.load(error)["missing"])
        except (ValueError, KeyError):
            return f"/readyz answers {error.code}"
    except OSError as error:
        return f"Apache does not answer yet ({getattr(error, 'reason', error)})"


def _say(settings: Settings, base: str, seconds: float) -> None:
    public = f"https://{settings.server_name}:{settings.https_port}" if settings.tls_enabled else base
    print(f"\n  Cask answers at {public}  ({settings.env}, {_prediction(base)}, {seconds:.1f} s after the start)")
    print("  Try an image there in a browser. Stop with Ctrl-C or `make stop`.\n", flush=True)


def _prediction(base: str) -> str:
    """Send a sample and say what was found."""
    sample = next(iter(sorted(SAMPLES.glob("*.jpg"))), None)
    if sample is None:
        return "no sample image to try"
    with urllib.request.urlopen(f"{base}/v1/models", timeout=10) as answer:
        task = json.load(answer)["models"][0]["task"]
    request = urllib.request.Request(
        f"{base}/v1/{task}", sample.read_bytes(), {"Content-Type": "image/jpeg", "Host": "localhost"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        document = json.load(answer)
    rows = document["results"][0]
    found = rows.get("detections") or rows.get("predictions") or []
    return f"{document['model']['name']} found {len(found)} in {sample.name}"


if __name__ == "__main__":
    sys.exit(main())
