"""Every metric of the service, declared before it is counted; docs/metrics.md is made from here. A leaf.

Counting costs well under a microsecond and never fails a request. Numbers of all processes meet in ``run/metrics``, see
``shares``; a process takes part after ``begin``.
"""

from __future__ import annotations

import atexit
import bisect
import functools
import http
import itertools
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from app.host import machine
from app.telemetry import post_mortem, shards
from app.telemetry.shards import MetricsShard, Series

log = logging.getLogger("cask.metrics")

Kind = Literal["counter", "gauge", "histogram"]

# Seconds. Finer where the answers of a small model lie; 0.4 is what REQUEST_MAX_WAIT_SECONDS promises by default.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LONG_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)

ROLES = ("web", "ops", "engine", "jobs", "apache")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "other")
# No status of HTTP: the caller went away before the answer was complete.
GONE = "499"
STATUSES = (*(str(int(status)) for status in http.HTTPStatus), GONE)
# For whatever has no place of its own among the values of a label.
OTHER = "other"
MEMORY_PERIOD_SECONDS = 15.0
LULL_PERIOD_SECONDS = 1.0
# 3 to 7 ms each time, of which most is the kernel that looks at all memory.
FORGET_PERIOD_SECONDS = 5.0
# Of a counter with more series than this only those are shown that have counted.
MOST_SHOWN_EMPTY = 40


class UndeclaredError(ValueError):
    """A metric, or a value of one of its labels, that stands in no declaration."""


@dataclass(frozen=True)
class Label:
    """One label: its values, or a pattern and a word for where they come from."""

    values: tuple[str, ...] = ()
    pattern: str = ""
    of: str = ""

    def fits(self, value: str) -> bool:
        """Whether the value was declared."""
        return re.fullmatch(self.pattern, value) is not None if self.pattern else value in self.values


# Their numbers are bounded by the app's routes, its errors and the models it holds.
ROUTE = Label(pattern=r"/[^\s\"]{0,119}|\(none\)", of="the app's addresses, or `(none)`")
CODE = Label(pattern=r"[a-z0-9_]{1,60}", of="the codes in errors.md, or `other`")
MODEL = Label(pattern=r"[A-Za-z0-9._-]{1,64}", of="the models held")
WORD = Label(pattern=r"[^\"\n\\]{0,128}", of="what is held")
VERSION = {"model": MODEL, "version": WORD}


@dataclass(eq=False)
class Metric:
    """One declared metric. ``sentence`` is what a person reads; ``unit`` stands in the name too."""

    kind: Kind
    name: str
    sentence: str
    labels: dict[str, Label] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    # Computed by the process that is asked for the metrics, at that moment; not counted.
    is_looked_up: bool = False

    def __post_init__(self) -> None:
        self._names = tuple(self.labels)
        # By the labels as they were given, with their names: values alone would not tell two that were swapped.
        self._series: dict[tuple[tuple[str, str], ...], tuple[memoryview[float], int]] = {}

    @property
    def unit(self) -> str:
        """From the name: seconds, bytes, images, or empty for plain counts."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in ("seconds", "bytes", "images", "ratio") else ""

    @property
    def size(self) -> int:
        """How many numbers a series has: a histogram its buckets, the one beyond them, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1

    def add(self, amount: float = 1, **labels: str) -> None:
        """Count (counter), or move up or down (gauge). Raises UndeclaredError."""
        values, at = self._series.get(tuple(labels.items())) or self._find(labels)
        with _lock:
            values[at] += amount

    def set(self, value: float, **labels: str) -> None:
        """How a gauge stands in this process. Raises UndeclaredError."""
        values, at = self._series.get(tuple(labels.items())) or self._find(labels)
        with _lock:
            values[at] = value

    def observe(self, value: float, **labels: str) -> None:
        """Note one value of a histogram. Raises UndeclaredError."""
        values, at = self._series.get(tuple(labels.items())) or self._find(labels)
        bucket = at + bisect.bisect_left(self.buckets, value)
        with _lock:
            values[bucket] += 1
            values[at + len(self.buckets) + 1] += value

    def check(self, labels: dict[str, str]) -> tuple[str, ...]:
        """The labels' values in order. Raises UndeclaredError where one was not declared."""
        if tuple(sorted(labels)) != tuple(sorted(self._names)):
            raise UndeclaredError(f"{self.name} has the labels {self._names}, got {tuple(labels)}")
        for name, value in labels.items():
            if not self.labels[name].fits(value):
                raise UndeclaredError(f"{self.name}: {name} is {value!r}, which was not declared")
        return tuple(labels[name] for name in self._names)

    def _find(self, labels: dict[str, str]) -> tuple[memoryview[float], int]:
        """Where these are counted, the first time that they are."""
        values, key = self.check(labels), tuple(labels.items())
        if self.is_looked_up:
            raise UndeclaredError(f"{self.name} is looked up when somebody asks; it cannot be counted")
        full = None
        with _lock:
            found = self._series.get(key)
            if found is None:
                try:
                    found = _share.values, _share.find(Series(self.kind, self.name, values), self.size)
                except OverflowError as error:
                    full = error
                    found = memoryview(bytearray(8 * self.size)).cast("d"), 0
                self._series[key] = found
        if full is not None:
            # Labels are bounded, so this is a fault of ours; callers shall not notice. Lines are counted too, by this
            # same lock.
            log.error("%s %s was not counted in the metrics", self.name, values, exc_info=full)
        return found


DECLARED: dict[str, Metric] = {}


def _declare(
    kind: Kind, name: str, sentence: str, *, buckets: Iterable[float] = (), is_looked_up: bool = False, **labels: Label
) -> Metric:
    found = DECLARED[name] = Metric(kind, name, sentence, labels, tuple(map(float, buckets)), is_looked_up)
    return found


_counter = functools.partial(_declare, "counter")
_gauge = functools.partial(_declare, "gauge")
_looked_up = functools.partial(_gauge, is_looked_up=True)
_histogram = functools.partial(_declare, "histogram", buckets=SECONDS)


def metric(name: str) -> Metric:
    """A declared metric by its name. Raises UndeclaredError."""
    try:
        return DECLARED[name]
    except KeyError:
        raise UndeclaredError(f"the metric {name!r} is not declared in app/telemetry/metrics.py") from None


# ── Requests ──────────────────────────────────────────────────────────────────────────────────────────────────────────

BY = Label(("app", "apache"))
REQUESTS = _counter(
    "cask_http_requests_total",
    "Requests answered, by address and status; `by` says whether the app did or Apache by itself.",
    route=ROUTE,
    method=Label(METHODS),
    status=Label((*STATUSES, OTHER)),
    by=BY,
)
REQUEST_SECONDS = _histogram(
    "cask_http_request_seconds", "Time a request spent in the app, until its answer was complete.", route=ROUTE
)
IN_FLIGHT = _gauge("cask_http_requests_in_flight", "Requests that are in the app at this moment.")
WEB_QUEUE_SECONDS = _histogram(
    "cask_web_queue_seconds", "Time a request waited in Apache for a thread of the app, once its turn had come."
)
REFUSED = _counter(
    "cask_refused_total",
    "Requests, and calls of a JSON-RPC batch, that got no result, by the code in their problem document; `by` says who"
    " refused.",
    code=CODE,
    by=BY,
)
FAILED_PARTS = _counter(
    "cask_failed_parts_total",
    "Parts of an answer that failed while its status says success, by the code in their place: `call` of a JSON-RPC"
    " batch or notification, `member` of an ensemble, `item` of a job, `stream` that broke off.",
    part=Label(("call", "member", "item", "stream")),
    code=CODE,
)
NOT_ADMITTED = _counter(
    "cask_not_admitted_total",
    "Requests that the app did not admit to the engine: `slow`: the wait was too long; `slots`: all places were taken;"
    " `late`: waited until their own deadline.",
    reason=Label(("slow", "slots", "late")),
)

# ── Predictions ───────────────────────────────────────────────────────────────────────────────────────────────────────

TASK = Label(pattern=r"[a-z]{1,20}", of="the tasks")
DECODE_SECONDS = _histogram("cask_decode_seconds", "Time to read, turn and scale all images of one request.", task=TASK)
PREDICTED_IMAGES = _counter("cask_predicted_images_total", "Images that callers got a result for.", task=TASK)
ENGINE_QUEUE_SECONDS = _histogram(
    "cask_engine_queue_seconds", "Time an image waited in the engine for its batch.", model=MODEL
)
ENGINE_PREDICT_SECONDS = _histogram("cask_engine_predict_seconds", "Time to compute one batch.", model=MODEL)
ENGINE_BATCH_IMAGES = _histogram("cask_engine_batch_images", "Images computed together.", buckets=IMAGES, model=MODEL)
ENGINE_IMAGES = _counter(
    "cask_engine_images_total",
    "Images that the engine was asked for: answered, failed (the model or this image), late (nobody waits any more).",
    model=MODEL,
    outcome=Label(("answered", "failed", "late")),
)
MODEL_WORKER_RESTARTS = _counter(
    "cask_model_worker_restarts_total",
    "Processes of models with code that were started again, by why the one before ended: `exit`, `signal` (a crash, or"
    " killed from outside), `memory` (ended by the kernel for want of it, or for more than memory_mb with the processes"
    " that it started), `hung` (no answer in time), `stopped`, `failed` (did not load), `refused` (altered files).",
    model=MODEL,
    reason=Label(("exit", "signal", "memory", "hung", "stopped", "failed", "refused")),
)
ENGINE_UP = _looked_up("cask_engine_up", "1 when the engine answers, else 0.")
ENGINE_WAITING = _looked_up("cask_engine_waiting_images", "Images that wait in the engine.")
ENGINE_QUEUE_SIZE = _looked_up("cask_engine_queue_limit_images", "Images that may wait; beyond that callers get 503.")
ENGINE_WORKERS = _looked_up("cask_engine_workers", "Batches that can be computed at the same time.")
ENGINE_BUSY_WORKERS = _looked_up("cask_engine_busy_workers", "Batches that are computed at this moment.")
ENGINE_OLDEST_BATCH = _looked_up("cask_engine_oldest_batch_seconds", "How long the slowest batch has been computed.")
MODEL_INFO = _looked_up(
    "cask_model_info",
    "1 for each version that is held: what it is, what computes it, what it is for.",
    **VERSION,
    **dict.fromkeys(("digest", "runtime", "precision", "device", "role"), WORD),
)
MODEL_READY = _looked_up(
    "cask_model_ready", "1 when the version predicts, 0 while it loads or after it failed.", **VERSION
)

SELF_TEST_PASSED = _looked_up(
    "cask_self_test_passed", "1 when the version gave its stored answers the last time, else 0.", **VERSION
)
SELF_TEST_TIME = _looked_up(
    "cask_self_test_time_seconds", "When the version was last asked for its stored answers (Unix time).", **VERSION
)
FIGURE = Label(("brightness", "size", "labels", "score"))
DRIFT_PSI = _looked_up(
    "cask_drift_psi",
    "How far the latest input is from the model's sample pictures (population stability index): brightness, size of the"
    " original, labels given, score of the best. Above 0.25 much has changed.",
    **VERSION,
    figure=FIGURE,
)
DRIFT_BY_CHANCE = _looked_up(
    "cask_drift_psi_by_chance",
    "What cask_drift_psi would be about by chance alone; with few images it is large.",
    **VERSION,
    figure=FIGURE,
)
DRIFT_MEAN = _looked_up(
    "cask_drift_mean",
    "Mean of the latest input: brightness (0 to 255), size (megapixels), score of the best (0 to 1).",
    **VERSION,
    figure=FIGURE,
)

# ── Tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────

TOKENS_UNCHECKED = _counter(
    "cask_tokens_unchecked_total",
    "Requests with a token while the store of tokens did not answer: accepted as it was last known, or refused (503).",
    outcome=Label(("accepted", "refused")),
)

# ── Cache ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

CACHE_LOOKUPS = _counter(
    "cask_cache_lookups_total",
    "Questions to the cache of answers: hit, miss, shared (waited for an equal request in flight), off (the caller did"
    " not want it), error (the cache did not answer in time).",
    result=Label(("hit", "miss", "shared", "off", "error")),
)
CACHE_STORED = _counter("cask_cache_stored_total", "Answers put into the cache.")

# ── Jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

JOBS = _counter(
    "cask_jobs_total",
    "Jobs by what became of them; queued counts those taken in.",
    outcome=Label(("queued", "succeeded", "failed", "cancelled", "expired")),
)
JOB_IMAGES = _counter("cask_job_images_total", "Images of jobs that ended, with a result or an error.")
JOB_SECONDS = _histogram("cask_job_seconds", "Time from taking a job in to its end.", buckets=LONG_SECONDS)
JOBS_WAITING = _looked_up("cask_jobs_waiting", "Jobs queued or running; where machines share jobs, on all of them.")
JOB_WEBHOOKS = _counter("cask_job_webhooks_total", "Webhooks sent at a job's end.", outcome=Label(("sent", "failed")))

# ── Processes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

ROLE = Label(ROLES)
READY = _looked_up("cask_ready", "1 when a prediction would succeed, as /readyz says.")
CERTIFICATE_BEGINS = _looked_up(
    "cask_certificate_begins_time_seconds", "Since when the certificate that serves HTTPS is valid (Unix time)."
)
CERTIFICATE_ENDS = _looked_up(
    "cask_certificate_ends_time_seconds", "Until when the certificate that serves HTTPS is valid (Unix time)."
)
CERTIFICATE_REFUSED = _looked_up(
    "cask_certificate_refused",
    "1 while TLS_CERTIFICATE and TLS_KEY hold a pair that cannot serve; the one before it does.",
)
PLUGIN_UP = _looked_up(
    "cask_plugin_up", "1 when the plugin serves, 0 where it is left out: /status says why.", plugin=WORD
)
APPLICATION_REQUESTS = _counter(
    "cask_application_requests_total",
    "Requests to whole applications of others, as Apache answered them; not in cask_http_requests_total.",
    plugin=WORD,
    status=Label((*STATUSES, OTHER)),
)
APPLICATION_SECONDS = _histogram(
    "cask_application_request_seconds", "Time from a request's arrival to the end of its answer.", plugin=WORD
)
PLUGIN_EVENTS = _counter(
    "cask_plugin_events_total", "What plugins count themselves, with cask.count.", plugin=WORD, event=CODE
)
PROCESSES = _looked_up("cask_processes", "Processes alive.", role=ROLE)
RESIDENT_BYTES = _looked_up(
    "cask_process_resident_bytes",
    "Memory in RAM (RSS) of the processes of a role; what they share counts in each.",
    role=ROLE,
)
PROPORTIONAL_BYTES = _gauge(
    "cask_process_proportional_bytes",
    "Memory in RAM (PSS), what processes share divided among them; each looks at itself four times a minute.",
    role=ROLE,
)
MEMORY_LIMIT = _looked_up(
    "cask_memory_limit_bytes", "Memory that the service may use: the machine's, or the container's limit."
)
DISK_FREE = _looked_up("cask_state_free_bytes", "Room left for STATE_DIR.")
RESTARTS = _counter(
    "cask_process_restarts_total",
    "Processes that took the place of one that had ended: `crash` in C (the log has the line), `memory` (ended by the"
    " kernel for want of it), `killed` (from outside, or os._exit), `hang` (ended by the watchdog), `timeout` (ended by"
    " mod_wsgi), `recycled` (reload, or its count of requests), `stopped`.",
    role=ROLE,
    cause=Label(get_args(shards.Ended)),
)
LOG_LINES = _counter("cask_log_lines_total", "Lines logged, by level.", level=Label(("warning", "error")))
ALERTS = _counter(
    "cask_alerts_total",
    "Alerts by channel: sent, failed, held (the same fault was told already), dropped (too many waited).",
    channel=Label(("sentry", "webhook")),
    outcome=Label(("sent", "failed", "held", "dropped")),
)
BUILD_INFO = _looked_up("cask_build_info", "1, with what runs here.", version=WORD, revision=WORD, env=WORD)


# ── Taking part ───────────────────────────────────────────────────────────────────────────────────────────────────────

_lock = threading.Lock()
_share = MetricsShard.in_memory()
_place: tuple[Path, str] | None = None
_watcher: threading.Thread | None = None


def begin(state_dir: Path, role: str) -> None:
    """From here on this process counts where all can see it. Where no file can be made it counts for itself."""
    global _place
    if _place == (state_dir, role):
        return
    try:
        share, ended = MetricsShard.claim(state_dir, role)
    except OSError:
        log.exception("the metrics of this process cannot be shared")
        share, ended = MetricsShard.in_memory(), None
    _use(share)
    _place = (state_dir, role)
    if ended is not None and role in ROLES:
        found = post_mortem.examine(state_dir, share.name, ended)
        RESTARTS.add(role=role, cause=found.cause)
        if found.words:
            log.error("the previous %s process %s", role, found.words)
    if share.name:
        post_mortem.begin(state_dir, share.name)
        post_mortem.listen(share.stop)


def watch_memory(role: str) -> None:
    """Note this process's own memory now and then, in a thread. Others may not look: it gave up root.

    After a rush what was freed goes back to the system. While there is work it does not: that would cost a tenth of
    the speed, for it is asked for again at once. Code that ran once, such as what a runtime makes the program of a new
    size with, is let go in the midst of work too. One thread a process, however many apps are made in it: the kernel
    walks through all memory for each note.
    """
    global _watcher
    if _watcher is not None and _watcher.is_alive():
        return

    def watch() -> None:
        lull, noted_at, forgot_at = machine.Lull(), -math.inf, time.monotonic()
        while True:
            has_trimmed = lull.has_begun()
            if has_trimmed:
                machine.trim_memory()
            elif lull.is_awaited and time.monotonic() - forgot_at >= FORGET_PERIOD_SECONDS:
                machine.forget_mapped_files()
                forgot_at = time.monotonic()
            if has_trimmed or time.monotonic() - noted_at >= MEMORY_PERIOD_SECONDS:
                noted_at = time.monotonic()
                if (found := machine.proportional_bytes()) is not None:
                    PROPORTIONAL_BYTES.set(found, role=role)
            time.sleep(LULL_PERIOD_SECONDS)

    _watcher = threading.Thread(target=watch, name="memory", daemon=True)
    _watcher.start()


def share() -> MetricsShard:
    """Where this process counts at the moment."""
    return _share


def end() -> None:
    """The process ends as it should. What it counted stays."""
    _share.stop()


def _use(share: MetricsShard) -> None:
    global _share
    with _lock:
        _share = share
        for each in DECLARED.values():
            each._series.clear()


def _begin_again() -> None:
    """In the child of a fork: the file is the parent's, and so may be the lock."""
    global _lock, _place
    _lock = threading.Lock()
    if _place is not None:
        state_dir, role = _place
        _place = None
        _share.abandon()
        begin(state_dir, role)


atexit.register(end)
os.register_at_fork(after_in_child=_begin_again)


# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────

Look = Callable[[], Iterable[tuple[Metric, dict[str, str], float]]]
Sums = dict[Metric, dict[tuple[str, ...], list[float]]]


def read(state_dir: Path) -> Sums:
    """The sums over all processes: counters and histograms also of those that ended, gauges of the living."""
    sums: Sums = {}
    for found in shards.read(state_dir):
        for series, values in found.series.items():
            known = DECLARED.get(series.name)
            if known is None or known.size != len(values) or (known.kind == "gauge" and not found.is_alive):
                continue
            row = sums.setdefault(known, {}).setdefault(series.labels, [0.0] * known.size)
            row[:] = [a + b for a, b in zip(row, values, strict=True)]
    for known in DECLARED.values():
        for labels in _always(known):
            sums.setdefault(known, {}).setdefault(labels, [0.0] * known.size)
    return sums


def _always(metric: Metric) -> Iterable[tuple[str, ...]]:
    """The series that are shown before their first event: an increase from nothing to 1 cannot be seen."""
    values = [label.values for label in metric.labels.values()]
    if metric.kind != "counter" or not all(values) or math.prod(map(len, values)) > MOST_SHOWN_EMPTY:
        return ()
    return itertools.product(*values)
