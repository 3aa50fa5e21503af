"""Send the sample images to a running server and check the answers: ``python docker/smoke.py http://127.0.0.1:8000``.

Standard library only, and nothing of the app: it asks as a caller would. models/samples/index.json says what is truly
on each image. A detection is right when four fifths of the objects were found, with their label and a box that overlaps
by at least half (IoU), and at most a fifth more; a classification is right when the first label is. That tells whether
the model is served as it was trained; how good it is, `make model-check` tells.
Models with other labels than the samples' are only asked to answer. Exit status 0 when all is right.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parent.parent / "models" / "samples"
TIMEOUT_SECONDS = 60
LEAST_OVERLAP = 0.5
FIFTHS = 5
# ssl.VERIFY_X509_PARTIAL_CHAIN, which Python before 3.10 has no name for.
PARTIAL_CHAIN = 0x80000
LINE = "  {:<20} {:<9} {:<24} {:>5} {:>6}  {}"

Row = dict[str, Any]


class SmokeError(Exception):
    """The server did not answer, or not as it should."""


def main(base: str) -> int:
    """Try every sample, print a line each. Returns 1 when one is wrong, or when there was nothing to try."""
    rows = json.loads((SAMPLES / "index.json").read_text())
    print(LINE.format("SAMPLE", "TASK", "MODEL", "RIGHT", "MS", "ANSWER"))
    try:
        models = ask(f"{base}/v1/models")["models"]
        verdicts = [try_one(base, row, model) for row in rows if (model := choose(models, row))]
    except SmokeError as error:
        print(f"FAIL: {error}", file=sys.stderr)
        return 1
    print(f"  {sum(verdicts)} of {len(verdicts)} samples right at {base}")
    return 0 if verdicts and all(verdicts) else 1


def choose(models: list[Row], row: Row) -> Row | None:
    """The model to try a sample with: of its task, and best one that knows its labels. None where there is none."""
    able = [model for model in models if model["task"] == row["task"]]
    return next((model for model in able if labels(row) <= set(model["labels"])), able[0] if able else None)


def labels(row: Row) -> set[str]:
    """What is on a sample."""
    return {row["label"]} if "label" in row else {each["label"] for each in row["objects"]}


def try_one(base: str, row: Row, model: Row) -> bool:
    """Send one sample and judge; True when the answer is right."""
    url = f"{base}/v1/{row['task']}?{urllib.parse.urlencode({'model': model['name'], 'version': model['version']})}"
    image = (SAMPLES / row["file"]).read_bytes()
    began = time.monotonic()
    result = ask(url, image)["results"][0]
    milliseconds = (time.monotonic() - began) * 1000
    if not labels(row) <= set(model["labels"]):
        is_right, words = True, "answered; it has other labels than the sample"
    else:
        is_right, words = (judge_detections if row["task"] == "detect" else judge_label)(row, result)
    verdict = "yes" if is_right else "NO"
    print(LINE.format(row["file"], row["task"], model["name"][:24], verdict, f"{milliseconds:.0f}", words))
    return is_right


def judge_detections(row: Row, result: Row) -> tuple[bool, str]:
    """Whether enough of the objects were found and little else, and a summary in words."""
    objects, found = row["objects"], result["detections"]
    hits = [each for each in match(objects, found) if each >= LEAST_OVERLAP]
    extra = len(found) - len(hits)
    is_right = FIFTHS * len(hits) >= (FIFTHS - 1) * len(objects) and FIFTHS * extra <= len(objects)
    words = f"{len(hits)} of {len(objects)} objects, IoU {min(hits, default=0):.2f} and up, {extra} more boxes"
    return is_right, words


def judge_label(row: Row, result: Row) -> tuple[bool, str]:
    """Whether the first label is the right one, and a summary in words."""
    first = result["predictions"][0]
    return first["label"] == row["label"], f"{first['label']} {first['score']:.2f}"


def ask(url: str, image: bytes | None = None) -> Row:
    """The JSON answer. Raises SmokeError with what the server said instead."""
    headers = {"Accept": "application/json"} | ({"Content-Type": "image/jpeg"} if image else {})
    if host := os.environ.get("SMOKE_HOST"):
        headers["Host"] = host
    if token := os.environ.get("SMOKE_TOKEN"):
        headers["X-Api-Token"] = token
    try:
        request = urllib.request.Request(url, image, headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=trust()) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise SmokeError(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise SmokeError(f"{url}: {getattr(error, 'reason', error)}. Next: make up, or make serve.") from error


def trust() -> ssl.SSLContext | None:
    """The trusted certificate: SMOKE_CA_FILE's authority, or SMOKE_CERTIFICATE, the server's own."""
    own, authority = os.environ.get("SMOKE_CERTIFICATE"), os.environ.get("SMOKE_CA_FILE")
    try:
        if own:
            context = ssl.create_default_context(cafile=own)
            # Nobody else needs to vouch for it.
            context.verify_flags = ssl.VERIFY_DEFAULT | ssl.VERIFY_X509_TRUSTED_FIRST | PARTIAL_CHAIN
            context.check_hostname = False
            return context
        return ssl.create_default_context(cafile=authority) if authority else None
    except OSError as error:
        raise SmokeError(f"{own or authority} cannot be used as a certificate: {error}") from error


def match(objects: list[Row], found: list[Row]) -> list[float]:
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
