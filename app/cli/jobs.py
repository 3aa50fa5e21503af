"""``flask jobs``: what lies in the background, and what to do with it. Works on the store; no service need run."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import click

from app.cli import known_settings, terminal
from app.host import permissions
from app.jobs import stores
from app.jobs.jobs import Job, row
from app.jobs.store import JobStore, told
from app.storage import state_schema

HEADS = ("Job", "State", "Task", "Done", "Failed", "Of", "Made", "Owner")
PERIOD_SECONDS = 0.5
MOST_ROWS = 1000

job_argument = click.argument("job_id", metavar="JOB")


@click.group(cls=terminal.Group)
def command() -> None:
    """See, cancel, try again and clear away background jobs. None of this needs a running service."""


@command.command("list")
@terminal.json_option
@click.option("--open", "is_open", is_flag=True, help="Only those that are queued or running.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, MOST_ROWS), help="At most so many.")
def list_jobs(is_json: bool, is_open: bool, limit: int) -> None:
    """Print jobs, the newest first."""
    found = _store().list(limit=limit, is_open=is_open)
    if is_json:
        terminal.print_json([{**row(job), "owner": job.owner} for job in found])
    elif not found:
        terminal.print_note("There is no open job." if is_open else "There is no job.")
    else:
        terminal.print_table(HEADS, [_cells(job) for job in found])


@command.command()
@job_argument
@terminal.json_option
@click.option(
    "--results", "has_results", is_flag=True, help="Print the results, a line of JSON each, and nothing else."
)
@click.option("--follow", "-f", is_flag=True, help="Wait for its end, with a bar on a terminal.")
def show(job_id: str, is_json: bool, has_results: bool, follow: bool) -> None:
    """Print one job."""
    store = _store()
    job = _follow(store, job_id) if follow else store.get(job_id)
    if has_results:
        _print_results(store, job)
    elif is_json:
        terminal.print_json({**row(job), "owner": job.owner})
    else:
        rows = [(name.replace("_", " "), _shown(value)) for name, value in row(job).items()]
        terminal.print_table(("Job", job.id), [*rows[1:], ("owner", job.owner or None)])


@command.command()
@job_argument
@terminal.yes_option
def cancel(job_id: str, is_sure: bool) -> None:
    """End a job and forget its images and results."""
    store = _store()
    job = store.get(job_id)
    terminal.confirm(f"Job {job.id} is {job.state}, {job.done} of {job.total} done. Forget it?", is_sure=is_sure)
    store.remove(job.id)
    click.echo(f"Job {job.id} is gone, with its images and results.")


@command.command()
@job_argument
def retry(job_id: str) -> None:
    """Predict once more the images of a job that have no prediction."""
    job = _store().retry(job_id)
    click.echo(f"{job.total - job.done} images of job {job.id} are in the line again.")


@command.command()
@click.option(
    "--older-than", default=0.0, metavar="HOURS", type=click.FloatRange(0), help="Only those that ended earlier."
)
@terminal.yes_option
def purge(older_than: float, is_sure: bool) -> None:
    """Forget all jobs that have ended, with their results. Open ones stay."""
    store = _store()
    until = time.time() - older_than * 3600
    ended = [job for job in _all(store) if job.ended_at is not None and job.ended_at <= until]
    if not ended:
        terminal.print_note("No such job has ended.")
        return
    terminal.confirm(f"Forget {len(ended)} jobs and their results?", is_sure=is_sure)
    with terminal.progress("Forgetting", len(ended)) as advance:
        for job in ended:
            store.remove(job.id)
            advance()
    click.echo(f"Gone: {len(ended)}.")


def _store() -> JobStore:
    """The jobs of this service. Ends the command where no service has ever run."""
    settings = known_settings.read(*known_settings.TOKENS, "jobs_store")
    permissions.become_owner(settings.state_dir)
    store = stores.of(settings)
    # A service makes its store with its first job; a folder that no service knows is a mistaken one.
    if not (store.exists or (settings.state_dir / state_schema.FILE).exists()):
        raise terminal.Failure(
            f"There have been no jobs in {settings.state_dir}.",
            next_step="Make one with POST /v1/jobs, or look at ENV and STATE_DIR.",
        )
    return store


def _all(store: JobStore) -> list[Job]:
    found: list[Job] = []
    while page := store.list(limit=MOST_ROWS, before=found[-1].id if found else ""):
        found += page
    return found


def _follow(store: JobStore, job_id: str) -> Job:
    job = store.get(job_id)
    with terminal.progress(f"Job {job.id}", job.total) as advance:
        shown = 0
        while True:
            for _ in range(job.done - shown):
                advance()
            shown = max(shown, job.done)
            if not job.is_open:
                return job
            time.sleep(PERIOD_SECONDS)
            job = store.get(job_id)


def _print_results(store: JobStore, job: Job) -> None:
    if job.state != "expired":
        for result in store.all_results(job.id):
            click.echo(json.dumps(told(result), ensure_ascii=False))


def _cells(job: Job) -> tuple[Any, ...]:
    made = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return job.id, job.state, job.task, job.done, job.failed, job.total, made, job.owner or None


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items() if each not in ("", None)) or None
    return value
