"""Say the address when a prediction has succeeded, or why none does. Runs beside Apache while it starts, then ends."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app import config, tasks  # noqa: E402 - the line above makes it importable
from app.auth import stores  # noqa: E402
from app.config import Settings  # noqa: E402
from app.errors import CaskError  # noqa: E402
from app.telemetry import logs  # noqa: E402

PATIENCE_SECONDS = 120.0
PERIOD_SECONDS = 0.2
TOKEN_SECONDS = 60.0
SAMPLES = ROOT / "models" / "samples"


def main() -> int:
    """Wait for ready, predict one image, print the address. Returns 1 when it never gets there."""
    settings = config.load()
    base = f"http://{_reachable(settings.listen_host)}:{settings.port}"
    started = time.monotonic()
    apache = os.getppid()
    said, missing, models = "", "", "none"
    while time.monotonic() - started < PATIENCE_SECONDS:
        if os.getppid() != apache:
            return 1
        missing, models = _missing(base)
        if not missing or models == "some, for good":
            _say(settings, base, time.monotonic() - started, missing)
            return 0
        if missing != said and time.monotonic() - started > 2:
            print(f"  … {missing}", file=sys.stderr, flush=True)
            said = missing
        time.sleep(PERIOD_SECONDS)
    if models.startswith("some"):
        _say(settings, base, time.monotonic() - started, missing)
        return 0
    print(
        f"FAIL: not ready after {PATIENCE_SECONDS:.0f} s: {said}. See docs/operations.md.", file=sys.stderr, flush=True
    )
    return 1


def _reachable(host: str) -> str:
    return config.in_url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))  # noqa: S104 - compared, not bound


def _missing(base: str) -> tuple[str, str]:
    """What is missing, in words, empty when everything is there; and whether ``some`` models answer without it."""
    try:
        with urllib.request.urlopen(f"{base}/readyz", timeout=3):
            return "", "all"
    except urllib.error.HTTPError as error:
        try:
            report = json.load(error)
            return "; ".join(report["missing"]), _models(report)
        except (ValueError, KeyError, TypeError):
            return f"/readyz answers {error.code}", "none"
    except OSError as error:
        return f"Apache does not answer yet ({getattr(error, 'reason', error)})", "none"


def _models(report: dict[str, Any]) -> str:
    """``some`` where nothing but models is missing and another one answers, ``for good`` where none of them loads."""
    engine: dict[str, Any] = next((row for row in report["processes"] if row["role"] == "engine"), {})
    is_some = any(model["warm"] for model in engine.get("models", ()))
    if not is_some or not all(line.startswith("model ") for line in report["missing"]):
        return "none"
    is_open = any(line.endswith((": loading", "; restart it")) for line in report["missing"])
    return "some" if is_open else "some, for good"


def _say(settings: Settings, base: str, seconds: float, missing: str) -> None:
    found = _prediction(settings, base)
    if missing:
        print(f"  WARN: not all models are served: {missing}", file=sys.stderr, flush=True)
    public = f"https://{config.in_url(settings.server_name)}:{settings.https_port}" if settings.tls_enabled else base
    if settings.log_format == "json":
        logs.configure(settings, role="start")
        logging.getLogger("cask.start").info("answers at %s after %.1f s: %s", public, seconds, found)
        return
    print(f"\n  Cask answers at {public}  ({settings.env}, {found}, {seconds:.1f} s after the start)")
    print("  Try an image there in a browser. Stop with Ctrl-C or `make stop`.\n", flush=True)
    if settings.authentication == "required" and not _has_anybody_a_token(settings):
        print("  Nobody has a token yet, so nobody is let in. Make one: flask token create NAME\n", flush=True)


def _has_anybody_a_token(settings: Settings) -> bool:
    """Taken for true while their store does not answer."""
    try:
        return stores.store(settings).is_any_valid()
    except CaskError:
        return True


def _prediction(settings: Settings, base: str) -> str:
    """Send a sample and say what was found."""
    if settings.tls_enabled:
        return "ready; no prediction tried, because that would need trust in the certificate"
    try:
        with _token(settings) as token:
            return _try(settings, base, token)
    except CaskError as error:
        return f"ready; no prediction tried: {error.message}"
    except OSError as error:
        return f"ready, but a first prediction failed: {error}"


@contextmanager
def _token(settings: Settings) -> Iterator[str]:
    """A token for this one prediction; empty where none is needed."""
    if settings.authentication == "off":
        yield ""
        return
    store = stores.store(settings)
    token, text = store.create("start", lifetime_seconds=TOKEN_SECONDS, is_internal=True)
    try:
        yield text
    finally:
        store.discard(token)


def _try(settings: Settings, base: str, token: str) -> str:
    """Send a sample and say what was found. Raises OSError where there is no answer."""
    served = {model["task"] for model in _ask(settings, f"{base}/v1/models", token)["models"]}
    tried = [task for task in tasks.ALL if task.name in served]
    if not tried:
        return "ready"
    task, sample = next(((task, sample) for task in tried if (sample := _sample(task.name))), (None, None))
    if task is None or sample is None:
        return "ready; no sample image to try"
    answer = _ask(settings, f"{base}/v1/{task.name}", token, sample.read_bytes())
    found = task.scored(answer["results"][0])
    what = f"«{found[0]['label']}»" if found and not task.has_boxes else f"{len(found)} objects"
    return f"{answer['model']['name']} found {what} in {sample.name}"


def _ask(settings: Settings, url: str, token: str, image: bytes | None = None) -> Any:
    """The JSON of an answer. Raises OSError where there is none."""
    headers = {"Host": config.in_url(settings.server_name), **({"Content-Type": "image/jpeg"} if image else {})}
    headers |= {"X-Api-Token": token} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, image, headers), timeout=30) as answer:
        return json.load(answer)


def _sample(task: str) -> Path | None:
    """A sample image that shows what the task does; None where the store brings none."""
    try:
        rows = json.loads((SAMPLES / "index.json").read_text())
    except (OSError, ValueError):
        return None
    return next((SAMPLES / row["file"] for row in rows if row["task"] == task), None)


if __name__ == "__main__":
    sys.exit(main())
