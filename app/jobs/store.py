"""What a store of jobs promises, wherever they lie, and what all of them share. Which one it is: ``stores``."""

from __future__ import annotations

import abc
import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app import errors
from app.errors import CaskError
from app.host import machine
from app.jobs import image_packs
from app.jobs.folder import FOLDER, INCOMING
from app.jobs.image_packs import Pack
from app.jobs.jobs import Claim, Job, Limits, State, Wanted, Webhook
from app.storage import file_locks
from app.texts import packed, unpacked

RETRY_AFTER_SECONDS = 10.0
# An upload that nobody finished: its process ended. No request lives so long.
INCOMING_SECONDS = 7200.0
# No webhook is put off for longer; one that seems to be was put off before the time of day was set back.
LONGEST_WEBHOOK_PAUSE_SECONDS = 10800.0
PAGE_ROWS = 100
FETCHED_ROWS = 1000
MAX_ERROR_CHARACTERS = 200
# Beside the words of a kept failure: those that have values, with their ids, for other languages.
TEXTS = "texts"


class JobStore(abc.ABC):
    """All jobs that this service knows. Opened when first used, safe in threads and processes.

    ``clock`` gives seconds since 1970. Every method that asks where jobs lie raises StateUnusableError when it cannot.
    """

    def __init__(
        self,
        state_dir: Path,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        boot_clock: Callable[[], tuple[str, float]] = machine.boot_clock,
    ) -> None:
        self.folder = state_dir / FOLDER
        self.limits = limits
        self._clock = clock
        self._boot_clock = boot_clock

    def now(self) -> float:
        """Seconds since 1970, by the clock that all who share these jobs go by. Raises StateUnusableError."""
        return self._clock()

    @property
    def exists(self) -> bool:
        """Whether there may be jobs: asking makes nothing that was not there."""
        return True

    def close(self) -> None:  # noqa: B027 - most stores have none of their own
        """Close this thread's connections; the next use opens others."""

    # ── taking jobs ──────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def packing(self) -> Iterator[Pack]:
        """A pack to put images into. What ``add`` did not take over is removed at the end. Raises as ``Pack`` does."""
        pack = Pack(self.folder / INCOMING / secrets.token_hex(12), self.limits)
        try:
            yield pack
        finally:
            if pack.path.parent.name == INCOMING:
                pack.discard()

    @abc.abstractmethod
    def add(self, wanted: Wanted, pack: Pack) -> tuple[Job, bool]:
        """Take a job for good. False: the same was taken before, under the same key.

        Raises IdempotencyError, JobsFullError, StorageFullError.
        """

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @abc.abstractmethod
    def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job. ``owner``: whose it must be; None sees all. Raises JobNotFoundError."""

    @abc.abstractmethod
    def list(
        self, owner: str | None = None, *, limit: int = PAGE_ROWS, before: str = "", is_open: bool = False
    ) -> list[Job]:
        """Jobs, the newest first; ``before``: only those older than this one."""

    @abc.abstractmethod
    def results(self, job_id: str, *, after: int = 0, limit: int = PAGE_ROWS) -> Sequence[dict[str, Any]]:
        """Results with a number above ``after``, by number; at most ``limit``."""

    def all_results(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Every result there is, by number, fetched a thousand at a time."""
        after = 0
        while found := self.results(job_id, after=after, limit=FETCHED_ROWS):
            yield from found
            after = found[-1]["number"]

    @abc.abstractmethod
    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that some are in, and how many images wait."""

    def mark(self) -> Hashable | None:
        """Another one after each change of any job, asked without a query; None where that cannot be told."""
        return None

    def settled_mark(self) -> Hashable | None:
        """The mark, where what is read from now on holds as long as ``mark`` gives the same; else None.

        But results expire by the time of day.
        """
        return None

    # ── taking away ──────────────────────────────────────────────────────────────────────────────────────────────────

    @abc.abstractmethod
    def remove(self, job_id: str, owner: str | None = None) -> Job:
        """Cancel and forget a job, its images and results. Returns it as it was. Raises JobNotFoundError."""

    @abc.abstractmethod
    def retry(self, job_id: str) -> Job:
        """Put images without a prediction back into the line. Raises JobNotFoundError, ChangeRefusedError."""

    @abc.abstractmethod
    def expire(self) -> int:
        """Forget results that were kept long enough, later the jobs too. Returns how many jobs expired."""

    @abc.abstractmethod
    def sweep(self) -> None:
        """Remove the images of jobs that need them no more or are gone, and uploads that nobody finished."""

    # ── the worker's side ────────────────────────────────────────────────────────────────────────────────────────────

    def lock(self) -> int | None:
        """A descriptor that makes this process the worker of this STATE_DIR until it is closed; None when another is.

        The kernel takes it from a process that ends, however it ends.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return file_locks.take(self.folder / "worker.lock")

    @abc.abstractmethod
    def recover(self) -> int:
        """Put what an earlier worker began and did not finish back into the line. Only for who holds the lock."""

    @abc.abstractmethod
    def renew(self) -> int:
        """Say that this worker lives, to be called once a second; how many images of others came back into the line."""

    @abc.abstractmethod
    def has_work(self, paused: Collection[str] = ()) -> bool:
        """Whether an image waits, of another job than the paused ones."""

    @abc.abstractmethod
    def claim(self, paused: Collection[str] = ()) -> Claim | None:
        """Begin one image of a job that is not paused; None when none waits.

        Jobs take turns, so that a small one need not wait for the end of a large one.
        """

    @abc.abstractmethod
    def finish(self, claim: Claim, answer: Mapping[str, Any]) -> Job | None:
        """Write the result of an image, once. Returns the job when this ended it; None also where the job is gone."""

    @abc.abstractmethod
    def release(self, claim: Claim, *, is_counted: bool) -> None:
        """Put an image back into the line. ``is_counted``: whether this attempt says something against the image."""

    @property
    def has_due_webhook(self) -> bool:
        """Whether the end of a job is to be sent now."""
        return self.due_webhook() is not None

    @abc.abstractmethod
    def due_webhook(self, busy: Collection[str] = ()) -> tuple[Job, str, int] | None:
        """A job whose end is to be sent now, to which URL, and how often that was tried; None when none is.

        ``busy``: schemes with hosts, such as ``https://example.com:8443``, that are being sent to at the moment.
        """

    @abc.abstractmethod
    def note_webhook(self, job_id: str, *, attempts: int, error: str, next_at: float | None) -> None:
        """What came of telling it. Without ``next_at`` that was the last try."""

    # ── what they share ──────────────────────────────────────────────────────────────────────────────────────────────

    def _of(self, row: Mapping[str, Any]) -> Job:
        """A job from its row, the names as in the class. Without ``url`` nobody is told of its end."""
        ended_at: float | None = row["ended_at"]
        expires_at = None if ended_at is None else ended_at + self.limits.keep_seconds
        is_over = ended_at is not None and self._age_seconds(ended_at, row["ended_tick"]) >= self.limits.keep_seconds
        state: State = "expired" if is_over else row["state"]
        webhook = None
        if row["url"] is not None:
            webhook = Webhook(row["url"], row["webhook_state"], row["webhook_attempts"], row["webhook_error"])
        return Job(
            id=row["id"],
            owner=row["owner"],
            state=state,
            task=row["task"],
            # The name that stored jobs have.
            params=json.loads(row["wishes"]),
            total=row["total"],
            done=row["done"],
            failed=row["failed"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            ended_at=ended_at,
            expires_at=expires_at,
            webhook=webhook,
        )

    def _tick(self) -> str:
        """This moment by the clock that nobody can set, as it is kept beside the time of day."""
        boot, seconds = self._boot_clock()
        return f"{boot} {seconds:.3f}" if boot else ""

    def _age_seconds(self, at: float, tick: str) -> float:
        """How long ago something was. By the time of day only where the machine was started since: that can be set."""
        boot, _, seconds = tick.rpartition(" ")
        here, now = self._boot_clock()
        return now - float(seconds) if boot and boot == here else self._clock() - at

    def _sweep_incoming(self) -> None:
        """Remove files of uploads that nobody finished on this machine."""
        for path in files(self.folder / INCOMING):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > INCOMING_SECONDS:
                    path.unlink()

    def _full(self, waiting: int) -> errors.JobsFullError:
        return errors.JobsFullError(
            "%(count)s jobs wait or run; at most %(most)s may.",
            hint="Send it again after the time in Retry-After.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
            count=waiting,
            most=self.limits.max_queued,
        )

    def _no_room(self, taken_bytes: int, more_bytes: int) -> errors.StorageFullError:
        return errors.StorageFullError(
            "The jobs take %(taken)s bytes, and this one %(more)s more; at most %(most)s are theirs.",
            hint="Remove jobs whose results you have (DELETE), or come later; the operator sets the limit.",
            retry_after_seconds=image_packs.RETRY_AFTER_SECONDS,
            taken=taken_bytes,
            more=more_bytes,
            most=self.limits.max_disk_bytes,
        )


def params_text(wanted: Wanted) -> str:
    """The options of a job, as they are kept: the version that answers is one of them."""
    return json.dumps({**wanted.params, **wanted.answered_by}, sort_keys=True)


def digest(wanted: Wanted, pack: Pack) -> str:
    """What makes two requests the same request; where and in which form they came does not count."""
    return f"{wanted.task} {json.dumps(dict(wanted.params), sort_keys=True)} {pack.digest} {wanted.webhook_url}"


def receiver(url: str) -> str:
    """The scheme, host and port of a webhook's URL: messages to one of them are sent one after the other."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}".lower()


def webhook_state(error: str, next_at: float | None) -> str:
    """How far telling of an end is, after a try."""
    return "pending" if next_at is not None else "failed" if error else "delivered"


def not_found(job_id: str) -> errors.JobNotFoundError:
    """Nobody knows this job, or not this caller."""
    return errors.JobNotFoundError(
        "There is no job %(name)s.",
        hint="It was removed, or its time is over; GET /v1/jobs lists those that there are.",
        name=ascii(job_id[:80]),
    )


def key_reused(key: str) -> errors.IdempotencyError:
    """The key stands for another request."""
    return errors.IdempotencyError(
        "The Idempotency-Key %(key)s came before with other images or options.",
        hint="Use a new key for a new job; send the same request to ask for the same job again.",
        key=repr(key[:80]),
    )


def check_retry(job: Job) -> None:
    """Whether its images without a prediction can be tried again. Raises ChangeRefusedError."""
    if job.is_open or job.state == "expired" or not job.failed:
        raise errors.ChangeRefusedError(
            "Job %(id)s is %(state)s and has %(failed)s images without a prediction.",
            hint="Only a job that ended, has such images and has not expired can be tried again.",
            id=job.id,
            state=job.state,
            failed=job.failed,
        )


def problem(error: CaskError) -> dict[str, Any]:
    """A failure of one image as it is kept, in the words of problem documents; TEXTS is for ``told``."""
    texts = {name: packed(text) for name, text in (("detail", error.message), ("hint", error.hint)) if text.values}
    return {
        "code": error.code,
        "status": error.status,
        "title": error.title,
        "detail": error.message,
        "hint": error.hint,
        **({TEXTS: texts} if texts else {}),
    }


def told(row: dict[str, Any], said: Callable[[str], str] = str) -> dict[str, Any]:
    """A kept result as callers see it; ``said`` says a text in their language.

    Sentences with values that an older release kept have no ids, and stay in English.
    """
    if "error" not in row:
        return row
    texts = row["error"].get(TEXTS, {})
    problem = {name: value for name, value in row["error"].items() if name != TEXTS}
    for name in ("title", "detail", "hint"):
        problem[name] = said(unpacked(texts.get(name, problem.get(name, ""))))
    return {**row, "error": problem}


def files(folder: Path) -> Iterator[Path]:
    """What lies in a folder; nothing where there is none."""
    return folder.iterdir() if folder.is_dir() else iter(())
