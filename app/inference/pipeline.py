"""What the service is for: images and params in, answers out. Between the views and the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flask import current_app

from app import tasks
from app.cache import keys
from app.cache.entries import Entry
from app.cache.predictions import ANY_AGE, Computed, Found, Freshness, PredictionCache
from app.config import Settings
from app.decoding.decoder import Decoder
from app.engine.client import CallAnswer, EngineAnswer
from app.errors import (
    CaskError,
    ImageMissingError,
    ModelNotFoundError,
    ModelNotReadyError,
    TooManyImagesError,
)
from app.inference import images, options
from app.inference.images import ImageData, Picture
from app.inference.memory_budget import Hold
from app.inference.options import TaskParams
from app.inference.results import Answer, Box, ExplainOptions, Explanation, Options
from app.inference.served_models import ServedModels
from app.models.manifests import Manifest, Task
from app.models.routing import CanaryPreference, Choice
from app.models.runtime_variant import Forms
from app.models.shadowing import Shadowing
from app.telemetry import metrics, traces
from app.texts import Text

# An explanation costs several predictions; callers who want many send several requests.
MAX_EXPLAINED = 8
# A pointer may move between choice and arrival; more often than this in one request it is something else.
MAX_CHOICES = 3


class Engine(Protocol):
    """What predictions need of the engine; ``EngineClient`` is one."""

    def predict(
        self,
        manifest: Manifest,
        images: Sequence[np.ndarray],
        options: Sequence[Options],
        deadline: float,
        sizes: Sequence[tuple[int, int]] = (),
    ) -> list[EngineAnswer]: ...

    def call(
        self,
        manifest: Manifest,
        items: Sequence[tuple[Sequence[Any], bytes | memoryview]],
        options: dict[str, Any],
        deadline: float,
    ) -> list[CallAnswer]: ...

    def status(self) -> dict[str, Any]: ...

    def shadow(self, manifest: Manifest, image: np.ndarray, options: Options, about: dict[str, Any]) -> None: ...


class Work(Protocol):
    """Images for which the engine will be asked within the block, by turns; ``middleware.admission.Work`` is one."""

    @property
    def images_a_turn(self) -> int: ...

    def __enter__(self) -> Work: ...

    def __exit__(self, *_: Any) -> None: ...

    def turn(self, images: int) -> AbstractContextManager[Callable[[float], None]]: ...


class Caller(Protocol):
    """What predictions need to know of the caller; ``middleware.request_context.RequestContext`` is one."""

    def work(self, kind: str, images: int, deadline: float) -> Work | None: ...

    def freshness(self) -> Freshness: ...

    def canary(self) -> CanaryPreference: ...

    def tell(self, found: Sequence[Found]) -> None: ...


@dataclass(frozen=True)
class PlacedExplanation:
    """Where a classifier looked, and the ``region`` of the upright original that its map covers, in pixels."""

    explanation: Explanation
    region: Box


@dataclass(frozen=True)
class ImageResult:
    """The answer for one image; ``width`` and ``height`` are pixels of the upright original."""

    width: int
    height: int
    answer: Answer
    explanation: PlacedExplanation | None = None


@dataclass(frozen=True)
class Outcome:
    """All answers of one request, in the order of its images. ``timings``: milliseconds by name of the step."""

    manifest: Manifest
    results: list[ImageResult]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Request:
    """One request, checked. ``caller``: who wants it, where that is known. ``own``: the params of each image, complete;
    the lists have one row an image.
    """

    choice: Choice
    requested: Sequence[TaskParams]
    own: Sequence[Options]
    data: Sequence[ImageData]
    deadline: float
    caller: Caller | None

    def key(self, number: int, form: str) -> str:
        """Under which the answer to one image is kept, computed in this form."""
        return keys.key(self.data[number], self.own[number], self.choice.manifest.digest, form)


@dataclass(frozen=True)
class _Computed:
    """What the engine has answered, a row an image.

    ``forms``: see ``app.models.runtime_variant``; ``timings``: as in Outcome."""

    results: list[ImageResult]
    forms: list[str]
    timings: dict[str, float]


def predictor() -> Predictor:
    """The predictor of the current app."""
    found: Predictor = current_app.extensions["predictor"]
    return found


class Predictor(ServedModels):
    """Chooses the model, reads the images, asks the engine, brings boxes back to the original's pixels."""

    def __init__(
        self, settings: Settings, engine: Engine, kept: PredictionCache | None = None, caller: Caller | None = None
    ) -> None:
        """Reads the manifests of the chosen models. ``kept``: answers of before. Raises ManifestError."""
        super().__init__(settings, engine)
        self.engine: Engine = engine
        self.kept = kept
        self.caller = caller
        self._forms = Forms(Path(settings.state_dir))
        self._max_images = settings.request_max_images
        self.timeout_seconds = settings.request_timeout_seconds
        self.decoder = Decoder.of(settings)
        self._shadowing = Shadowing(self.decoder.read)

    def predict(
        self,
        task: Task,
        data: Sequence[ImageData],
        params: Mapping[str, Any] | TaskParams,
        *,
        model: str | None = None,
        version: str | None = None,
        canary: CanaryPreference | None = None,
        deadline: float | None = None,
        each: Sequence[TaskParams] | None = None,
        caller: Caller | None = None,
    ) -> Outcome:
        """Predict images, encoded or as uint8 pixels (height × width × 3), all with one version.

        ``params``: as they came, or checked by ``options.parse``, ``model`` and ``version`` with them. ``each``: the
        params of each single image, instead. ``deadline``: a moment of ``time.monotonic``; the default when None.
        ``canary``: as the caller says when None. ``caller``: who asks; the current request when None.

        Raises OptionError, ModelNotFoundError, ImageMissingError, TooManyImagesError, any Image…Error, and what the
        engine raises.
        """
        deadline = time.monotonic() + self.timeout_seconds if deadline is None else deadline
        caller = caller or self.caller
        parsed = params if isinstance(params, TaskParams) else _parsed(task, params, model=model, version=version)
        requested = [parsed] * len(data) if each is None else each
        canary = (caller.canary() if caller else "") if canary is None else canary
        choice = self.routing.choose(task, parsed.model, parsed.version, canary)
        self.check_count(len(data))
        if parsed.wants_explanation:
            _check_explanation(parsed, choice.manifest, len(data))
        for _ in range(MAX_CHOICES - 1):
            try:
                return self._answer(choice, parsed, requested, data, deadline, caller)
            except (ModelNotFoundError, ModelNotReadyError) as error:
                choice = self._choose_again(choice, parsed, task, error, canary)
        return self._answer(choice, parsed, requested, data, deadline, caller)

    def settle(self, task: Task | None, name: str | None = None, version: str | None = None) -> Choice:
        """Which version answers the current request, for who needs to know before, or asks several times.

        Raises ModelNotFoundError, OptionError.
        """
        return self.routing.choose(task, name, version, self.caller.canary() if self.caller else "")

    def find(self, task: Task | None, name: str | None = None, version: str | None = None) -> Manifest:
        """The chosen model: the active version, of the first of the task when no name is given.

        Raises ModelNotFoundError.
        """
        return self.routing.choose(task, name, version, "never").manifest

    def _choose_again(
        self, first: Choice, requested: TaskParams, task: Task, error: CaskError, canary: CanaryPreference
    ) -> Choice:
        """After the engine could not serve the choice: the pointer moved meanwhile, or a canary is not ready, which is
        no reason to refuse anybody. Raises the error where nothing has changed.
        """
        if isinstance(error, ModelNotFoundError):
            self.routing.refresh()
        may_avoid = first.is_canary and not requested.version
        again = self.routing.choose(task, requested.model, requested.version, "never" if may_avoid else canary)
        if again.route is first.route and again.manifest is first.manifest:
            raise error
        return again

    def _answer(
        self,
        choice: Choice,
        parsed: TaskParams,
        requested: Sequence[TaskParams],
        data: Sequence[ImageData],
        deadline: float,
        caller: Caller | None,
    ) -> Outcome:
        own = [options.complete(each, choice.manifest) for each in requested]
        asked = _Request(choice, requested, own, data, deadline, caller)
        outcome = self._ask(asked)
        return self._explained(outcome, asked, parsed) if parsed.wants_explanation else outcome

    def _ask(self, asked: _Request) -> Outcome:
        manifest, data = asked.choice.manifest, asked.data
        if self.kept is None:
            computed = self._compute(asked, range(len(data)))
            return Outcome(manifest, computed.results, computed.timings)
        return self._gather(self.kept, asked)

    def _gather(self, kept: PredictionCache, asked: _Request) -> Outcome:
        """What was computed before for the same bytes, params, model and form; the engine is asked for the others."""
        started, manifest = time.perf_counter(), asked.choice.manifest
        form, timings = self._forms.of(manifest.digest), dict[str, float]()
        known = [asked.key(number, form) for number in range(len(asked.data))]

        def compute(numbers: Sequence[int]) -> list[Computed]:
            computed, now = self._compute(asked, numbers), time.time()
            timings.update(computed.timings)
            return [
                # Rarely, the engine computes in another form than it did a moment ago.
                Computed(
                    Entry(result.width, result.height, result.answer, now),
                    known[number] if used == form else asked.key(number, used),
                )
                for number, result, used in zip(numbers, computed.results, computed.forms, strict=True)
            ]

        freshness = asked.caller.freshness() if asked.caller else ANY_AGE
        found = kept.gather(manifest.task, known, compute, asked.deadline, freshness)
        if asked.caller:
            asked.caller.tell(found)
        results = [ImageResult(each.entry.width, each.entry.height, each.entry.answer) for each in found]
        spent = (time.perf_counter() - started) * 1000 - timings.get("decode", 0.0) - timings.get("engine", 0.0)
        return Outcome(manifest, results, {"cache": spent, **timings})

    def _compute(self, asked: _Request, numbers: Sequence[int]) -> _Computed:
        """Ask the engine for the images of these numbers."""
        parts = []
        with _work(asked, asked.choice.manifest.key, len(numbers)) as work:
            for some in _parts(numbers, work):
                with self.decoder.budget.hold("pixels") as hold:
                    parts.append(self._compute_some(asked, some, hold, work))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _compute_some(self, asked: _Request, numbers: Sequence[int], hold: Hold, work: Work) -> _Computed:
        started = time.perf_counter()
        # Before the turn: a picture that is slow to decode must not keep the engine from others.
        pictures = self._read_all(asked, numbers, hold)
        choice, decoded = asked.choice, time.perf_counter()
        scaled = [picture.to_input(asked.own[number]) for picture, number in zip(pictures, numbers, strict=True)]
        with work.turn(len(numbers)) as took:
            turned = time.perf_counter()
            answers = self.engine.predict(
                choice.manifest,
                [each.pixels for each in pictures],
                scaled,
                asked.deadline,
                [(each.width, each.height) for each in pictures],
            )
            took(_seconds(answers))
            timings = _timings(decoded - started, time.perf_counter() - turned, answers)
        metrics.DECODE_SECONDS.observe(decoded - started, task=choice.manifest.task)
        metrics.PREDICTED_IMAGES.add(len(answers), task=choice.manifest.task)
        manifest = choice.manifest
        about = {"cask.model": manifest.name, "cask.version": manifest.version, "cask.images": len(answers)}
        traces.note_prediction(started, decoded, timings, **about)
        task = tasks.BY_NAME[manifest.task]
        results = [
            ImageResult(each.width, each.height, task.placed(found.answer, each))
            for each, found in zip(pictures, answers, strict=True)
        ]
        shadow = choice.route.shadow
        if shadow is not None and choice.manifest is choice.route.active:
            given, requested = [result.answer for result in results], [asked.requested[number] for number in numbers]
            data = [asked.data[number] for number in numbers]
            self._shadowing.offer(self.engine, shadow, choice.manifest, requested, pictures, data, given)
        return _Computed(results, [each.form for each in answers], timings)

    def _explained(self, outcome: Outcome, asked: _Request, requested: TaskParams) -> Outcome:
        """With where the model looked, for callers who asked for it: the engine is asked again, about the same version.

        The pictures are read again: an answer may have been kept from before, without them.
        """
        started, manifest = time.perf_counter(), outcome.manifest
        label = manifest.label_of(getattr(requested, "explain_label", None) or "")
        labels = [ExplainOptions(label or _best(each)) for each in outcome.results]
        # Also where the answer itself was kept: the engine has work with it, and more than with a prediction.
        kind = f"{manifest.key} explained"
        answers: list[EngineAnswer] = []
        with _work(asked, kind, len(labels)) as work:
            for some in _parts(range(len(labels)), work):
                params = [labels[number] for number in some]
                with self.decoder.budget.hold("pixels") as hold:
                    pictures = [each.pixels for each in self._read_all(asked, some, hold)]
                    with work.turn(len(some)) as took:
                        found = self.engine.predict(manifest, pictures, params, asked.deadline)
                        took(_seconds(found))
                answers += found
        results = [
            replace(result, explanation=_placed(manifest, result, answer))
            for result, answer in zip(outcome.results, answers, strict=True)
        ]
        return Outcome(manifest, results, {**outcome.timings, "explain": (time.perf_counter() - started) * 1000})

    def check_count(self, count: int) -> None:
        """Whether a request may hold so many images. Raises ImageMissingError, TooManyImagesError."""
        if count == 0:
            raise ImageMissingError(
                "The request holds no image.",
                hint='Send multipart parts named "image", the raw bytes of one image with Content-Type: image/*, '
                'or JSON {"images": [base64, …]}.',
            )
        if count > self._max_images:
            raise TooManyImagesError(
                "The request holds %(count)s images; at most %(most)s are accepted.",
                hint="Send them in several requests; the operator of this service sets the limit.",
                count=count,
                most=self._max_images,
            )

    def _read_all(self, asked: _Request, numbers: Sequence[int], hold: Hold) -> list[Picture]:
        pictures, count = [], len(asked.data)
        for number in numbers:
            try:
                pictures.append(
                    self.decoder.read(asked.data[number], asked.choice.manifest.input, asked.deadline, hold)
                )
            except CaskError as error:
                if count > 1:
                    error.message = Text(
                        "Image %(number)s of %(count)s: %(said)s", number=number + 1, count=count, said=error.message
                    )
                raise
        return pictures


@dataclass(frozen=True)
class FreeWork:
    """Work of a request that needs no admission; it takes no turns."""

    images_a_turn: int

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: Any) -> None:
        return

    def turn(self, images: int) -> AbstractContextManager[Callable[[float], None]]:
        return nullcontext(lambda seconds: None)


def _work(asked: _Request, kind: str, images: int) -> Work:
    """To be entered while the engine is asked: it is room that others wait for."""
    work = asked.caller.work(kind, images, asked.deadline) if asked.caller else None
    return work or FreeWork(images)


def _parts(numbers: Sequence[int], work: Work) -> list[Sequence[int]]:
    """As many as one turn is for, and then the next."""
    most = work.images_a_turn
    return [numbers[start : start + most] for start in range(0, len(numbers), most)]


def _joined(parts: Sequence[_Computed]) -> _Computed:
    """One after the other, and so are their times."""
    timings = {name: sum(part.timings[name] for part in parts) for name in parts[0].timings}
    results = [result for part in parts for result in part.results]
    return _Computed(results, [form for part in parts for form in part.forms], timings)


def _seconds(answers: Sequence[EngineAnswer]) -> float:
    """How long they have kept one worker of the engine."""
    return sum([each.predict_ms / each.batch_size for each in answers]) / 1000


def _parsed(task: Task, params: Mapping[str, Any], **named: str | None) -> TaskParams:
    """``named``: model and version, where they stand beside the others."""
    given = {name: value for name, value in named.items() if value is not None}
    return options.parse(task, {**params, **given})


def _check_explanation(requested: TaskParams, manifest: Manifest, count: int) -> None:
    """Of one that wants it. Raises OptionError, TooManyImagesError."""
    if label := getattr(requested, "explain_label", None):
        options.label(manifest, "explain_label", label)
    if count > MAX_EXPLAINED:
        raise TooManyImagesError(
            "The request holds %(count)s images; at most %(most)s can be explained at once.",
            hint="Send them in several requests, or leave explain out.",
            count=count,
            most=MAX_EXPLAINED,
        )


def _best(result: ImageResult) -> str:
    return result.answer[0].label if result.answer else ""


def _placed(manifest: Manifest, result: ImageResult, answer: EngineAnswer) -> PlacedExplanation:
    (explanation,) = answer.answer
    assert isinstance(explanation, Explanation)
    return PlacedExplanation(explanation, images.seen(manifest.input, result.width, result.height))


def _timings(decode_seconds: float, engine_seconds: float, answers: list[EngineAnswer]) -> dict[str, float]:
    """Milliseconds; of several images the slowest counts, because they travel side by side."""
    return {
        "decode": decode_seconds * 1000,
        "queue": max([each.queue_ms for each in answers]),
        "predict": max([each.predict_ms for each in answers]),
        "engine": engine_seconds * 1000,
    }
