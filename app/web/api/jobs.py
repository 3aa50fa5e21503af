"""/v1/jobs: leave images here, ask how far they are, fetch their results, take them away."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from flask import Response, current_app, jsonify, request, url_for
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict
from werkzeug.routing import Map

from app import errors, tasks
from app.jobs import store as jobs_store
from app.jobs import webhooks
from app.jobs.image_packs import Pack
from app.jobs.jobs import Job, State, Wanted
from app.jobs.jobs import row as jobs_row
from app.jobs.store import PAGE_ROWS, JobStore
from app.plain_numbers import PlainNumbers
from app.tasks.base import ModelIdentity, Side
from app.telemetry import metrics
from app.texts import Text
from app.web.api import api, bodies, excerpts, job_requests, kept_answers, prediction_docs
from app.web.api.answers import ModelTask
from app.web.middleware import accept_language, authentication, canary_header, request_ids
from app.web.openapi.operations import BINARY, EXAMPLE_IMAGE, JSON, Answer, Body, a_list, an_object, describe

TAG = "Jobs"
JSON_LINES = "application/x-ndjson"
MOST_ROWS = 1000
EXTENSION = "jobs"
# Of proxies, below which callers find us.
MAX_PREFIXES = 16
ANY_ID = "0" * 24
# A job's body is large, and each that is being read holds a thread that predictions need.
UPLOADS_AT_ONCE = 2
# A body has arrived before it is read here, so a place is free again in a moment; but threads are for predictions, too.
UPLOADS_WAITING = 4
UPLOAD_WAIT_SECONDS = 2.0

Count = Annotated[int, Field(ge=0)]
Moment = Annotated[str, Field(description="RFC 3339, in UTC.")]


class Uploads:
    """Places for those who send a job, in this process, and for some who wait a moment for one. Thread-safe."""

    def __init__(self, places: int) -> None:
        self.places = threading.BoundedSemaphore(places)
        self.waiting = threading.BoundedSemaphore(UPLOADS_WAITING)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold one while the body is read. Raises JobsFullError."""
        if not self.places.acquire(blocking=False) and not self._wait():
            raise errors.JobsFullError(
                "%(count)s jobs are being sent at the moment.",
                hint="Send it again after the time in Retry-After.",
                count=UPLOADS_AT_ONCE,
            )
        try:
            yield
        finally:
            self.places.release()

    def _wait(self) -> bool:
        """Whether a place came free in time."""
        if not self.waiting.acquire(blocking=False):
            return False
        try:
            return self.places.acquire(timeout=UPLOAD_WAIT_SECONDS)
        finally:
            self.waiting.release()


UPLOADS = Uploads(UPLOADS_AT_ONCE)


class Progress(TypedDict):
    """How far a job is, in images; those that failed are done too."""

    done: Count
    failed: Count
    total: Count


class ImageProblem(TypedDict):
    """Why one image has no prediction."""

    code: str
    status: int
    title: str
    detail: str
    hint: str


def _of_tasks() -> dict[str, Any]:
    """What an image's result holds of its task's answer, for all tasks."""
    fields: dict[str, Any] = {}
    for task in tasks.ALL:
        fields |= {task.rows: list[task.row], **task.beside}  # type: ignore[name-defined]
    return fields


if TYPE_CHECKING:
    JobResult = dict[str, Any]
else:
    JobResult = prediction_docs.typed_dict(
        "JobResult",
        f"The result of one image: {' or '.join(f'`{task.rows}`' for task in tasks.ALL)} with the model, or `error`.",
        {
            "number": Annotated[int, Field(ge=1, description="The image's place in the job.")],
            "name": str,
            "model": ModelIdentity,
            "width": Side,
            "height": Side,
            **_of_tasks(),
            "answer": Annotated[Any, Field(description="Of a model with code: what it answers.")],
            "error": ImageProblem,
        },
        total=False,
    )


class JobWebhook(TypedDict):
    """Who is told of the end, and whether that was heard."""

    url: str
    state: Literal["waiting", "pending", "delivered", "failed"]
    attempts: Count
    error: Annotated[str, Field(description="Why the last try failed; else empty.")]


class JobRow(TypedDict):
    """A job as it stands."""

    id: str
    state: State
    task: ModelTask
    options: dict[str, Any]
    progress: Progress
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    expires_at: Annotated[Moment | None, Field(description="Until when results are kept; null while it is open.")]
    webhook: JobWebhook | None
    url: str


class JobAnswer(JobRow):
    """A job with results: those that there are, by number."""

    results: list[JobResult]
    next: Annotated[str | None, Field(description="Where the next results are; null: there are no more for now.")]


class JobList(TypedDict):
    """Jobs, the newest first."""

    jobs: list[JobRow]
    next: Annotated[str | None, Field(description="Where older ones are; null: there are none.")]


class _Page(PlainNumbers):
    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(PAGE_ROWS, ge=1, le=MOST_ROWS, description="At most so many.")


class ResultsPage(_Page):
    """Which results."""

    after: int = Field(0, ge=0, le=2**31, description="Only results with a higher number.")


class JobsPage(_Page):
    """Which jobs."""

    before: str = Field("", pattern=r"^[0-9a-f]{0,24}$", description="Only jobs older than the one with this id.")


EXAMPLE_ID = "9f2c41d06b7aa5e3d1c07b42"
_ROW = {
    "id": EXAMPLE_ID,
    "state": "succeeded",
    "task": tasks.ALL[0].name,
    "options": {"model": "site-safety-detector", "score_threshold": 0.5, "version": "1"},
    "progress": {"done": 1, "failed": 0, "total": 1},
    "created_at": "2026-11-21T12:00:00.000Z",
    "started_at": "2026-11-21T12:00:00.200Z",
    "ended_at": "2026-11-21T12:00:00.230Z",
    "expires_at": "2026-11-22T12:00:00.230Z",
    "webhook": None,
    "url": f"/v1/jobs/{EXAMPLE_ID}",
}
_RESULT = {
    "number": 1,
    "name": "site-morning.jpg",
    "model": tasks.ALL[0].example["model"],
    **tasks.ALL[0].example["results"][0],
}
# The setting that says how many images a job may have.
LIMIT = "jobs_max_images"
_OPTIONS = {
    "task": {"enum": list(job_requests.TASKS), "description": f"{job_requests.TASKS[0]} when left out."},
    "webhook_url": {
        "type": "string",
        "format": "uri",
        "description": "Where the end of the job is reported; the operator of this service allows hosts.",
    },
    **{
        name: row
        for task in tasks.ALL
        for name, row in prediction_docs.options(task.params).items()
        if name not in job_requests.NOT_HERE
    },
}
BODIES = (
    Body(
        JSON,
        an_object({bodies.IMAGES_KEY: a_list(prediction_docs.BASE64_IMAGE, LIMIT), **_OPTIONS}, "images"),
        examples={"one image": {bodies.IMAGES_KEY: [EXAMPLE_IMAGE]}},
    ),
    Body(
        "multipart/form-data",
        {
            **an_object(
                {
                    bodies.IMAGE_PART: a_list(BINARY, LIMIT),
                    "task": _OPTIONS["task"],
                },
                bodies.IMAGE_PART,
            ),
            "description": "Or one file in the part `archive` (zip, tar, tar.gz); also the options of the task.",
        },
    ),
    Body("image/*", BINARY),
)
MAKING_ERRORS = (
    errors.RequestError,
    bodies.MediaTypeError,
    errors.JobsOffError,
    errors.ModelNotFoundError,
    errors.OptionError,
    errors.ArchiveError,
    errors.IdempotencyError,
    # Whether a model takes its kind is seen with each image.
    *(each for each in prediction_docs.IMAGE_ERRORS if each is not errors.ImageUnsupportedError),
    errors.JobsFullError,
    errors.StateUnusableError,
    errors.StorageFullError,
)
ERRORS = (errors.JobsOffError, errors.JobNotFoundError, errors.StateUnusableError)
PATH = {"job_id": "Id of the job."}


@api.post("/jobs")
@describe(
    "Leave images to be predicted",
    tag=TAG,
    bodies=BODIES,
    answers={
        202: Answer(
            "Taken; `Location` says where to ask for it.",
            JobRow,
            example={**_ROW, "state": "queued", "progress": {"done": 0, "failed": 0, "total": 1}},
            headers=("Location",),
        )
    },
    errors=MAKING_ERRORS,
    headers=("Idempotency-Key", canary_header.HEADER),
)
def make_job() -> Response:
    """Leave one or many images, or an archive of them; they are predicted behind those who wait."""
    with UPLOADS.place(), store().packing() as pack:
        job, is_new = take(job_requests.read(request, pack), pack, job_requests.key(request))
    response = jsonify(row(job))
    response.status_code = 202
    response.headers["Location"] = row(job)["url"]
    if not is_new:
        response.headers["Idempotency-Replayed"] = "true"
    return response


@api.get("/jobs")
@describe(
    "All jobs",
    Answer("The newest first.", JobList, example={"jobs": [_ROW], "next": None}),
    tag=TAG,
    query=JobsPage,
    errors=(errors.JobsOffError, errors.OptionError, errors.StateUnusableError),
)
@kept_answers.depends_on(lambda app: app.extensions[EXTENSION])
def list_jobs() -> Response:
    """Your jobs as they stand, without results."""
    page = _parse(JobsPage)
    found = store().list(seen_by(), limit=page.limit, before=page.before)
    more = url_for("api.list_jobs", before=found[-1].id, limit=page.limit) if len(found) == page.limit else None
    return jsonify(jobs=[row(job) for job in found], next=more)


@api.get("/jobs/<job_id>")
@describe(
    "One job, with results",
    Answer("How it stands.", JobAnswer, example={**_ROW, "results": [_RESULT], "next": None}),
    tag=TAG,
    path=PATH,
    query=ResultsPage,
    errors=(*ERRORS, errors.OptionError),
)
@kept_answers.depends_on(lambda app: app.extensions[EXTENSION])
def show_job(job_id: str) -> Response:
    """How far it is, and the results so far; many results come in pages."""
    page = _parse(ResultsPage)
    job = store().get(job_id, seen_by())
    results = [] if job.state == "expired" else store().results(job.id, after=page.after, limit=page.limit)
    more = None
    if len(results) == page.limit:
        more = url_for("api.show_job", job_id=job.id, after=results[-1]["number"], limit=page.limit)
    language = accept_language.asked()
    told = [jobs_store.told(result, accept_language.speaker(language)) for result in results]
    return accept_language.mark(jsonify({**row(job), "results": told, "next": more}), language)


@api.get("/jobs/<job_id>/results")
@describe(
    "All results of a job, a line each",
    Answer(
        "JSON Lines: the results that there are, by number.", media_type=JSON_LINES, example=json.dumps(_RESULT) + "\n"
    ),
    tag=TAG,
    path=PATH,
    errors=ERRORS,
)
def job_results(job_id: str) -> Response:
    """The results so far, one JSON object a line, however many; nothing once they have expired."""
    jobs, job = store(), store().get(job_id, seen_by())
    rows = () if job.state == "expired" else jobs.all_results(job.id)
    language = accept_language.asked()
    told = (jobs_store.told(each, accept_language.speaker(language)) for each in rows)
    lines = (json.dumps(each, separators=(",", ":")) + "\n" for each in told)
    return accept_language.mark(Response(lines, mimetype=JSON_LINES), language)


@api.delete("/jobs/<job_id>")
@describe(
    "Cancel and remove a job",
    tag=TAG,
    path=PATH,
    answers={204: Answer("It is gone, with its images and results.", None, media_type="")},
    errors=ERRORS,
)
def remove_job(job_id: str) -> Response:
    """Cancel a job that is open; forget its images and results."""
    remove(job_id)
    return Response(status=204)


def store() -> JobStore:
    """The jobs of the current app. Raises JobsOffError."""
    if current_app.extensions["settings"].jobs == "off":
        raise errors.JobsOffError(
            "This service takes no background jobs.", hint="Ask the operator of this service whether it can take them."
        )
    found: JobStore = current_app.extensions[EXTENSION]
    return found


def take(said: job_requests.Said, pack: Pack, key: str = "") -> tuple[Job, bool]:
    """A new job of the caller's. False: the same was taken before, under the same key. Raises as ``JobStore.add``."""
    if said.webhook_url:
        webhooks.check(said.webhook_url, current_app.extensions["settings"].jobs_webhook_hosts)
    told = (owner(), key, request_ids.current(), said.webhook_url)
    job, is_new = store().add(Wanted(said.task, said.params, *told, job_requests.answered_by(said)), pack)
    if is_new:
        metrics.JOBS.add(outcome="queued")
    return job, is_new


def remove(job_id: str) -> None:
    """Cancel a job of the caller's that is open, and forget it. Raises JobNotFoundError."""
    if store().remove(job_id, seen_by()).is_open:
        metrics.JOBS.add(outcome="cancelled")


def owner() -> str:
    """Whose a new job is: its token's id; empty where nobody is asked for a token."""
    token = authentication.caller()
    return token.id if token is not None else ""


def seen_by() -> str | None:
    """Whose jobs the caller may see and remove; None for all of them: an admin's token, or nobody is asked for one."""
    token = authentication.caller()
    return None if token is None or "admin" in token.scopes else token.id


def row(job: Job) -> dict[str, Any]:
    """A job in plain JSON types, without results."""
    before = _before_id(current_app.url_map, request.environ.get("SCRIPT_NAME", ""))
    return {**jobs_row(job), "url": before + job.id if before else url_for("api.show_job", job_id=job.id)}


@functools.lru_cache(MAX_PREFIXES)
def _before_id(_url_map: Map, _prefix: str) -> str:
    """What stands before the id in a job's address, which takes a tenth of such an answer to build; empty where
    something stands behind it, as a plugin's defaults may.
    """
    address = url_for("api.show_job", job_id=ANY_ID)
    return address.removesuffix(ANY_ID) if address.endswith(ANY_ID) else ""


def _parse(kind: Any) -> Any:
    """The options in the address; what nobody changes. Raises OptionError."""
    if not request.query_string:
        return _defaults(kind)
    given = {name: value for name, value in bodies.in_address(request).items() if value != ""}
    hint = Text("Known options: %(names)s.", names=", ".join(kind.model_fields))
    return excerpts.fitting(kind, given, Text("The address"), errors.OptionError, hint=hint)


@functools.cache
def _defaults(kind: Any) -> Any:
    return kind()
