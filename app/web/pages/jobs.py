"""Pages of background jobs: all of them with their progress, one with its results, and a form that leaves pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from flask import current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from app import tasks
from app.errors import ImageMissingError
from app.inference.pipeline import predictor
from app.jobs import archives
from app.jobs.image_packs import Pack
from app.jobs.jobs import Job
from app.jobs.store import told
from app.telemetry import shards
from app.texts import gettext_noop
from app.web.api import job_requests
from app.web.api.jobs import UPLOADS, remove, seen_by, store, take
from app.web.middleware import form_bodies
from app.web.openapi.operations import BINARY, Body, a_list, a_page, an_open_object, describe
from app.web.pages import languages, pages, prediction_form, try_image

LISTED_ROWS = 20
RESULT_ROWS = 100
SHOWN_TEXT = 500
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# A rate from fewer images says little of the rest.
LEAST_FOR_FORECAST = 3
STATES = {
    "queued": gettext_noop("Waiting"),
    "running": gettext_noop("Running"),
    "succeeded": gettext_noop("Done"),
    "failed": gettext_noop("Failed"),
    "expired": gettext_noop("Expired"),
}
PATH = {"job_id": "Id of the job."}
PAGE = a_page("The page.")
REFUSED = a_page("What is wrong.")
TO_A_PAGE = a_page("To the page of the job, or of all jobs.")
FORM = {
    **an_open_object({"image": a_list(BINARY), "task": {"enum": list(prediction_form.TASKS)}}, "image"),
    "description": "Pictures or archives of them; also `model`, as the page sends it.",
}


@dataclass(frozen=True)
class Shown:
    """A job as the templates show it."""

    job: Job

    @property
    def state_words(self) -> str:
        """In English."""
        return STATES[self.job.state]

    @property
    def seconds(self) -> float | None:
        """How long it has been worked at; None before."""
        if self.job.started_at is None:
            return None
        return max(0.0, (self.job.ended_at or time.time()) - self.job.started_at)

    @property
    def seconds_left(self) -> float | None:
        """How long it will still take, at the pace so far; None where that cannot be said."""
        job, seconds = self.job, self.seconds
        if job.state != "running" or job.done < LEAST_FOR_FORECAST or not seconds:
            return None
        return seconds / job.done * (job.total - job.done)


@dataclass(frozen=True)
class ShownResult:
    """One image's result: what was found, or why nothing is known of it."""

    number: int
    name: str
    # Counted by label, or the best ones read.
    rows: Sequence[Any] = ()
    is_counted: bool = False
    # The answer of a model with code.
    text: str = ""
    error: dict[str, Any] | None = None


@pages.get("/jobs")
@describe("The page of all jobs", PAGE)
def jobs() -> str:
    """All jobs of this person, the newest first, and a form to leave pictures."""
    found = store().list(seen_by(), limit=LISTED_ROWS, before=request.args.get("before", ""))
    return render_template(
        "jobs.html",
        jobs=[Shown(job) for job in found],
        older=found[-1].id if len(found) == LISTED_ROWS else "",
        is_away=not _is_worked_off(),
        models=[status for status in predictor().models() if prediction_form.is_offered(status)],
        tasks=prediction_form.offered_tasks(),
        limits=current_app.extensions["settings"],
        archives=ARCHIVES,
        api_url=_api_url(),
    )


@pages.post("/jobs")
@describe(
    "The form of the page of jobs",
    bodies=(Body("multipart/form-data", FORM),),
    answers={303: TO_A_PAGE, **dict.fromkeys((400, 404, 413, 415, 422, 500, 503, 507), REFUSED)},
)
def leave_pictures() -> BaseResponse:
    """Leave the pictures of the form, and go to the page of their job."""
    with UPLOADS.place(), store().packing() as pack:
        _fill(pack)
        fields = form_bodies.once(request.form)
        name, _, version = fields.get("model", "").partition("@")
        task = predictor().find(None, name, version or None).task if name else fields.get("task", "")
        job, _ = take(job_requests.said({"task": task, "model": name, "version": version}), pack)
    return redirect(url_for("pages.job", job_id=job.id), 303)


@pages.get("/jobs/<job_id>")
@describe("The page of one job", PAGE, path=PATH, answers={404: REFUSED})
def job(job_id: str) -> str:
    """One job: progress, what was requested, results."""
    found = store().get(job_id, seen_by())
    after = request.args.get("after", "0")
    after_number = int(after) if after.isdecimal() and len(after) < 10 else 0
    rows = [] if found.state == "expired" else store().results(found.id, after=after_number, limit=RESULT_ROWS)
    results = [_result(row) for row in rows]
    return render_template(
        "job.html",
        shown=Shown(found),
        results=results,
        following=results[-1].number if len(results) == RESULT_ROWS else None,
        labels={manifest.name: manifest.labels for manifest in predictor().manifests},
        is_away=found.is_open and not _is_worked_off(),
        api_url=_api_url(),
    )


@pages.post("/jobs/<job_id>/remove")
@describe("The button that removes a job", path=PATH, answers={303: TO_A_PAGE, 404: REFUSED})
def remove_job(job_id: str) -> BaseResponse:
    """Cancel a job that is open, forget it, and go back to the others."""
    remove(job_id)
    return redirect(url_for("pages.jobs"), 303)


@pages.app_template_filter()
def duration(seconds: float) -> str:
    """``12 s``, ``3 min``, ``1.5 h``: as exact as one wants to know."""
    if seconds < 90:
        return f"{languages.number(max(1, round(seconds)))} s"
    if seconds < 90 * 60:
        return f"{languages.number(round(seconds / 60))} min"
    return f"{languages.number(seconds / 3600, 1)} h"


@pages.app_template_filter()
def moment(seconds: float) -> str:
    """A moment in seconds since 1970, for people."""
    return languages.moment(datetime.fromtimestamp(seconds, UTC))


def _fill(pack: Pack) -> None:
    """The form's files into the pack: pictures as they are, archives unpacked. Raises ImageMissingError and others."""
    request.max_form_parts = pack.limits.max_images + 51
    for file in request.files.getlist("image"):
        # A browser sends a part without name and content where nothing was chosen.
        if not file.filename:
            continue
        stream = cast(BinaryIO, file.stream)
        if file.filename.lower().endswith(ARCHIVES):
            archives.fill(pack, stream)
        else:
            pack.add(file.filename, stream)
    if not pack.entries:
        raise ImageMissingError("No image was chosen.", hint="Go back and choose one or several images, or an archive.")


def _result(row: dict[str, Any]) -> ShownResult:
    if "error" in row:
        return ShownResult(row["number"], row["name"], error=told(row, languages.told)["error"])
    if "answer" in row:
        return ShownResult(row["number"], row["name"], text=json.dumps(row["answer"], ensure_ascii=False)[:SHOWN_TEXT])
    task = tasks.of_row(row)
    rows = task.answer_of(row) if task.has_boxes else task.scored(row)
    if not rows and row[task.rows]:
        return ShownResult(row["number"], row["name"], text=json.dumps(row[task.rows], ensure_ascii=False)[:SHOWN_TEXT])
    return ShownResult(row["number"], row["name"], rows=rows, is_counted=task.has_boxes)


def _is_worked_off() -> bool:
    state_dir = current_app.extensions["settings"].state_dir
    return any(sign.role == "jobs" and sign.beat for sign in shards.signs(state_dir))


def _api_url() -> str:
    return request.script_root + try_image.API_PATH
