"""What a shadow would have answered, against what was answered: compared, counted, and the differences written down.

``<STATE_DIR>/shadow/<model>.jsonl`` holds a line for each difference worth a look, in two files of bounded size.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import tasks
from app.engine.worker import Reply
from app.errors import DeadlineExceededError
from app.inference.results import Answer, Box
from app.models import roles
from app.tasks.base import Difference

log = logging.getLogger("cask.engine")

MAX_FILE_BYTES = 1024 * 1024
# With the same best label and the same boxes, a smaller difference of scores is not written down.
RECORDED_DIFFERENCE = 0.05


@dataclass(frozen=True)
class ShadowedAnswer:
    """What a caller was answered, and what is needed to compare. ``answer``: boxes in pixels of the upright image.

    ``scale_x`` and ``scale_y``: pixels of the shadow's input for one pixel of that image; ``left`` and ``top``: where
    that input begins in the image, in its pixels. ``width`` and ``height``: of that image.
    """

    task: str
    model: str
    version: str
    shadow: str
    answer: Answer
    scale_x: float = 1.0
    scale_y: float = 1.0
    left: float = 0.0
    top: float = 0.0
    request_id: str = ""
    width: int = 1
    height: int = 1

    def to_original(self, box: Box) -> Box:
        """A box in pixels of the shadow's input, as pixels of the upright image."""
        x, y, left, top = self.scale_x, self.scale_y, self.left, self.top
        return Box(box.x_min / x + left, box.y_min / y + top, box.x_max / x + left, box.y_max / y + top)


@dataclass(frozen=True)
class ShadowedCall:
    """What a model with code answered, as JSON. ``tolerance``: within which numbers are the same."""

    model: str
    version: str
    shadow: str
    answer: bytes
    tolerance: float
    request_id: str = ""


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

    def note(self, asked: ShadowedAnswer, reply: Reply) -> None:
        """Compare what the shadow replied with what was answered."""
        if reply.error is not None or reply.answer is None:
            self._note_missing(asked, reply)
            return
        task = tasks.BY_NAME[asked.task]
        shadowed = task.placed(reply.answer, asked)
        difference = task.difference(asked.answer, shadowed)
        with self._lock:
            self._count(self._of(asked.model, asked.shadow), difference)
            if not difference.is_same or difference.largest >= RECORDED_DIFFERENCE:
                self._record(asked, shadowed, difference)

    def note_call(self, asked: ShadowedCall, reply: Reply) -> None:
        """Compare two answers of a model with code. One that is not the same is written down with its first place."""
        if not isinstance(reply.answer, bytes):
            self._note_missing(asked, reply)
            return
        from app.model_code import differences

        answered, shadowed = json.loads(asked.answer), json.loads(reply.answer)
        words = differences.difference(answered, shadowed, asked.tolerance)
        found = Difference(not words, differences.largest(answered, shadowed))
        with self._lock:
            self._count(self._of(asked.model, asked.shadow), found)
            if words:
                self._write(asked, {"same": False, "largest_difference": round(found.largest, 5), "difference": words})

    def _note_missing(self, asked: ShadowedAnswer | ShadowedCall, reply: Reply) -> None:
        is_late = isinstance(reply.error, DeadlineExceededError)
        with self._lock:
            counts = self._of(asked.model, asked.shadow)
            counts.dropped += is_late
            counts.failed += not is_late

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

    def _record(self, asked: ShadowedAnswer, shadowed: Answer, difference: Difference) -> None:
        row = {
            "same": difference.is_same,
            "largest_difference": round(difference.largest, 5),
            "matched": difference.matched,
            "only_answered": difference.only_answered,
            "only_shadow": difference.only_shadow,
            "answer": tasks.BY_NAME[asked.task].noted(asked.answer),
            "shadow_answer": tasks.BY_NAME[asked.task].noted(shadowed),
        }
        self._write(asked, row)

    def _write(self, asked: ShadowedAnswer | ShadowedCall, about: dict[str, Any]) -> None:
        row = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock())),
            "request_id": asked.request_id,
            "answered_by": asked.version,
            "shadow": asked.shadow,
            **about,
        }
        try:
            append(roles.record_path(self._state_dir, asked.model), json.dumps(row, separators=(",", ":")))
        except OSError as error:
            log.warning("the difference of a shadow version could not be stored: %s", error)


def append(file: Path, line: str) -> None:
    """Add one line; a full file becomes the older one, and what was older goes. Raises OSError."""
    file.parent.mkdir(exist_ok=True)
    if file.exists() and file.stat().st_size + len(line) + 1 > MAX_FILE_BYTES:
        file.replace(file.with_name(f"{file.name}.1"))
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
