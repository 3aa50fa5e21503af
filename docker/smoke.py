"""Send the sample images to a running server and check the answers: ``python docker/smoke.py http://127.0.0.1:8000``.

Standard library only, and nothing of the app: it asks as a caller would. models/samples/index.json says what is truly
on each image. A detection is right when every object was found, with its label and a box that overlaps by at least
half (IoU); a classification is right when the first label is. Exit status 0 when all are.
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
LINE = "  {:<20} {:<10} {:>6} {:>6}  {}"


class SmokeError(Exception):
    """The server did not answer, or not as it should."""


def main(base: str) -> int:
    """Try every sample, print a line each. Returns 1 when one is wrong."""
    rows = json.loads((SAMPLES / "index.json").read_text())
    print(LINE.format("SAMPLE", "TASK", "RIGHT", "MS", "ANSWER"))
    wrong = 0
    for row in rows:
        try:
            wrong += not try_one(base, row)
        except SmokeError as error:
            print(f"FAIL: {row['file']}: {error}", file=sys.stderr)
            return 1
    print(f"  {len(rows) - wrong} of {len(rows)} samples right at {base}")
    return 1 if wrong or not rows else 0


def try_one(base: str, row: dict[str, Any]) -> bool:
    """Send one sample and compare; True when the answer is right."""
    image = (SAMPLES / row["file"]).read_bytes()
    began = time.monotonic()
    result = post(f"{base}/v1/{row['task']}", image)["results"][0]
    milliseconds = (time.monotonic() - began) * 1000
    is_right, words = (judge_detections if row["task"] == "detect" else judge_label)(row, result)
    print(LINE.format(row["file"], row["task"], "yes" if is_right else "NO", f"{milliseconds:.0f}", words))
    return is_right


def judge_detections(row: dict[str, Any], result: dict[str, Any]) -> tuple[bool, str]:
    """Whether every object was found, and a summary in words."""
    overlaps = match(row["objects"], result["detections"])
    hits = sum(each >= LEAST_OVERLAP for each in overlaps)
    extra = len(result["detections"]) - hits
    words = f"{hits} of {len(overlaps)} objects, least IoU {min(overlaps, default=1):.2f}"
    return hits == len(overlaps), words + (f", {extra} more boxes" if extra else "")


def judge_label(row: dict[str, Any], result: dict[str, Any]) -> tuple[bool, str]:
    """Whether the first label is the right one, and a summary in words."""
    first = result["predictions"][0]
    return first["label"] == row["label"], f"{first['label']} {first['score']:.2f}"


def post(url: str, image: bytes) -> dict[str, Any]:
    """The JSON answer. Raises SmokeError with what the server said instead."""
    headers = {"Content-Type": "image/jpeg", "Accept": "application/json"}
    if host := os.environ.get("SMOKE_HOST"):
        headers["Host"] = host
    try:
        with urllib.request.urlopen(urllib.request.Request(url, image, headers), timeout=TIMEOUT_SECONDS) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise SmokeError(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise SmokeError(f"{url}: {getattr(error, 'reason', error)}. Next: make up, or make serve.") from error


def match(objects: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[float]:
    """For each object the overlap with the best box of its label that is still free; 0 where there is none."""
    free, overlaps = list(found), []
    for each in objects:
        rivals = [row for row in free if row["label"] == each["label"]]
        best = max(rivals, key=lambda row: overlap(each["box"], row["box"]), default=None)
        overlaps.append(overlap(each["box"], best["box"]) if best else 0.0)
        if best and overlaps[-1] >= LEAST_OVERLAP:
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
    sys.exit(main((sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000").rstrip("/")))
