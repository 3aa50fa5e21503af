"""Requests to models with code: values checked against what the model promises, pictures decoded, the engine asked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.cache import entries, keys
from app.cache.predictions import ANY_AGE, Computed, PredictionCache
from app.engine.client import CallAnswer
from app.errors import InputRefusedError, ModelNotFoundError, ModelNotReadyError, OptionError
from app.inference import code_images, code_items
from app.inference.images import Picture
from app.inference.memory_budget import Hold
from app.inference.pipeline import MAX_CHOICES, Caller, FreeWork, Predictor
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
    code_items.check_size(asked.items, asked.options)
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
    manifest = choice.manifest
    request = _Request(predictor, manifest, asked, code_items.options(manifest.signature, asked.options), caller)
    if predictor.kept is not None and manifest.signature.get("cache"):
        return _gather(predictor.kept, request)
    answers, timings = _compute(request, range(len(asked.items)))
    return Called(manifest, answers, timings)


@dataclass(frozen=True)
class _Request:
    """One request to one version. ``options``: complete and checked."""

    predictor: Predictor
    manifest: Manifest
    asked: Call
    options: dict[str, Any]
    caller: Caller | None


def _gather(kept: PredictionCache, request: _Request) -> Called:
    """What was answered before to equal items and options; the model is asked for the others."""
    started, manifest, timings = time.perf_counter(), request.manifest, dict[str, float]()
    known = [keys.code_key(item, request.options, manifest.digest) for item in request.asked.items]

    def compute(numbers: Sequence[int]) -> list[Computed]:
        answers, spent = _compute(request, numbers)
        timings.update(spent)
        now = time.time()
        return [
            Computed(entries.of_code(answer, now), known[number])
            for answer, number in zip(answers, numbers, strict=True)
        ]

    freshness = request.caller.freshness() if request.caller else ANY_AGE
    found = kept.gather(CODE, known, compute, request.asked.deadline, freshness)
    if request.caller:
        request.caller.tell(found)
    spent = (time.perf_counter() - started) * 1000 - timings.get("decode", 0.0) - timings.get("engine", 0.0)
    return Called(manifest, [each.entry.raw for each in found], {"cache": spent, **timings})


def _compute(request: _Request, numbers: Sequence[int]) -> tuple[list[bytes], dict[str, float]]:
    """Ask the model about the items of these numbers."""
    predictor, manifest, asked, started = request.predictor, request.manifest, request.asked, time.perf_counter()
    work = request.caller.work(manifest.key, len(numbers), asked.deadline) if request.caller else None
    work = work or FreeWork(len(numbers))
    with work, predictor.decoder.budget.hold("pixels") as hold:
        items = [_item(request, number, hold) for number in numbers]
        decoded = time.perf_counter()
        with work.turn(len(items)) as took:
            answers = _answers(request, numbers, items)
            took(sum(each.predict_ms / each.batch_size for each in answers) / 1000)
    metrics.PREDICTED_IMAGES.add(len(answers), task=CODE)
    return [each.json for each in answers], _timings(started, decoded, answers)


def _answers(
    request: _Request, numbers: Sequence[int], items: Sequence[tuple[list[Any], code_items.Data]]
) -> list[CallAnswer]:
    try:
        return request.predictor.engine.call(request.manifest, items, request.options, request.asked.deadline)
    except InputRefusedError as error:
        if len(request.asked.items) > 1:
            error.message = Text("items[%(number)s]: %(said)s", number=numbers[error.number], said=error.message)
        raise


def _timings(started: float, decoded: float, answers: Sequence[CallAnswer]) -> dict[str, float]:
    return {
        "decode": (decoded - started) * 1000,
        "queue": max(each.queue_ms for each in answers),
        "predict": max(each.predict_ms for each in answers),
        "engine": (time.perf_counter() - decoded) * 1000,
    }


def _item(request: _Request, number: int, hold: Hold) -> tuple[list[Any], code_items.Data]:
    asked, decoder = request.asked, request.predictor.decoder
    where = f"items[{number}]." if len(asked.items) > 1 else ""

    def decode(data: bytes, spec: InputSpec) -> Picture:
        return decoder.read(data, spec, asked.deadline, hold)

    def read_picture(data: bytes, shape: Sequence[int | None] | None) -> code_items.Pixels:
        return code_images.read(data, shape, decode)

    return code_items.item(request.manifest.signature, asked.items[number], read_picture, where)
