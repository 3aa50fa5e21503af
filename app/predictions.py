"""What the service is for: images and wishes in, answers out. Between the views and the engine."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flask import current_app

from app import images, options, sizing
from app.config import Settings
from app.engine.client import EngineAnswer
from app.errors import (
    CaskError,
    DeadlineExceededError,
    ImageMissingError,
    ModelNotFoundError,
    ModelNotReadyError,
    TooManyImagesError,
)
from app.images import ImageData, Picture
from app.manifests import Manifest, Task
from app.options import Wishes
from app.results import Answer, Detection, Options
from app.roles import ROLES, Role
from app.routing import CanaryWish, Choice, Route, Routing
from app.shadowing import Shadowing
from app.telemetry import metrics

# /v1/models may be asked often; the engine need not be for each.
STATUS_AGE_SECONDS = 0.5
# A pointer may move between choice and arrival; more often than this in one request it is something else.
MAX_CHOICES = 3


class Engine(Protocol):
    """What predictions need of the engine; ``EngineClient`` is one."""

    def predict(
        self, manifest: Manifest, images: Sequence[np.ndarray], options: Sequence[Options], deadline: float
    ) -> list[EngineAnswer]: ...

    def status(self) -> dict[str, Any]: ...

    def shadow(self, manifest: Manifest, image: np.ndarray, options: Options, about: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class ImageResult:
    """The answer for one image; ``width`` and ``height`` are pixels of the upright original."""

    width: int
    height: int
    answer: Answer


@dataclass(frozen=True)
class Outcome:
    """All answers of one request, in the order of its images. ``timings``: milliseconds by name of the step."""

    manifest: Manifest
    results: list[ImageResult]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelStatus:
    """One version of a model as callers see it.

    ``state``: ready, loading, failed, unloaded, or unavailable when the engine is away. ``computed_by``: runtime and
    precision, such as ``openvino int8``; ``device``: ``cpu`` or ``cuda:<n>``; ``processor``: what reports call a GPU;
    all three empty until it is ready. ``role``: one of ``roles.ROLES``. ``share``: percent
    of the requests without a wish of their own that it answers.
    """

    manifest: Manifest
    state: str
    error: str = ""
    computed_by: str = ""
    role: Role = "active"
    share: float = 100.0
    device: str = ""
    processor: str = ""


def predictor() -> Predictor:
    """The predictor of the current app."""
    found: Predictor = current_app.extensions["predictor"]
    return found


class Predictor:
    """Chooses the model, reads the images, asks the engine, brings boxes back to the original's pixels."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """Reads the manifests of the chosen models. Raises ManifestError."""
        self.engine = engine
        self.routing = Routing(Path(settings.models_dir), Path(settings.state_dir), settings.models)
        self._max_images = settings.request_max_images
        self._timeout_seconds = settings.request_timeout_seconds
        self._limits = images.Limits(
            settings.images_max_bytes,
            settings.images_max_pixels,
            tuple(name.upper() for name in settings.images_formats),
        )
        self._shadowing = Shadowing(self._limits)
        self._decoders = _Permits(sizing.choose(settings).web_decoders.value)
        self._status_lock = threading.Lock()
        self._status: tuple[float, dict[str, Any] | CaskError] | None = None

    def predict(
        self,
        task: Task,
        data: Sequence[ImageData],
        wishes: Mapping[str, Any],
        *,
        model: str | None = None,
        version: str | None = None,
        canary: CanaryWish = "",
        deadline: float | None = None,
        each: Sequence[Mapping[str, Any]] | None = None,
    ) -> Outcome:
        """Predict images, encoded or as uint8 pixels (height × width × 3), all with one version.

        ``deadline`` is a moment of ``time.monotonic``; the default timeout when None.
        ``each`` holds further wishes of each single image; which model answers is the same for all.

        Raises OptionError, ModelNotFoundError, ImageMissingError, TooManyImagesError, any Image…Error, and what the
        engine raises.
        """
        if deadline is None:
            deadline = time.monotonic() + self._timeout_seconds
        parsed = options.parse(task, {**wishes, **_given(model=model, version=version)})
        wished = [parsed] * len(data)
        if each is not None:
            wished = [options.parse(task, {**wishes, **more}) for more in each]
        choice = self.routing.choose(task, parsed.model, parsed.version, canary)
        self._check_count(len(data))
        for _ in range(MAX_CHOICES - 1):
            try:
                return self._ask(choice, wished, data, deadline)
            except (ModelNotFoundError, ModelNotReadyError) as error:
                choice = self._choose_again(choice, parsed, task, error, canary)
        return self._ask(choice, wished, data, deadline)

    @property
    def manifests(self) -> list[Manifest]:
        """The version of each model that answers now."""
        return [route.active for route in self.routing.routes.values()]

    def find(self, task: Task | None, name: str | None = None, version: str | None = None) -> Manifest:
        """The chosen model: the active version, of the first of the task when no name is given.

        Raises ModelNotFoundError.
        """
        return self.routing.choose(task, name, version, "never").manifest

    def models(self) -> list[ModelStatus]:
        """Every version that is held or has a role, with its state in the engine; active ones first. Never raises."""
        try:
            rows = {(row["name"], row["version"]): row for row in self.engine_status()["models"]}
        except CaskError as error:
            return [
                ModelStatus(manifest, "unavailable", error.message, "", *_role(route, manifest))
                for route in self.routing.routes.values()
                for manifest in route.manifests.values()
            ]
        return [status for route in self.routing.routes.values() for status in self._statuses(route, rows)]

    def _statuses(self, route: Route, rows: dict[tuple[str, str], dict[str, Any]]) -> list[ModelStatus]:
        held = {version for name, version in rows if name == route.name}
        found = {version: self.routing.manifest(route.name, version) for version in (*route.manifests, *sorted(held))}
        statuses = [
            _status_of(route, manifest, rows.get((route.name, version)))
            for version, manifest in found.items()
            if manifest is not None
        ]
        return sorted(statuses, key=lambda status: ROLES.index(status.role))

    def _choose_again(self, first: Choice, wished: Wishes, task: Task, error: CaskError, canary: CanaryWish) -> Choice:
        """After the engine could not serve the choice: the pointer moved meanwhile, or a canary is not ready, which is
        no reason to refuse anybody. Raises the error where nothing has changed.
        """
        if isinstance(error, ModelNotFoundError):
            self.routing.refresh()
        may_avoid = first.is_canary and not wished.version
        again = self.routing.choose(task, wished.model, wished.version, "never" if may_avoid else canary)
        if again.route is first.route and again.manifest is first.manifest:
            raise error
        return again

    def _ask(self, choice: Choice, wished: Sequence[Wishes], data: Sequence[ImageData], deadline: float) -> Outcome:
        manifest = choice.manifest
        own = [options.complete(each, manifest) for each in wished]
        started = time.perf_counter()
        pictures = self._read_all(data, manifest, deadline)
        decoded = time.perf_counter()
        wishes_scaled = [picture.to_input(wish) for picture, wish in zip(pictures, own, strict=True)]
        answers = self.engine.predict(manifest, [picture.pixels for picture in pictures], wishes_scaled, deadline)
        timings = _timings(started, decoded, answers)
        metrics.DECODE_SECONDS.observe(decoded - started, task=manifest.task)
        metrics.PREDICTED_IMAGES.add(len(answers), task=manifest.task)
        results = [_result(*pair) for pair in zip(pictures, answers, strict=True)]
        shadow = choice.route.shadow
        if shadow is not None and manifest is choice.route.active:
            given = [result.answer for result in results]
            self._shadowing.offer(self.engine, shadow, manifest, wished, pictures, data, given)
        return Outcome(manifest, results, timings)

    def engine_status(self) -> dict[str, Any]:
        """What the engine says of itself, at most half a second old. Raises EngineAwayError."""
        with self._status_lock:
            if self._status is None or time.monotonic() - self._status[0] > STATUS_AGE_SECONDS:
                found: dict[str, Any] | CaskError
                try:
                    found = self.engine.status()
                except CaskError as error:
                    found = error
                # Its age begins when it is there: all who waited for a slow answer share it.
                self._status = (time.monotonic(), found)
            found = self._status[1]
        if isinstance(found, CaskError):
            raise found
        return found

    def _check_count(self, count: int) -> None:
        if count == 0:
            raise ImageMissingError(
                "The request holds no image.",
                hint='Send multipart parts named "image", the raw bytes of one image with Content-Type: image/*, '
                'or JSON {"images": [base64, …]}.',
            )
        if count > self._max_images:
            raise TooManyImagesError(
                f"The request holds {count} images; at most {self._max_images} are accepted.",
                hint="Send them in several requests, or raise REQUEST_MAX_IMAGES.",
            )

    def _read_all(self, data: Sequence[ImageData], manifest: Manifest, deadline: float) -> list[Picture]:
        pictures = []
        for number, each in enumerate(data, start=1):
            remaining_seconds = deadline - time.monotonic()
            if remaining_seconds <= 0 or not self._decoders.acquire(timeout=remaining_seconds):
                raise DeadlineExceededError(
                    f"The deadline passed before image {number} of {len(data)} was decoded.",
                    hint="Allow more time with X-Request-Timeout, or send fewer or smaller images at once.",
                )
            try:
                pictures.append(self._read(number, each, manifest, len(data)))
            finally:
                self._decoders.release()
        return pictures

    def _read(self, number: int, data: ImageData, manifest: Manifest, count: int) -> Picture:
        try:
            return images.read_any(data, manifest.input, self._limits)
        except CaskError as error:
            if count > 1:
                error.message = f"Image {number} of {count}: {error.message}"
            raise


class _Permits:
    """So many at once. As threading's semaphore, which is written in Python and costs a tenth of a request here."""

    def __init__(self, count: int) -> None:
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def acquire(self, timeout: float) -> bool:
        """Wait for a permit, at most so many seconds; whether there was one."""
        try:
            self._free.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def release(self) -> None:
        self._free.put(None)


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _result(picture: Picture, engine_answer: EngineAnswer) -> ImageResult:
    answer: Answer = [  # type: ignore[assignment]
        replace(row, box=picture.to_original(row.box)) if isinstance(row, Detection) else row
        for row in engine_answer.answer
    ]
    return ImageResult(picture.width, picture.height, answer)


def _timings(started: float, decoded: float, answers: list[EngineAnswer]) -> dict[str, float]:
    """Milliseconds; of several images the slowest counts, because they travel side by side."""
    return {
        "decode": (decoded - started) * 1000,
        "queue": max(each.queue_ms for each in answers),
        "predict": max(each.predict_ms for each in answers),
        "engine": (time.perf_counter() - decoded) * 1000,
    }


def _role(route: Route, manifest: Manifest) -> tuple[Role, float]:
    return route.roles.role_of(manifest.version), route.roles.share_of(manifest.version)


def _status_of(route: Route, manifest: Manifest, row: dict[str, Any] | None) -> ModelStatus:
    role, share = _role(route, manifest)
    if row is None and role in ("previous", "withdrawn"):
        return ModelStatus(manifest, "unloaded", "", "", role, share)
    if row is None:
        return ModelStatus(manifest, "unavailable", "The engine does not hold it.", "", role, share)
    if row["digest"] != manifest.digest:
        return ModelStatus(
            manifest, "unavailable", f"The engine holds another digest: {row['digest']}.", "", role, share
        )
    computed_by, device, processor = (row.get(key, "") for key in ("computed_by", "device", "processor"))
    return ModelStatus(manifest, row["state"], row["error"], computed_by, role, share, device, processor)
