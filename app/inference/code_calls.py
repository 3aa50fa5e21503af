"""Requests to models with code: values checked against what the model promises, pictures decoded, the engine asked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.engine.client import CallAnswer
from app.errors import InputRefusedError, ModelNotFoundError, ModelNotReadyError, OptionError
from app.inference import code_images, code_items
from app.inference.images import Picture
from app.inference.memory_budget import Hold
from app.inference.pipeline import MAX_CHOICES, Caller, Predictor, free_work
from app.models.manifests import CODE, InputSpec, Manifest
from app.models.routing import Choice
from app.telemetry import metrics
from app.texts import Text

# One item: its values by name; bytes where the model takes bytes or an image.
Item = Mapping[str, Any]


@dataclass(frozen=True)
class Called:
    """The answers of one request, JSON as the model gave it, in the order of its items."""

    manifest: Manifest
    answers: list[bytes]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request. ``deadline``: a moment of ``time.monotonic``. ``choice``: who answers, where that is decided."""

    name: str
    version: str | None
    items: Sequence[Item]
    options: Mapping[str, Any]
    deadline: float
    choice: Choice | None = None


def choose(predictor: Predictor, name: str, version: str | None, caller: Caller | None) -> Choice:
    """Which version answers a request, for who needs to know what it takes. Raises ModelNotFoundError, OptionError."""
    return predictor.routing.choose(CODE, name, version, caller.canary() if caller else "")


def check_count(predictor: Predictor, count: int) -> None:
    """Whether a request may hold so many items. Raises OptionError, TooManyImagesError."""
    if count == 0:
        raise OptionError("The request holds no item.", hint="Send one at least.")
    predictor.check_count(count)


def call(predictor: Predictor, asked: Call, caller: Caller | None) -> Called:
    """Ask a model with code. Raises OptionError, ModelNotFoundError, any Image…Error, InputRefusedError, and what the
    engine raises.
    """
    canary = caller.canary() if caller else ""
    choice = asked.choice or choose(predictor, asked.name, asked.version, caller)
    check_count(predictor, len(asked.items))
    for _ in range(MAX_CHOICES - 1):
        try:
            return _ask(predictor, choice, asked, caller)
        except (ModelNotFoundError, ModelNotReadyError):
            # The pointer may have moved meanwhile, or a canary is not ready.
            predictor.routing.refresh()
            again = predictor.routing.choose(CODE, asked.name, asked.version, "never" if not asked.version else canary)
            if again.manifest is choice.manifest or again.manifest.digest == choice.manifest.digest:
                raise
            choice = again
    return _ask(predictor, choice, asked, caller)


def ask(predictor: Predictor, asked: Call) -> list[Any]:
    """For code in this process: what the model answers to each item. Raises as ``call``."""
    return [json.loads(answer) for answer in call(predictor, asked, predictor.caller).answers]


def _ask(predictor: Predictor, choice: Choice, asked: Call, caller: Caller | None) -> Called:
    manifest, started = choice.manifest, time.perf_counter()
    options = code_items.options(manifest.signature, asked.options)
    work = (caller.work(manifest.key, len(asked.items), asked.deadline) if caller else None) or free_work(
        len(asked.items)
    )
    with work, predictor.decoder.budget.hold("pixels") as hold:
        items = [
            _item(predictor, manifest.signature, item, asked.deadline, hold, number if len(asked.items) > 1 else None)
            for number, item in enumerate(asked.items)
        ]
        decoded = time.perf_counter()
        with work.turn(len(items)) as took:
            answers = _answers(predictor, manifest, items, options, asked.deadline)
            took(sum(each.predict_ms / each.batch_size for each in answers) / 1000)
    metrics.PREDICTED_IMAGES.add(len(answers), task=CODE)
    return Called(manifest, [each.json for each in answers], _timings(started, decoded, answers))


def _answers(
    predictor: Predictor, manifest: Manifest, items: Sequence[tuple[list[Any], bytes]], options: Any, deadline: float
) -> list[CallAnswer]:
    try:
        return predictor.engine.call(manifest, items, options, deadline)
    except InputRefusedError as error:
        if len(items) > 1:
            error.message = Text("items[%(number)s]: %(said)s", number=error.number, said=error.message)
        raise


def _timings(started: float, decoded: float, answers: Sequence[CallAnswer]) -> dict[str, float]:
    return {
        "decode": (decoded - started) * 1000,
        "queue": max(each.queue_ms for each in answers),
        "predict": max(each.predict_ms for each in answers),
        "engine": (time.perf_counter() - decoded) * 1000,
    }


def _item(
    predictor: Predictor, signature: Mapping[str, Any], item: Item, deadline: float, hold: Hold, number: int | None
) -> tuple[list[Any], bytes]:
    where = "" if number is None else f"items[{number}]."
    decoder = predictor.decoder

    def decode(data: bytes, spec: InputSpec) -> Picture:
        return decoder.read(data, spec, deadline, hold)

    def read_picture(data: bytes, shape: Sequence[int | None] | None) -> code_items.Pixels:
        return code_images.read(data, shape, decoder.limits, decode)

    return code_items.item(signature, item, read_picture, where)
