"""Jobs that several machines share: in a Redis, with the images that wait. Which machine took a job plays no part.

Each change is one script in the folder ``lua``, done whole or not at all. Every worker has a lease, which it renews; an
image that it begins is claimed under a token. When a lease ends, its images go back into the line, and the token is
worth nothing: a worker that was only slow cannot write a second result.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.errors import CaskError, StateUnusableError
from app.jobs import image_packs, store
from app.jobs.image_packs import Pack
from app.jobs.jobs import Claim, Job, Limits, Wanted
from app.jobs.redis_link import Link
from app.jobs.store import MAX_ERROR_CHARACTERS, PAGE_ROWS, JobStore

# Its number is that of the form in which things lie there; see lua/common.lua.
PREFIX = "cask:jobs:1:"
# A worker that was not heard of for so long is dead to all others. By Redis' own clock.
LEASE_SECONDS = 15.0
# Room that is held for images on their way from this process to Redis.
UPLOAD_SECONDS = 600.0
UPLOADED_BYTES = 1 << 20
# What Redis takes for an image besides its bytes, and for a job; about.
IMAGE_ROW_BYTES, JOB_ROW_BYTES = 300, 2000
EXPIRED_AT_ONCE = 100
# So long nobody else sends a message that one has begun to send.
TELLING_SECONDS = 60.0
WORKER_BYTES = 64

# As the library gives it, or names and values in turn, as a script does.
_Hash = Mapping[bytes, bytes] | Sequence[bytes]


class RedisStore(JobStore):
    """All jobs in one Redis. What is on its way there from a caller lies in STATE_DIR for a moment."""

    def __init__(
        self,
        state_dir: Path,
        limits: Limits,
        link: Link,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(state_dir, limits, clock or link.now)
        self.worker = secrets.token_hex(8)
        self._link = link
        self._predecessor = ""
        self._lock = threading.Lock()
        self._last_token = 0
        self._in_hand: set[int] = set()

    # ── taking jobs ──────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, wanted: Wanted, pack: Pack) -> tuple[Job, bool]:
        """Take a job; when this returns, Redis has it all. False: the same was taken before, under the same key.

        Raises IdempotencyError, JobsFullError, StorageFullError, StateUnusableError.
        """
        pack.close(is_synced=False)
        more_bytes = pack.size_bytes + len(pack.entries) * IMAGE_ROW_BYTES + JOB_ROW_BYTES
        same = (wanted.owner, wanted.key, store.digest(wanted, pack), self.limits.max_queued)
        upload = (secrets.token_hex(12), more_bytes)
        reserved = self._run("reserve", *same, *upload, self.limits.max_disk_bytes, UPLOAD_SECONDS)
        if reserved[0] != b"reserved":
            return self._taken(wanted, more_bytes, *reserved)
        try:
            self._upload(upload[0], pack)
            about = (len(pack.entries), wanted.task, store.params_text(wanted), wanted.request_id, wanted.webhook_url)
            taken = self._run("add", *same, *upload, secrets.token_hex(12), repr(self._clock()), *about)
            return self._taken(wanted, more_bytes, *taken)
        finally:
            # What was taken is there no more. What cannot be dropped now is swept away later.
            with contextlib.suppress(CaskError):
                self._run("drop", *upload)

    def _taken(self, wanted: Wanted, more_bytes: int, outcome: bytes, said: Any = None) -> tuple[Job, bool]:
        """The job, and whether it is new. Raises what speaks against it."""
        if outcome in (b"taken", b"known"):
            return self._job(said), outcome == b"taken"
        if outcome == b"reused":
            raise store.key_reused(wanted.key)
        if outcome == b"full":
            raise self._full(said)
        if outcome == b"no room":
            raise self._no_room(said, more_bytes)
        raise StateUnusableError(
            "The images of the job were lost in Redis before it was taken.",
            hint="Send it again; if that happens often, tell the operator of this service.",
        )

    def _upload(self, token: str, pack: Pack) -> None:
        key, fields, size_bytes = f"{PREFIX}upload:{token}", [], 0
        for number, each in enumerate(pack.entries, start=1):
            fields += [number, image_packs.read(pack.path, each.start, each.size_bytes), f"n{number}", each.name]
            size_bytes += each.size_bytes
            if size_bytes > UPLOADED_BYTES or number == len(pack.entries):
                self._link.ask("HSET", key, *fields)
                fields, size_bytes = [], 0

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job. ``owner``: whose it must be; None sees all. Raises JobNotFoundError, StateUnusableError."""
        found = self._link.ask("HGETALL", f"{PREFIX}job:{job_id}")
        if not found or owner not in (None, (job := self._job(found)).owner):
            raise store.not_found(job_id)
        return job

    def list(
        self, owner: str | None = None, *, limit: int = PAGE_ROWS, before: str = "", is_open: bool = False
    ) -> list[Job]:
        """Jobs, the newest first; ``before``: only those older than this one. Raises StateUnusableError."""
        return [self._job(each) for each in self._run("list", *_whose(owner), "open" if is_open else "", before, limit)]

    def results(self, job_id: str, *, after: int = 0, limit: int = PAGE_ROWS) -> Sequence[dict[str, Any]]:
        """Results with a number above ``after``, by number; at most ``limit``. Raises StateUnusableError."""
        key = f"{PREFIX}results:{job_id}"
        return [
            json.loads(each) for each in self._link.ask("ZRANGEBYSCORE", key, f"({after}", "+inf", "LIMIT", 0, limit)
        ]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state, and how many images wait. Raises StateUnusableError."""
        found = _texts(self._link.ask("HGETALL", f"{PREFIX}counts"))
        found.pop("bytes", None)
        waiting = int(found.pop("images_waiting", 0))
        return {**{state: int(number) for state, number in found.items() if int(number)}, "images_waiting": waiting}

    # ── taking away ──────────────────────────────────────────────────────────────────────────────────────────────────

    def remove(self, job_id: str, owner: str | None = None) -> Job:
        """Cancel and forget a job, its images and results. Returns it as it was.

        Raises JobNotFoundError, StateUnusableError.
        """
        was = self._run("remove", job_id, *_whose(owner))
        if was is None:
            raise store.not_found(job_id)
        return self._job(was)

    def retry(self, job_id: str) -> Job:
        """Put images without a prediction back into the line. Raises JobNotFoundError, ChangeRefusedError."""
        job = self.get(job_id)
        store.check_retry(job)
        again = self._run("retry", job_id, repr(self._clock() - self.limits.keep_seconds))
        # Somebody else was faster.
        return self.get(job_id) if again is None else self._job(again)

    def expire(self) -> int:
        """Forget results that were kept long enough, later the jobs too. Returns how many jobs expired."""
        until = self._clock() - self.limits.keep_seconds
        expired = 0
        while found := self._run("expire", repr(until), repr(until - self.limits.keep_seconds), EXPIRED_AT_ONCE):
            expired += found
        return expired

    def sweep(self) -> None:
        """Remove uploads that nobody finished; images go by themselves when their job needs them no more."""
        self._sweep_incoming()
        self._run("sweep")

    # ── the worker's side ────────────────────────────────────────────────────────────────────────────────────────────

    def lock(self) -> int | None:
        """One worker for each STATE_DIR. It leaves its name there, for the next one to clear up after."""
        descriptor = super().lock()
        if descriptor is not None:
            self._predecessor = os.pread(descriptor, WORKER_BYTES, 0).decode("ascii", "replace")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self.worker.encode(), 0)
        return descriptor

    def recover(self) -> int:
        """Put what this machine's earlier worker, and any whose lease has ended, began back into the line."""
        again = self._renew(self._predecessor)
        self._predecessor = ""
        return again

    def renew(self) -> int:
        """Renew the lease, and put back what others began whose leases have ended; how many images that were."""
        return self._renew("")

    def _renew(self, dead: str) -> int:
        with self._lock:
            known = (self._last_token + 1, *self._in_hand)
        return int(self._run("renew", self.worker, LEASE_SECONDS, dead, *known))

    def has_work(self, paused: Collection[str] = ()) -> bool:
        """Whether an image waits, of another job than the paused ones."""
        waiting = self._link.ask("ZRANGE", f"{PREFIX}line", 0, len(paused))
        return any(job_id.decode() not in paused for job_id in waiting)

    def claim(self, paused: Collection[str] = ()) -> Claim | None:
        """Begin one image of a job that is not paused; jobs take turns."""
        token = self._take_in_hand()
        found = None
        try:
            found = self._run("claim", self.worker, LEASE_SECONDS, token, repr(self._clock()), *paused)
        finally:
            if found is None:
                self._let_go(token)
        if found is None:
            return None
        job_id, number, attempt, name, data, row = found
        job = _texts(row)
        return Claim(
            job_id=job_id.decode(),
            number=int(number),
            name=(name or b"").decode(),
            attempt=attempt,
            task=job["task"],
            # The name that stored jobs have.
            params=json.loads(job["wishes"]),
            request_id=job["request_id"],
            # Lost, if an operator removed it: then the empty image is refused by name.
            data=data or b"",
            token=token,
        )

    def finish(self, claim: Claim, answer: Mapping[str, Any]) -> Job | None:
        """Write the result of an image, once. Returns the job when this ended it; None also where the job is gone."""
        text = json.dumps(answer, separators=(",", ":"))
        with self._last_use(claim) as claimed:
            ended = self._run("finish", *claimed, text, int("error" in answer), repr(self._clock()))
        return None if ended is None else self._job(ended)

    def release(self, claim: Claim, *, is_counted: bool) -> None:
        """Put an image back into the line. ``is_counted``: whether this attempt says something against the image."""
        with self._last_use(claim) as claimed:
            self._run("release", *claimed, int(is_counted))

    @property
    def has_due_webhook(self) -> bool:
        """Whether the end of a job is to be told now, and nobody is at it."""
        key, now = f"{PREFIX}webhooks", self._clock()
        spans = (("-inf", repr(now)), (f"({now + store.LONGEST_WEBHOOK_PAUSE_SECONDS!r}", "+inf"))
        return any(self._link.ask("ZRANGEBYSCORE", key, *span, "LIMIT", 0, 1) for span in spans)

    def due_webhook(self, busy: Collection[str] = ()) -> tuple[Job, str, int] | None:
        """A job whose end is to be sent now, to which URL, and how often that was tried; None when none is.

        Nobody else gets it before a minute has passed, or ``note_webhook`` has said what came of it.
        """
        now = self._clock()
        far = now + store.LONGEST_WEBHOOK_PAUSE_SECONDS
        found = self._run("take_webhook", repr(now), repr(now + TELLING_SECONDS), repr(far), *busy)
        if found is None:
            return None
        job = self._job(found)
        assert job.webhook is not None
        return job, job.webhook.url, job.webhook.attempts

    def note_webhook(self, job_id: str, *, attempts: int, error: str, next_at: float | None) -> None:
        """What came of telling it. Without ``next_at`` that was the last try."""
        state = store.webhook_state(error, next_at)
        moment = "" if next_at is None else repr(next_at)
        self._run("note_webhook", job_id, state, attempts, error[:MAX_ERROR_CHARACTERS], moment)

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_in_hand(self) -> int:
        """A token that no other image of this worker has had."""
        with self._lock:
            self._last_token += 1
            self._in_hand.add(self._last_token)
            return self._last_token

    def _let_go(self, token: int) -> None:
        """Whatever is claimed under it in Redis goes back into the line with the next ``renew``."""
        with self._lock:
            self._in_hand.discard(token)

    @contextlib.contextmanager
    def _last_use(self, claim: Claim) -> Iterator[tuple[Any, ...]]:
        try:
            yield self.worker, claim.token, claim.job_id, claim.number
        finally:
            self._let_go(claim.token)

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._link.run(script, PREFIX, *arguments)

    def _job(self, found: _Hash) -> Job:
        row: dict[str, Any] = {"started_at": None, "ended_at": None, "ended_tick": "", "url": None, **_texts(found)}
        numbers = ("total", "done", "failed", "webhook_attempts")
        moments = ("created_at", "started_at", "ended_at")
        row.update({name: int(row[name]) for name in numbers if name in row})
        row.update({name: float(row[name]) for name in moments if row[name] is not None})
        return self._of(row)


def _texts(found: _Hash) -> dict[str, Any]:
    """A hash of Redis."""
    pairs = found.items() if isinstance(found, Mapping) else zip(found[::2], found[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}


def _whose(owner: str | None) -> tuple[str, str]:
    return ("all", "") if owner is None else ("owner", owner)
