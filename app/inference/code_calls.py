"""Requests to models with code: values checked against what the model promises, pictures decoded, the engine asked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.engine.client import CallAnswer
from app.errors import CaskError, InputRefusedError, ModelNotFoundError, ModelNotReadyError, OptionError
from app.inference import code_images
from app.inference.memory_budget import Hold
from app.inference.pipeline import MAX_CHOICES, Caller, Predictor, free_work
from app.model_code import validation
from app.model_code.schema_marks import BESIDE, KIND
from app.models.manifests import CODE, Manifest
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
    """One request. ``deadline``: a moment of ``time.monotonic``."""

    name: str
    version: str | None
    items: Sequence[Item]
    options: Mapping[str, Any]
    deadline: float


def call(predictor: Predictor, asked: Call, caller: Caller | None) -> Called:
    """Ask a model with code. Raises OptionError, ModelNotFoundError, any Image…Error, InputRefusedError, and what the
    engine raises.
    """
    canary = caller.canary() if caller else ""
    choice = predictor.routing.choose(CODE, asked.name, asked.version, canary)
    predictor.check_count(len(asked.items))
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
    options = _options(manifest.signature, asked.options)
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


def _options(signature: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the model, checked. Raises OptionError."""
    known: Mapping[str, Any] = signature["options"]
    for name in given:
        if name not in known:
            names = ", ".join((*signature["inputs"], *known))
            raise OptionError("%(name)s is unknown.", hint="There are: %(names)s.", name=ascii(name[:80]), names=names)
    return {
        name: validation.check(schema, given[name], name) if name in given else schema["default"]
        for name, schema in known.items()
    }


def _item(
    predictor: Predictor, signature: Mapping[str, Any], item: Item, deadline: float, hold: Hold, number: int | None
) -> tuple[list[Any], bytes]:
    """The values of one item, and the bytes that they point into. Raises OptionError."""
    where = "" if number is None else f"items[{number}]."
    known: Mapping[str, Any] = signature["inputs"]
    for name in item:
        if name not in known:
            names = ", ".join(known)
            raise OptionError(
                "%(name)s is unknown.", hint="There are: %(names)s.", name=ascii(f"{where}{name}"[:80]), names=names
            )
    values: list[Any] = []
    data = bytearray()
    for name, schema in known.items():
        if name not in item:
            if schema.get("anyOf"):
                values.append(None)
                continue
            raise OptionError("%(field)s is missing.", hint="Send it.", field=f"{where}{name}")
        kind = schema.get(KIND)
        if kind == "image":
            shape, width, height, pixels = _picture(predictor, schema, item[name], deadline, hold, f"{where}{name}")
            values.append([len(data), len(pixels), shape, width, height])
            data += pixels
        elif kind in BESIDE:
            values.append([len(data), len(item[name])])
            data += item[name]
        else:
            values.append(validation.check(schema, item[name], f"{where}{name}"))
    return values, bytes(data)


def _picture(
    predictor: Predictor, schema: Mapping[str, Any], data: bytes, deadline: float, hold: Hold, field_name: str
) -> tuple[Sequence[int], int, int, Any]:
    try:
        return code_images.read(predictor.decoder, data, schema.get("x-cask-shape"), deadline, hold)
    except CaskError as error:
        error.message = Text("%(field)s: %(said)s", field=field_name, said=error.message)
        raise
