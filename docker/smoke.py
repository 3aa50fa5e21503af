"""Send the sample images to a running server and check what it finds: ``python docker/smoke.py http://127.0.0.1:8000``.

Standard library only, and nothing of the app: it asks as a caller would. Exit status 0 when every labelled object of
models/samples/index.json was found with its label and a box that overlaps by at least half (IoU >= 0.5).
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parent.parent / "models" / "samples"
TIMEOUT_SECONDS = 60
LEAST_OVERLAP = 0.5
SIDES = ("x_min", "y_min", "x_max", "y_max")
TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


class SmokeError(Exception):
    """The server did not answer, or not as it should."""


def main(base: str) -> int:
    """Try every sample that has labelled objects, print one line each. Returns 1 when one is wrong."""
    rows = [row for row in json.loads((SAMPLES / "index.json").read_text()) if "objects" in row]
    if not rows:
        print("FAIL: needs a sample with objects in models/samples/index.json, found none.", file=sys.stderr)
        return 2
    print(f"  {'SAMPLE':<28} {'FOUND':>7} {'EXTRA':>6} {'LEAST IoU':>10} {'ms':>7}")
    wrong = 0
    for row in rows:
        try:
            wrong += not try_one(base, row)
        except SmokeError as error:
            print(f"FAIL: {row['file']}: {error}", file=sys.stderr)
            return 1
    print(f"  {len(rows) - wrong} of {len(rows)} right at {base}")
    return 1 if wrong else 0


def try_one(base: str, row: dict[str, Any]) -> bool:
    """Send one sample and compare; True when every object was found."""
    path = SAMPLES / row["file"]
    began = time.monotonic()
    answer = post(f"{base}/v1/detect", path.read_bytes(), TYPES[path.suffix])
    milliseconds = (time.monotonic() - began) * 1000
    found = answer["results"][0]["detections"]
    overlaps = match(row["objects"], found)
    hits = sum(overlap >= LEAST_OVERLAP for overlap in overlaps)
    is_right = hits == len(overlaps)
    print(
        f"  {row['file']:<28} {f'{hits}/{len(overlaps)}':>7} {len(found) - hits:>6}"
        f" {min(overlaps, default=1):>10.2f} {milliseconds:>7.0f}{'' if is_right else '  WRONG'}"
    )
    return is_right


def post(url: str, body: bytes, content_type: str) -> dict[str, Any]:
    """The JSON answer. Raises SmokeError with what the server said instead."""
    headers = {"Content-Type": content_type, "Accept": "application/json"}
    if host := os.environ.get("SMOKE_HOST"):
        headers["Host"] = host
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SmokeError(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise SmokeError(
            f"{url}: {getattr(error, 'reason', error)}. Is the server up? make up, or make serve"
        ) from error


def match(objects: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[float]:
    """For each object the overlap with the best box of its label that is still free; 0 where there is none."""
    free, overlaps = list(found), []
    for each in objects:
        rivals = [row for row in free if row["label"] == each["label"]]
        best = max(rivals, key=lambda row: overlap(each["box"], row["box"]), default=None)
        overlaps.append(overlap(each["box"], best["box"]) if best else 0.0)
        if best:
            free.remove(best)
    return overlaps


def overlap(one: dict[str, float], two: dict[str, float]) -> float:
    """Intersection over union."""
    width = min(one["x_max"], two["x_max"]) - max(one["x_min"], two["x_min"])
    height = min(one["y_max"], two["y_max"]) - max(one["y_min"], two["y_min"])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (area(one) + area(two) - width * height)


def area(box: dict[str, float]) -> float:
    """Square pixels."""
    return (box["x_max"] - box["x_min"]) * (box["y_max"] - box["y_min"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
