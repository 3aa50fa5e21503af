"""Requests to models with code, on their way through the engine: values as JSON, pixels and bytes beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.batcher import Work
from app.engine.protocol import Buffer, Frame, FrameType, ProtocolError
from app.engine.worker import Reply


@dataclass(frozen=True)
class Item:
    """What one caller asks. ``values``: one a parameter; of an image or bytes the place in ``data``, see the worker."""

    values: Sequence[Any]
    data: Buffer = b""


def work(frame: Frame, now: float, reply: Callable[[Reply], None]) -> Work:
    """A call as the batcher takes it; those with equal options may be computed together. Raises ProtocolError."""
    meta = frame.meta
    try:
        timeout_seconds = float(meta["timeout_ms"]) / 1000
        if not math.isfinite(timeout_seconds):
            raise ValueError(f"a timeout of {timeout_seconds} s")
        return Work(
            model_key=str(meta["model"]),
            shape=json.dumps(meta["options"], sort_keys=True),
            arrived=now,
            deadline=now + timeout_seconds,
            image=Item(list(meta["values"]), frame.payload),
            options=dict(meta["options"]),
            digest=str(meta["digest"]),
            reply=reply,
            request_id=str(meta.get("request_id", ""))[:64],
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a call frame is wrong: {type(error).__name__}: {error}") from None


def answer(number: int, reply: Reply) -> Frame:
    """The answer to a call: the model's JSON as it is."""
    meta = {
        "id": number,
        "queue_ms": round(reply.queue_ms, 3),
        "predict_ms": round(reply.predict_ms, 3),
        "batch_size": reply.batch_size,
        "form": reply.form,
    }
    assert isinstance(reply.answer, bytes)
    return Frame(FrameType.ANSWER, meta, reply.answer)
