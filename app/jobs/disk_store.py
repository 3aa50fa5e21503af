"""Jobs of one machine: ``STATE_DIR/jobs/`` holds a table of jobs, images and results, and a pack of images a job.

Every process that may write ``STATE_DIR`` sees the same jobs. One worker works them off: it holds a lock that the
kernel takes from it when it ends, however it ends; so what was begun and not finished can only be of one before it.
The result of an image is written in the transaction that takes the image out of the line: there is one, or none yet.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.errors import StateUnusableError
from app.host import machine
from app.jobs import image_packs, store
from app.jobs.folder import IMAGES, TABLE
from app.jobs.image_packs import Pack
from app.jobs.jobs import Claim, Job, Limits, Wanted
from app.jobs.store import MAX_ERROR_CHARACTERS, PAGE_ROWS, JobStore
from app.storage import sqlite
from app.storage.sqlite import Database

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'expired')),
        task TEXT NOT NULL,
        wishes TEXT NOT NULL,
        total INTEGER NOT NULL,
        done INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        started_at REAL,
        ended_at REAL,
        turn INTEGER NOT NULL DEFAULT 0,
        pack_bytes INTEGER NOT NULL,
        key TEXT,
        digest TEXT NOT NULL,
        request_id TEXT NOT NULL
    );
    CREATE UNIQUE INDEX jobs_key ON jobs (owner, key) WHERE key IS NOT NULL;
    CREATE INDEX jobs_created ON jobs (created_at);
    CREATE INDEX jobs_open ON jobs (turn) WHERE state IN ('queued', 'running');
    CREATE TABLE images (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        name TEXT NOT NULL,
        start INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done')),
        attempts INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (job, number)
    ) WITHOUT ROWID;
    CREATE INDEX images_queued ON images (job, number) WHERE state = 'queued';
    CREATE TABLE results (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        answer TEXT NOT NULL,
        PRIMARY KEY (job, number)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE webhooks (
        job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        url TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'pending', 'delivered', 'failed')),
        attempts INTEGER NOT NULL DEFAULT 0,
        next_at REAL,
        error TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE INDEX webhooks_due ON webhooks (next_at) WHERE state = 'pending';
    """,
    # See JobStore._tick.
    "ALTER TABLE jobs ADD COLUMN ended_tick TEXT NOT NULL DEFAULT '';",
)
# Images that have no prediction may be tried again until the job expires.
NEEDS_IMAGES = "state IN ('queued', 'running') OR (state IN ('succeeded', 'failed') AND failed > 0)"
# A job with the one that is told of its end.
JOBS = (
    "SELECT jobs.*, url, webhooks.state AS webhook_state, attempts AS webhook_attempts, error AS webhook_error"
    " FROM jobs LEFT JOIN webhooks ON webhooks.job = jobs.id"
)


class DiskStore(JobStore):
    """All jobs of this STATE_DIR."""

    def __init__(
        self,
        state_dir: Path,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        boot_clock: Callable[[], tuple[str, float]] = machine.boot_clock,
    ) -> None:
        super().__init__(state_dir, limits, clock, boot_clock)
        path = self.folder / TABLE
        # A job that was taken must survive the loss of power. A result need not: it would be computed again.
        self._durable = Database(path, MIGRATIONS, is_durable=True)
        self._quick = Database(path, MIGRATIONS)
        # In nobody's hand any more, but their rows could not be written: a full disk, say.
        self._let_go: list[Claim] = []

    @property
    def exists(self) -> bool:
        """Whether there has ever been a job."""
        return (self.folder / TABLE).exists()

    def close(self) -> None:
        """Close the connections that no thread uses."""
        self._durable.close()
        self._quick.close()

    # ── taking jobs ──────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, wanted: Wanted, pack: Pack) -> tuple[Job, bool]:
        """Take a job; when this returns, it is on the disk. False: the same was taken before, under the same key.

        Raises IdempotencyError, JobsFullError, StorageFullError, StateUnusableError.
        """
        pack.close()
        params, digest = store.params_text(wanted), store.digest(wanted, pack)
        placed: Path | None = None
        try:
            with self._durable.transaction() as connection:
                known = self._known(connection, wanted, digest)
                if known is not None:
                    return known, False
                self._check_room(connection, pack.size_bytes)
                job_id = secrets.token_hex(12)
                row = (job_id, wanted.owner, wanted.task, params, len(pack.entries), self._clock(), pack.size_bytes)
                connection.execute(
                    "INSERT INTO jobs (id, owner, state, task, wishes, total, created_at, pack_bytes, key, digest,"
                    " request_id) VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*row, wanted.key or None, digest, wanted.request_id),
                )
                connection.executemany(
                    "INSERT INTO images (job, number, name, start, size_bytes) VALUES (?, ?, ?, ?, ?)",
                    (
                        (job_id, number, each.name, each.start, each.size_bytes)
                        for number, each in enumerate(pack.entries, start=1)
                    ),
                )
                if wanted.webhook_url:
                    connection.execute("INSERT INTO webhooks (job, url) VALUES (?, ?)", (job_id, wanted.webhook_url))
                placed = self._pack_path(job_id)
                placed.parent.mkdir(exist_ok=True, mode=0o700)
                pack.move(placed)
                return self._job(connection, job_id), True
        except BaseException as error:
            if placed is not None:
                placed.unlink(missing_ok=True)
            if isinstance(error, StateUnusableError) and sqlite.is_full(error.__cause__):
                raise image_packs.disk_full() from error
            raise

    def _known(self, connection: Any, wanted: Wanted, digest: str) -> Job | None:
        """The job that was taken under this key. Raises IdempotencyError where it was another request."""
        if not wanted.key:
            return None
        found = connection.execute(
            "SELECT id, digest FROM jobs WHERE owner = ? AND key = ?", (wanted.owner, wanted.key)
        ).fetchone()
        if found is None:
            return None
        if found["digest"] != digest:
            raise store.key_reused(wanted.key)
        return self._job(connection, found["id"])

    def _check_room(self, connection: Any, more_bytes: int) -> None:
        waiting = connection.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone()[0]
        if waiting >= self.limits.max_queued:
            raise self._full(waiting)
        packed = connection.execute("SELECT coalesce(sum(pack_bytes), 0) FROM jobs").fetchone()[0]
        taken = packed + sqlite.used_bytes(connection)
        if taken + more_bytes > self.limits.max_disk_bytes:
            raise self._no_room(taken, more_bytes)

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job. ``owner``: whose it must be; None sees all. Raises JobNotFoundError, StateUnusableError."""
        with self._quick.reading() as connection:
            job = self._job(connection, job_id)
        if owner is not None and job.owner != owner:
            raise store.not_found(job_id)
        return job

    def list(
        self, owner: str | None = None, *, limit: int = PAGE_ROWS, before: str = "", is_open: bool = False
    ) -> list[Job]:
        """Jobs, the newest first; ``before``: only those older than this one. Raises StateUnusableError."""
        wheres, values = ["1"], list[Any]()
        if owner is not None:
            wheres.append("owner = ?")
            values.append(owner)
        if is_open:
            wheres.append("jobs.state IN ('queued', 'running')")
        if before:
            wheres.append("(created_at, id) < (SELECT created_at, id FROM jobs WHERE id = ?)")
            values.append(before)
        query = f"{JOBS} WHERE {' AND '.join(wheres)} ORDER BY created_at DESC, id DESC LIMIT ?"
        with self._quick.reading() as connection:
            return [self._of(row) for row in connection.execute(query, (*values, limit))]

    def results(self, job_id: str, *, after: int = 0, limit: int = PAGE_ROWS) -> Sequence[dict[str, Any]]:
        """Results with a number above ``after``, by number; at most ``limit``. Raises StateUnusableError."""
        with self._quick.reading() as connection:
            rows = connection.execute(
                "SELECT answer FROM results WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
                (job_id, after, limit),
            ).fetchall()
        return [json.loads(row["answer"]) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state, and how many images wait. Raises StateUnusableError."""
        with self._quick.reading() as connection:
            found = {row[0]: row[1] for row in connection.execute("SELECT state, count(*) FROM jobs GROUP BY state")}
            waiting = connection.execute(
                "SELECT coalesce(sum(total - done), 0) FROM jobs WHERE state IN ('queued', 'running')"
            ).fetchone()[0]
        return {**found, "images_waiting": waiting}

    def mark(self) -> sqlite.Mark | None:
        """As ``JobStore``."""
        return self._quick.mark()

    def settled_mark(self) -> sqlite.Mark | None:
        """As ``JobStore``."""
        return self._quick.settled_mark()

    # ── taking away ──────────────────────────────────────────────────────────────────────────────────────────────────

    def remove(self, job_id: str, owner: str | None = None) -> Job:
        """Cancel and forget a job, its images and results. Returns it as it was.

        Raises JobNotFoundError, StateUnusableError.
        """
        with self._durable.transaction() as connection:
            job = self._job(connection, job_id)
            if owner not in (None, job.owner):
                raise store.not_found(job_id)
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        self._pack_path(job_id).unlink(missing_ok=True)
        return job

    def retry(self, job_id: str) -> Job:
        """Put images without a prediction back into the line. Raises JobNotFoundError, ChangeRefusedError."""
        with self._durable.transaction() as connection:
            job = self._job(connection, job_id)
            store.check_retry(job)
            failed = "SELECT number FROM results WHERE job = ? AND json_extract(answer, '$.error') IS NOT NULL"
            connection.execute(
                f"UPDATE images SET state = 'queued', attempts = 0 WHERE job = ? AND number IN ({failed})",  # noqa: S608
                (job.id, job.id),
            )
            connection.execute(
                f"DELETE FROM results WHERE job = ? AND number IN ({failed})",  # noqa: S608
                (job.id, job.id),
            )
            connection.execute(
                "UPDATE jobs SET state = 'queued', ended_at = NULL, done = done - failed, failed = 0 WHERE id = ?",
                (job.id,),
            )
            connection.execute(
                "UPDATE webhooks SET state = 'waiting', attempts = 0, error = '' WHERE job = ?", (job.id,)
            )
            return self._job(connection, job.id)

    def expire(self) -> int:
        """Forget results that were kept long enough, later the jobs too. Returns how many jobs expired."""
        with self._quick.transaction() as connection:
            ended = self._older(connection, "state IN ('succeeded', 'failed')", self.limits.keep_seconds)
            for job_id in ended:
                connection.execute("DELETE FROM results WHERE job = ?", (job_id,))
                connection.execute("DELETE FROM images WHERE job = ?", (job_id,))
                connection.execute("UPDATE jobs SET state = 'expired' WHERE id = ?", (job_id,))
            for job_id in self._older(connection, "state = 'expired'", 2 * self.limits.keep_seconds):
                connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        return len(ended)

    def _older(self, connection: Any, condition: str, seconds: float) -> Sequence[str]:
        """Jobs in a state that ended so long ago."""
        rows = connection.execute(f"SELECT id, ended_at, ended_tick FROM jobs WHERE {condition}").fetchall()  # noqa: S608
        return [row["id"] for row in rows if self._age_seconds(row["ended_at"], row["ended_tick"]) >= seconds]

    def sweep(self) -> None:
        """Remove the images of jobs that need them no more or are gone, and uploads that nobody finished."""
        with self._durable.transaction() as connection:
            # On the disk before the images go: a job that lost its end with the power must still have them.
            connection.execute(f"UPDATE jobs SET pack_bytes = 0 WHERE NOT ({NEEDS_IMAGES})")  # noqa: S608
            rows = connection.execute(f"SELECT id FROM jobs WHERE {NEEDS_IMAGES}").fetchall()  # noqa: S608
            needed = {row["id"] for row in rows}
            # No job is being taken meanwhile: its pack is put into place in a transaction.
            unneeded = [path for path in store.files(self.folder / IMAGES) if path.name not in needed]
        for path in unneeded:
            path.unlink(missing_ok=True)
        self._sweep_incoming()

    # ── the worker's side ────────────────────────────────────────────────────────────────────────────────────────────

    def recover(self) -> int:
        """Put what an earlier worker began and did not finish back into the line. Only for who holds the lock."""
        with self._quick.transaction() as connection:
            return int(connection.execute("UPDATE images SET state = 'queued' WHERE state = 'running'").rowcount)

    def renew(self) -> int:
        """Put back what this worker could not write the result of. There are no others, and the lock says it lives."""
        while self._let_go:
            # What cannot be put back now either is there again.
            self.release(self._let_go.pop(), is_counted=False)
        return 0

    def has_work(self, paused: Collection[str] = ()) -> bool:
        """Whether an image waits, of another job than the paused ones."""
        query = f"SELECT 1 FROM images WHERE state = 'queued' AND {_not_in('job', paused)} LIMIT 1"  # noqa: S608
        with self._quick.reading() as connection:
            return connection.execute(query, tuple(paused)).fetchone() is not None

    def claim(self, paused: Collection[str] = ()) -> Claim | None:
        """Begin one image of a job that is not paused; jobs take turns."""
        with self._quick.transaction() as connection:
            row = connection.execute(
                f"SELECT * FROM jobs WHERE state IN ('queued', 'running') AND {_not_in('id', paused)} AND EXISTS"  # noqa: S608
                " (SELECT 1 FROM images WHERE job = jobs.id AND state = 'queued') ORDER BY turn, created_at LIMIT 1",
                tuple(paused),
            ).fetchone()
            if row is None:
                return None
            image = connection.execute(
                "SELECT * FROM images WHERE job = ? AND state = 'queued' ORDER BY number LIMIT 1", (row["id"],)
            ).fetchone()
            connection.execute(
                "UPDATE images SET state = 'running', attempts = attempts + 1 WHERE job = ? AND number = ?",
                (row["id"], image["number"]),
            )
            connection.execute(
                "UPDATE jobs SET state = 'running', started_at = coalesce(started_at, ?),"
                " turn = (SELECT max(turn) FROM jobs WHERE state IN ('queued', 'running')) + 1 WHERE id = ?",
                (self._clock(), row["id"]),
            )
        try:
            data = image_packs.read(self._pack_path(row["id"]), image["start"], image["size_bytes"])
        except (OSError, EOFError):
            # Removed meanwhile, and then nobody asks; or lost, and then the empty image is refused by name.
            data = b""
        return Claim(
            job_id=row["id"],
            number=image["number"],
            name=image["name"],
            attempt=image["attempts"] + 1,
            task=row["task"],
            # The name that stored jobs have.
            params=json.loads(row["wishes"]),
            request_id=row["request_id"],
            data=data,
        )

    def finish(self, claim: Claim, answer: Mapping[str, Any]) -> Job | None:
        """Write the result of an image, once. Returns the job when this ended it; None also where the job is gone."""
        with self._last_use(claim), self._quick.transaction() as connection:
            done = connection.execute(
                "UPDATE images SET state = 'done' WHERE job = ? AND number = ? AND state = 'running'",
                (claim.job_id, claim.number),
            ).rowcount
            if not done:
                return None
            connection.execute(
                "INSERT INTO results (job, number, answer) VALUES (?, ?, ?)",
                (claim.job_id, claim.number, json.dumps(answer, separators=(",", ":"))),
            )
            connection.execute(
                "UPDATE jobs SET done = done + 1, failed = failed + ? WHERE id = ?",
                (int("error" in answer), claim.job_id),
            )
            ended = connection.execute(
                "UPDATE jobs SET state = CASE WHEN failed < total THEN 'succeeded' ELSE 'failed' END, ended_at = ?,"
                " ended_tick = ? WHERE id = ? AND done = total",
                (self._clock(), self._tick(), claim.job_id),
            ).rowcount
            if not ended:
                return None
            connection.execute(
                "UPDATE webhooks SET state = 'pending', next_at = ? WHERE job = ?", (self._clock(), claim.job_id)
            )
            return self._job(connection, claim.job_id)

    def release(self, claim: Claim, *, is_counted: bool) -> None:
        """Put an image back into the line. ``is_counted``: whether this attempt says something against the image."""
        with self._last_use(claim), self._quick.transaction() as connection:
            connection.execute(
                "UPDATE images SET state = 'queued', attempts = attempts - ? WHERE job = ? AND number = ?"
                " AND state = 'running'",
                (int(not is_counted), claim.job_id, claim.number),
            )

    def due_webhook(self, busy: Collection[str] = ()) -> tuple[Job, str, int] | None:
        """A job whose end is to be sent now, to which URL, and how often that was tried; None when none is."""
        now = self._clock()
        with self._quick.reading() as connection:
            rows = connection.execute(
                "SELECT job, url, attempts FROM webhooks WHERE state = 'pending' AND (next_at <= ? OR next_at > ?)"
                " ORDER BY next_at",
                (now, now + store.LONGEST_WEBHOOK_PAUSE_SECONDS),
            )
            found = next((row for row in rows if store.receiver(row["url"]) not in busy), None)
            return None if found is None else (self._job(connection, found["job"]), found["url"], found["attempts"])

    def note_webhook(self, job_id: str, *, attempts: int, error: str, next_at: float | None) -> None:
        """What came of telling it. Without ``next_at`` that was the last try."""
        state = store.webhook_state(error, next_at)
        with self._quick.transaction() as connection:
            connection.execute(
                "UPDATE webhooks SET state = ?, attempts = ?, error = ?, next_at = ? WHERE job = ?",
                (state, attempts, error[:MAX_ERROR_CHARACTERS], next_at, job_id),
            )

    @contextlib.contextmanager
    def _last_use(self, claim: Claim) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._let_go.append(claim)
            raise

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pack_path(self, job_id: str) -> Path:
        return self.folder / IMAGES / job_id

    def _job(self, connection: Any, job_id: str) -> Job:
        row = connection.execute(f"{JOBS} WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise store.not_found(job_id)
        return self._of(row)


def _not_in(column: str, values: Collection[str]) -> str:
    """A condition for SQL with a placeholder for each value."""
    return f"{column} NOT IN ({', '.join('?' * len(values))})"
