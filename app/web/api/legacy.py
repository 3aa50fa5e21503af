"""POST /, POST /predict, GET /get_result: requests and answers of the service before Cask; its clients keep working."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from app import tasks, texts
from app.errors import ModelNotFoundError, OptionError, RequestError
from app.inference import results
from app.inference.pipeline import predictor
from app.inference.results import MAX_RESULTS, SCORE_DIGITS, Detection, Prediction
from app.jobs.jobs import State
from app.jobs.store import told
from app.models.manifests import CODE, Manifest
from app.tasks.detect import Detect
from app.tasks.detect_params import DetectParams
from app.texts import gettext_noop
from app.web.api import answers, bodies, excerpts, jobs, prediction_docs
from app.web.middleware import canary_header, deadlines
from app.web.openapi import operations
from app.web.openapi.operations import EXAMPLE_IMAGE, JSON, Answer, Body, describe
from app.web.policy import PREDICTING_ROUTE

legacy = Blueprint("legacy", __name__)
operations.put(legacy, tag="Earlier clients")

# Fractions of an image need more digits than pixels: a ten-thousandth of a pixel in an image of 10 000.
FRACTION_DIGITS = 8
HINT = gettext_noop(
    'Send {"requests": [{"image": {"content": base64}, "features": [{…}]}]} or {"image": base64, …}; '
    "GET /docs shows both."
)


Fraction = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
LEAST = "pixels of the upright image, or below 1 a fraction of its side"
Least = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_RESULTS), BeforeValidator(bodies.whole)]
Text = Annotated[str, Field(strict=True, max_length=64)]
Base64 = Annotated[str, Field(strict=True, json_schema_extra=prediction_docs.BASE64_IMAGE)]


class Features(BaseModel):
    """What the caller asks of one image; what is left out or null comes from the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_height: Least | None = Field(None, description=f"Lower boxes are left out; {LEAST}.")
    min_width: Least | None = Field(None, description=f"Narrower boxes are left out; {LEAST}.")
    maxResults: Count | None = Field(None, description="At most so many boxes, best first; 0 is none.")  # noqa: N815
    score_th: Fraction | None = Field(None, description="Boxes with a lower score are left out.")
    nms_iou: Fraction | None = Field(None, description="Boxes that overlap more than this are one object.")
    type: Text | None = Field(None, description="The name of a detector, or the label of the only boxes wanted.")

    def params(self, label: str) -> LegacyParams:
        """The same in the words of POST /v1/detect. ``label``: the only one wanted; empty for all."""
        return LegacyParams(
            max_results=self.maxResults,
            score_threshold=self.score_th,
            iou_threshold=self.nms_iou,
            label=label or None,
            **_least("min_height", self.min_height),
            **_least("min_width", self.min_width),
        )


class LegacyParams(DetectParams):
    """With what only these addresses know: least sizes as fractions of the image's sides."""

    min_width_fraction: float | None = None
    min_height_fraction: float | None = None


def _least(name: str, value: float | None) -> dict[str, Any]:
    """A least size; the service before Cask was given fractions."""
    return {f"{name}_fraction": value} if value is not None and 0 < value < 1 else {name: value}


class Content(BaseModel):
    """An image in base64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: Base64


class Entry(BaseModel):
    """One image and what is requested for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Content
    features: list[Features] = Field(default_factory=list, max_length=1, fail_fast=True)

    @property
    def requested(self) -> Features:
        return self.features[0] if self.features else Features.model_validate({})


class Entries(BaseModel):
    """Several images, each with params of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The first fault is told; millions would take gigabytes.
    requests: list[Entry] = Field(min_length=1, fail_fast=True)


class Single(Features):
    """One image, with the params beside it."""

    image: Base64


class Vertices(TypedDict):
    """One object; ``x`` and ``y`` are its top left corner, all four are fractions of the upright image."""

    x: float
    y: float
    width: float
    height: float
    score: float
    label: str


class Found(TypedDict):
    """The objects in one image, best first."""

    normalizedVertices: list[Vertices]


class AllFound(TypedDict):
    """The objects of each image, in the order of the requests."""

    responses: list[Found]


class JobImageNamed(TypedDict):
    """What is in an image of a job that classifies, best label first."""

    labels: list[Prediction]


class JobImageFailed(TypedDict):
    """Why an image of a job has no answer."""

    error: jobs.ImageProblem


class JobFound(TypedDict):
    """How far a job is, and what there is."""

    job_id: str
    status: State
    done: int
    total: int
    responses: list[Found | JobImageNamed | JobImageFailed | None]


class LegacyJobParams(BaseModel):
    """Which job."""

    job_id: str = Field(description="Id of the job.")


EXAMPLES = {
    "several images": {"requests": [{"image": {"content": EXAMPLE_IMAGE}, "features": [{"score_th": 0.5}]}]},
    "one image": {"image": EXAMPLE_IMAGE, "nms_iou": 0.5},
}
ANSWER = {
    "normalizedVertices": [
        {"x": 0.59942188, "y": 0.62867526, "width": 0.06285156, "height": 0.16358734, "score": 0.86402, "label": "cone"}
    ]
}


@legacy.post("/", endpoint="root")
@legacy.post("/predict")
@describe(
    "Find objects, as before",
    Answer(
        "`responses` for `requests`; for one image its `normalizedVertices` alone.",
        AllFound | Found,
        example=ANSWER,
        headers=prediction_docs.PREDICTED,
    ),
    policy=PREDICTING_ROUTE,
    bodies=(Body(JSON, Entries | Single, examples=EXAMPLES),),
    errors=prediction_docs.PREDICTION_ERRORS,
    headers=(canary_header.HEADER, prediction_docs.FRESHNESS),
)
def predict() -> Response:
    """Find objects in one or several images; all entries are answered, boxes are fractions of the image."""
    asked = _parse(bodies.read_json(request))
    entries = asked.requests if isinstance(asked, Entries) else [_entry(asked)]
    found, timings = _find(entries)
    response = jsonify(responses=found) if isinstance(asked, Entries) else jsonify(found[0])
    response.headers["Server-Timing"] = answers.server_timing(timings)
    return response


@legacy.get("/get_result")
@describe(
    "The results of a job, as before",
    Answer(
        "`responses` in the order of the images; null for one that still waits.",
        JobFound,
        example={"job_id": jobs.EXAMPLE_ID, "status": "succeeded", "done": 1, "total": 1, "responses": [ANSWER]},
    ),
    query=LegacyJobParams,
    errors=(*jobs.ERRORS, OptionError),
)
def get_result() -> Response:
    """How far a job of POST /v1/jobs is, and what was found, as fractions of each image."""
    job_id = bodies.in_address(request).get("job_id", "")
    if not job_id:
        raise OptionError("job_id is missing.", hint="GET /get_result?job_id=… with the id that POST /v1/jobs gave.")
    store = jobs.store()
    job = store.get(job_id, jobs.seen_by())
    if job.task == CODE:
        raise OptionError("Job %(id)s asks a model with code.", hint="GET /v1/jobs/<id> has its results.", id=job.id)
    found = {} if job.state == "expired" else {row["number"]: _as_before(row) for row in store.all_results(job.id)}
    return jsonify(
        job_id=job.id,
        status=job.state,
        done=job.done,
        total=job.total,
        responses=[found.get(number) for number in range(1, job.total + 1)] if found else [],
    )


def _as_before(row: dict[str, Any]) -> Found | JobImageNamed | JobImageFailed:
    """One result of a job; boxes stand in it as pixels of the upright image."""
    if "error" in row:
        return {"error": told(row)["error"]}
    task = tasks.of_row(row)
    if not task.has_boxes:
        return {"labels": list(task.scored(row))}
    return _vertices(task.answer_of(row), row["width"], row["height"])


def _parse(document: Any) -> Entries | Single:
    """The request in one of its two forms. Raises RequestError for another shape, OptionError for a wrong requested."""
    if not isinstance(document, dict) or not {"requests", "image"} & set(document):
        raise RequestError('The JSON has neither "requests" nor "image".', hint=HINT)
    form: type[Entries | Single] = Entries if "requests" in document else Single
    return excerpts.fitting(
        form,
        document,
        texts.Text("The JSON"),
        OptionError,
        hint="%(how)s Options: %(known)s.",
        how=texts.Text(HINT),
        known=", ".join(Features.model_fields),
    )


def _entry(single: Single) -> Entry:
    requested = Features(**single.model_dump(exclude={"image"}))
    return Entry(image=Content(content=single.image), features=[requested])


def _find(entries: Sequence[Entry]) -> tuple[list[Found], dict[str, float]]:
    """The objects of each entry; entries that go to the same model share a batch."""
    images = [bodies.decode(number, entry.image.content) for number, entry in enumerate(entries, start=1)]
    chosen = [_choose(entry.requested.type) for entry in entries]
    found: dict[int, Found] = {}
    timings: dict[str, float] = {}
    for manifest in dict.fromkeys(manifest.key for manifest, _ in chosen):
        numbers = [number for number, (each, _) in enumerate(chosen) if each.key == manifest]
        requested = [entries[each].requested.params(chosen[each][1]) for each in numbers]
        outcome = predictor().predict(
            Detect.name,
            [images[each] for each in numbers],
            {},
            model=chosen[numbers[0]][0].name,
            deadline=deadlines.current(),
            each=requested,
        )
        timings = {name: timings.get(name, 0.0) + value for name, value in outcome.timings.items()}
        for number, result in zip(numbers, outcome.results, strict=True):
            found[number] = _vertices(result.answer, result.width, result.height)
    return [found[number] for number in range(len(entries))], timings


def _choose(kind: str | None) -> tuple[Manifest, str]:
    """The detector that ``type`` names, or the first that knows it as a label, with it. Raises ModelNotFoundError."""
    detectors = [each for each in predictor().manifests if each.task == Detect.name]
    if kind in {detector.name for detector in detectors}:
        return predictor().find(Detect.name, kind), ""
    if not kind:
        return predictor().find(Detect.name), ""
    for manifest in detectors:
        if label := manifest.label_of(kind):
            return manifest, label
    names = ", ".join(detector.name for detector in detectors)
    labels = ", ".join(dict.fromkeys(label for detector in detectors for label in detector.labels))
    raise ModelNotFoundError(
        "type is %(value)s, which is neither a detector nor a label of one.",
        hint="Detectors: %(names)s. Labels: %(labels)s.",
        value=repr(excerpts.shown(kind)),
        names=names,
        labels=labels,
    )


def _vertices(answer: results.Answer, width: int, height: int) -> Found:
    return {"normalizedVertices": [_vertex(row, width, height) for row in answer if isinstance(row, Detection)]}


def _vertex(row: Detection, width: int, height: int) -> Vertices:
    box = row.box
    return {
        "x": round(box.x_min / width, FRACTION_DIGITS),
        "y": round(box.y_min / height, FRACTION_DIGITS),
        "width": round((box.x_max - box.x_min) / width, FRACTION_DIGITS),
        "height": round((box.y_max - box.y_min) / height, FRACTION_DIGITS),
        "score": round(row.score, SCORE_DIGITS),
        "label": row.label,
    }
