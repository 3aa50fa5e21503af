"""What a shadow would have answered, against what was answered: compared, counted, and the differences written down.

``<STATE_DIR>/shadow/<model>.jsonl`` holds a line for each difference worth a look, in two files of bounded size.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app import roles
from app.engine.worker import Reply
from app.errors import DeadlineExceededError
from app.results import Answer, Box, Detection, Prediction, to_dict

log = logging.getLogger("cask.engine")

MAX_FILE_BYTES = 1024 * 1024
MATCHING_IOU = 0.5
# With the same best label and the same boxes, a smaller difference of scores is not written down.
RECORDED_DIFFERENCE = 0.05
# So many rows of each side stand in one line of the record.
MAX_ROWS = 5


@dataclass(frozen=True)
class Asked:
    """What a caller was answered, and what is needed to compare. ``answer``: boxes in pixels of the upright image.

    ``scale_x`` and ``scale_y``: pixels of the shadow's input for one pixel of that image; ``left`` and ``top``: where
    that input begins in the image, in its pixels.
    """

    model: str
    version: str
    shadow: str
    answer: Answer
    scale_x: float = 1.0
    scale_y: float = 1.0
    left: float = 0.0
    top: float = 0.0
    request_id: str = ""


@dataclass(frozen=True)
class Difference:
    """``is_same``: the same best label, or the same boxes by label and place. ``largest``: of any score that both gave.

    Detectors: ``matched`` boxes, and how many each side found alone.
    """

    is_same: bool
    largest: float
    matched: int = 0
    only_answered: int = 0
    only_shadow: int = 0


@dataclass
class _Counts:
    since: float
    compared: int = 0
    same: int = 0
    dropped: int = 0
    failed: int = 0
    largest_difference: float = 0.0
    differences_sum: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        compared = max(1, self.compared)
        return {
            "since": round(self.since, 3),
            "compared": self.compared,
            "same": self.same,
            "same_share": round(100 * self.same / compared, 2),
            "dropped": self.dropped,
            "failed": self.failed,
            "largest_difference": round(self.largest_difference, 5),
            "mean_difference": round(self.differences_sum / compared, 5),
        }


class Shadows:
    """Counts by model and shadow version, since this engine started. Thread-safe."""

    def __init__(self, state_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], _Counts] = {}

    def drop(self, model: str, version: str, count: int = 1) -> None:
        """So many were not asked, because callers came first."""
        with self._lock:
            self._of(model, version).dropped += count

    def note(self, asked: Asked, reply: Reply) -> None:
        """Compare what the shadow replied with what was answered."""
        if reply.error is not None or reply.answer is None:
            is_late = isinstance(reply.error, DeadlineExceededError)
            with self._lock:
                counts = self._of(asked.model, asked.shadow)
                counts.dropped += is_late
                counts.failed += not is_late
            return
        shadowed = _to_original(reply.answer, asked)
        difference = compare(asked.answer, shadowed)
        with self._lock:
            self._count(self._of(asked.model, asked.shadow), difference)
            if not difference.is_same or difference.largest >= RECORDED_DIFFERENCE:
                self._record(asked, shadowed, difference)

    def status(self) -> dict[str, Any]:
        """Counts by model, for the status frame."""
        with self._lock:
            rows = [(name, {"version": version, **each.to_dict()}) for (name, version), each in self._counts.items()]
        return {"shadows": dict(rows)}

    def _of(self, model: str, version: str) -> _Counts:
        return self._counts.setdefault((model, version), _Counts(self._clock()))

    def _count(self, counts: _Counts, difference: Difference) -> None:
        counts.compared += 1
        counts.same += difference.is_same
        counts.differences_sum += difference.largest
        counts.largest_difference = max(counts.largest_difference, difference.largest)

    def _record(self, asked: Asked, shadowed: Answer, difference: Difference) -> None:
        row = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock())),
            "request_id": asked.request_id,
            "answered_by": asked.version,
            "shadow": asked.shadow,
            "same": difference.is_same,
            "largest_difference": round(difference.largest, 5),
            "matched": difference.matched,
            "only_answered": difference.only_answered,
            "only_shadow": difference.only_shadow,
            "answer": [_row(each) for each in _rows(asked.answer)],
            "shadow_answer": [_row(each) for each in _rows(shadowed)],
        }
        try:
            append(roles.record_path(self._state_dir, asked.model), json.dumps(row, separators=(",", ":")))
        except OSError as error:
            log.warning("a shadow's difference could not be written down: %s", error)


def _rows(answer: Answer) -> list[Prediction | Detection]:
    return [row for row in answer[:MAX_ROWS] if isinstance(row, Prediction | Detection)]


def append(file: Path, line: str) -> None:
    """Add one line; a full file becomes the older one, and what was older goes. Raises OSError."""
    file.parent.mkdir(exist_ok=True)
    if file.exists() and file.stat().st_size + len(line) + 1 > MAX_FILE_BYTES:
        file.replace(file.with_name(f"{file.name}.1"))
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")


def compare(answered: Answer, shadowed: Answer) -> Difference:
    """How far two answers to one image are apart."""
    detections = [[row for row in answer if isinstance(row, Detection)] for answer in (answered, shadowed)]
    if any(detections):
        return _compare_boxes(*detections)
    return _compare_labels(*([row for row in answer if isinstance(row, Prediction)] for answer in (answered, shadowed)))


def _compare_labels(answered: Sequence[Prediction], shadowed: Sequence[Prediction]) -> Difference:
    first, second = ({row.label: row.score for row in rows} for rows in (answered, shadowed))
    # A label that one side does not name lies below the last one it names; only what both name can be compared.
    differences = [abs(first[label] - second[label]) for label in first.keys() & second.keys()]
    best = [rows[0].label if rows else "" for rows in (answered, shadowed)]
    return Difference(best[0] == best[1], max(differences, default=0.0))


def _compare_boxes(answered: Sequence[Detection], shadowed: Sequence[Detection]) -> Difference:
    free, pairs = list(shadowed), []
    for one in answered:
        overlaps = [(one.box.iou(each.box), at) for at, each in enumerate(free) if each.label == one.label]
        overlap, at = max(overlaps, default=(0.0, 0))
        if overlap >= MATCHING_IOU:
            pairs.append((one, free.pop(at)))
    alone = len(answered) - len(pairs)
    largest = max((abs(first.score - second.score) for first, second in pairs), default=0.0)
    return Difference(not alone and not free, largest, len(pairs), alone, len(free))


def _row(row: Prediction | Detection) -> dict[str, Any]:
    return {**to_dict(row), "score": round(row.score, 5)}


def _to_original(answer: Answer, asked: Asked) -> Answer:
    return [  # type: ignore[return-value]
        replace(row, box=_placed(row.box, asked)) if isinstance(row, Detection) else row for row in answer
    ]


def _placed(box: Box, asked: Asked) -> Box:
    x, y, left, top = asked.scale_x, asked.scale_y, asked.left, asked.top
    return Box(box.x_min / x + left, box.y_min / y + top, box.x_max / x + left, box.y_max / y + top)
