"""What another service answered, read with suspicion: it may be any program, and none of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import tasks
from app.errors import CaskError
from app.inference.results import MAX_RESULTS, Answer
from app.models.manifests import Task
from app.tasks.base import check_number
from app.texts import Text

# A row has some 150 bytes; a name may be longer. Whatever is more is no answer to what was asked.
BYTES_A_ROW = 256
MAX_ROWS_BYTES = 16 * 1024 * 1024
HEAD_BYTES = 64 * 1024


class UpstreamError(CaskError):
    """Another service could not be asked, or refused, or answered what is no answer."""

    code = "upstream_failed"
    status = 502
    title = "Another service did not answer"

    def __init__(self, message: str, *, upstream_status: int = 0, **more: Any) -> None:
        super().__init__(message, hint="See its log, under the same request id.", **more)
        self.upstream_status = upstream_status


@dataclass(frozen=True)
class Opinion:
    """What one member said. ``results``: width and height in pixels of the upright image, and its answer."""

    model: Mapping[str, str]
    results: Sequence[tuple[int, int, Answer]]


def most_bytes(images: int, params: Mapping[str, Any]) -> int:
    """How long an answer about so many images can be, in bytes."""
    rows = min(MAX_RESULTS, int(params.get("max_results") or params.get("top_k") or MAX_RESULTS))
    return HEAD_BYTES + min(MAX_ROWS_BYTES, images * rows * BYTES_A_ROW)


def read(name: str, task: Task, count: int, body: bytes) -> Opinion:
    """The answer about so many images; of more rows than anybody may ask for the first are taken.

    Raises UpstreamError.
    """
    asked = tasks.BY_NAME[task]
    try:
        document = json.loads(body)
        model = {key: str(document["model"][key]) for key in ("name", "version", "digest")}
        results = [
            (_side(row["width"]), _side(row["height"]), asked.answer_of(row))
            for row in document["results"][: count + 1]
        ]
        for _, _, answer in results:
            for row in answer:
                asked.check(row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        raise UpstreamError("%(name)s answered what is no answer of this API.", name=name) from None
    if len(results) != count:
        raise UpstreamError(
            "%(name)s answered %(count)s images of %(wanted)s.",
            name=name,
            count=len(document["results"]),
            wanted=count,
        )
    return Opinion(model, results)


def refused(name: str, status: int, retry_after: str | None, body: bytes) -> UpstreamError:
    """What it said, in its words where they are a problem document (RFC 9457)."""
    try:
        said = str(json.loads(body)["detail"])[:200]
    except (ValueError, TypeError, KeyError, RecursionError):
        said = Text("it did not say why")
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() and len(retry_after) < 6 else None
    return UpstreamError(
        "%(name)s answered %(status)s: %(said)s",
        upstream_status=status,
        retry_after_seconds=seconds,
        name=name,
        status=status,
        said=said,
    )


def _side(value: Any) -> int:
    check_number(value)
    if not isinstance(value, int):
        raise TypeError(value)
    return value
