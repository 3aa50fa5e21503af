"""Models in memory and the threads that predict with them. The only place beside ``vision`` that may touch torch."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from app import tasks
from app.engine.batcher import Batch, Batcher, Limits, Work
from app.engine.drift import Summary, Watch
from app.errors import (
    CaskError,
    DeadlineExceededError,
    EngineAwayError,
    EngineBusyError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from app.host import machine
from app.inference.results import Answer, ExplainOptions
from app.models.manifests import Manifest
from app.supervision import pulse
from app.telemetry import metrics

log = logging.getLogger("cask.engine")

Clock = Callable[[], float]
# Told what goes on, one short line each.
Say = Callable[[str], None]
FormOf = Callable[["Model"], str]
# A batch may last so many times what the longest of that model has lasted, before it passes for hung; and before there
# was an explanation, so many times a prediction is expected of one.
ALLOWED_TIMES, EXPLANATION_TIMES = 4.0, 30.0
# How long the next model waits at the start for one that loads; and all that comes after the start, in such times.
LOAD_PATIENCE_SECONDS, START_PATIENCE_TIMES = 15.0, 8
# So many batches in a row are answered before twice as many images of a model that failed are computed together.
WIDEN_AFTER_BATCHES = 4
# How long a model that was replaced may answer what waits for it.
RETIRE_SECONDS = 60.0
# Of the code of tasks and libraries: a thread that sys.exit() ended would serve no model any more.
UNEXPECTED = (Exception, SystemExit)
# Digest of a model → its form.
Announce = Callable[[dict[str, str]], None]


class Model(Protocol):
    """What ``app.runtimes`` gives us: one model, loaded.

    ``computed_by``: runtime and precision, for people. ``device``: ``cpu`` or ``cuda:<n>``. ``processor``: what reports
    of builds call a GPU, else empty. ``best_batch_size``: images that suit it at once; 0 is as the settings say.
    """

    computed_by: str
    device: str
    processor: str
    best_batch_size: int

    def warm_up(self) -> None:
        """Predict once on made-up input, so that the first caller does not pay for it."""

    def golden_check(self) -> None:
        """Compare with the stored answers. Raises GoldenCheckError."""

    def prove(self, say: Say) -> None:
        """Check answers on pictures whose right answer is known. Raises GoldenCheckError, ModelLoadError."""

    def predict(self, images: Sequence[Any], options: Sequence[Any]) -> Sequence[Answer | CaskError]:
        """One answer an image, in order, or why this very image has none.

        Images are uint8, height × width × 3, all of one shape.
        """


@dataclass
class Caution:
    """How many images of a model are computed together while it fails at some: half as many after each failure.

    A batch that fails is computed again image by image, so that one image costs the others of its batch at most their
    own time once more. Where such images keep coming, batches shrink until an image is all that fails. ``most``: 0 is
    as usual.
    """

    most: int = 0
    # Batches that were answered since the last failure or widening.
    passed: int = 0

    def note_failure(self, images: int) -> None:
        """A batch of so many has failed, at least at one image."""
        self.most, self.passed = (images // 2 if images > 1 else self.most), 0

    def note_answer(self) -> bool:
        """A batch was answered. Whether more may be computed together from now on."""
        self.passed += 1
        if self.passed < WIDEN_AFTER_BATCHES:
            return False
        self.most, self.passed = self.most * 2, 0
        return True


@dataclass
class Slot:
    """One model's place in the engine. ``state``: loading, ready, failed. ``form``: what ``FormOf`` says of it."""

    manifest: Manifest
    state: str = "loading"
    model: Model | None = None
    error: str = ""
    hint: str = ""
    load_seconds: float = 0.0
    form: str = ""
    # Of its batches, explanations apart; the first is the warming up.
    longest_seconds: dict[bool, float] = field(default_factory=dict)
    watch: Watch = field(init=False)
    # Of a model that computes in a process of its own: threads that wait for it, so that no other model has to.
    own: Workers | None = None
    caution: Caution = field(default_factory=Caution)

    def __post_init__(self) -> None:
        self.watch = Watch(Summary(self.manifest.labels))

    def allowed_seconds(self, batch: Batch) -> float:
        """How long a batch may last before it passes for hung: some times what this model has needed before."""
        is_explanation = _is_explanation(batch)
        plain = self.longest_seconds.get(False, 0.0)
        known = self.longest_seconds.get(is_explanation, EXPLANATION_TIMES * plain if is_explanation else plain)
        return ALLOWED_TIMES * known * len(batch.works)

    def note_seconds(self, batch: Batch, seconds: float) -> None:
        """A batch has lasted so long, and was answered."""
        key = _is_explanation(batch)
        self.longest_seconds[key] = max(seconds, self.longest_seconds.get(key, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """For the status frame."""
        # Of a model whose process died and does not start again.
        trouble = str(getattr(self.model, "trouble", ""))
        state = "failed" if trouble else self.state
        return {
            "name": self.manifest.name,
            "version": self.manifest.version,
            "digest": self.manifest.digest,
            "state": state,
            "warm": state == "ready",
            "error": trouble or self.error,
            "computed_by": self.model.computed_by if self.model else "",
            "device": self.model.device if self.model else "",
            "processor": self.model.processor if self.model else "",
            "load_seconds": round(self.load_seconds, 3),
            **self.watch.to_dict(),
        }


@dataclass(frozen=True)
class Reply:
    """How a work ended: an answer with its timings in milliseconds and the form of the model, or an error."""

    # Of a model with code: JSON as it wrote it.
    answer: Answer | bytes | None = None
    error: CaskError | None = None
    queue_ms: float = 0.0
    predict_ms: float = 0.0
    batch_size: int = 0
    form: str = ""


class Workers:
    """A few threads that take batches and predict them; one copy of each model serves all threads."""

    def __init__(
        self,
        manifests: Sequence[Manifest],
        load_model: Callable[[Manifest], Model],
        *,
        threads: int,
        max_queue_size: int,
        limits: Callable[[Manifest], Limits],
        clock: Clock = time.monotonic,
        form_of: FormOf = lambda model: "",
        announce: Announce = lambda forms: None,
        load_patience_seconds: float = LOAD_PATIENCE_SECONDS,
    ) -> None:
        """``form_of``: how a model is computed, in short; ``announce`` is told of all that are ready at each change."""
        self.slots = {manifest.key: Slot(manifest) for manifest in manifests}
        self.clock = clock
        # Set when the models of the start are loaded, have failed to, or take so long that nobody should wait for them.
        self.is_started = threading.Event()
        self._load_model = load_model
        self._form_of = form_of
        self._announce = announce
        self._load_patience_seconds = load_patience_seconds
        self._limits = limits
        self._batcher = Batcher(max_queue_size, threads)
        for manifest in manifests:
            self._batcher.register(manifest.key, limits(manifest))
        self._condition = threading.Condition()
        self._is_stopping = False
        self._busy_since: dict[int, float] = {}
        self._busy_with: dict[int, Slot] = {}
        self._allowed_until: dict[int, float] = {}
        self._images_total = 0
        self._batches_total = 0
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"worker-{number}", daemon=True)
            for number in range(threads)
        ]

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start to predict, and load the models in the background."""
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._load_all, name="loader", daemon=True).start()

    def drain(self, timeout_seconds: float) -> bool:
        """Refuse new work, finish what waits and runs. Returns False when the time was not enough."""
        until = self.clock() + timeout_seconds
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
            while (len(self._batcher) or self._busy_since) and self.clock() < until:
                self._condition.wait(min(0.1, max(0.0, until - self.clock())))
            left = self._batcher.drain()
            is_done = not left and not self._busy_since
        for work in left:
            _refuse(work, EngineAwayError("The engine is stopping."))
        for slot in list(self.slots.values()):
            if (own := self._own(slot)) is not None:
                is_done &= own.drain(max(0.0, until - self.clock()))
                _close(slot.model)
        return is_done

    # ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def holds(self, manifest: Manifest) -> bool:
        """Whether this very version, by its digest, is ready to predict."""
        slot = self.slots.get(manifest.key)
        return slot is not None and slot.state == "ready" and slot.manifest.digest == manifest.digest

    def hold(
        self,
        manifest: Manifest,
        say: Say = lambda line: None,
        *,
        is_proven: bool = True,
        commit: Callable[[], None] = lambda: None,
    ) -> None:
        """Load a version beside those that serve; the same one again replaces itself between two batches.

        ``is_proven``: its answers are compared with right ones first. ``commit``: called before it replaces itself;
        what it raises stops that.
        Raises ModelLoadError with the reason; whatever served before goes on.
        """
        slot = Slot(manifest)
        with self._condition:
            served = self.slots.get(manifest.key)
            is_replaced = served is not None and served.state == "ready"
            if not is_replaced:
                self._put(slot)
        self._load(slot, say, is_proven=is_proven)
        if slot.state == "failed":
            raise ModelLoadError(f"{manifest.key} cannot be served: {slot.error}", hint=slot.hint)
        if is_replaced:
            commit()
            self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        """What waits for other weights under the same name is not answered by these: its caller chooses again."""
        key = slot.manifest.key
        with self._condition:
            is_same = self.slots[key].manifest.digest == slot.manifest.digest
            if is_same:
                # The same model in another form: what came in has not changed.
                slot.watch.summary = self.slots[key].watch.summary
            stale = [] if is_same else self._batcher.withdraw(key)
            replaced = self.slots[key]
            self._put(slot)
        self._tell_forms()
        if replaced.own is not None:
            # What waits there is answered first.
            threading.Thread(target=_retire, args=(replaced,), name=f"retire {key}", daemon=True).start()
        for work in stale:
            _refuse(work, _other_digest(slot))

    def release(self, model_key: str) -> bool:
        """Let go of a version once nothing of it waits or runs. Returns False while something does."""
        with self._condition:
            is_busy = any(slot.manifest.key == model_key for slot in self._busy_with.values())
            if is_busy or self._batcher.waiting(model_key):
                return False
            slot = self.slots.get(model_key)
            own = self._own(slot) if slot is not None else None
            if own is not None and not own.release(model_key):
                return False
            self.slots.pop(model_key, None)
            self._batcher.forget(model_key)
        if slot is not None and own is not None:
            own.drain(0.0)
            _close(slot.model)
        log.info("model %s is unloaded", model_key)
        return True

    def _put(self, slot: Slot) -> None:
        self.slots[slot.manifest.key] = slot
        self._register(slot)

    def _register(self, slot: Slot) -> None:
        """Only a loaded model knows what suits the device that computes it."""
        limits, best = self._limits(slot.manifest), slot.model.best_batch_size if slot.model else 0
        most = best or limits.max_batch_size
        if slot.caution.most >= most:
            slot.caution.most = 0
        self._batcher.register(slot.manifest.key, replace(limits, max_batch_size=slot.caution.most or most))

    def _note_failure(self, slot: Slot, batch: Batch) -> None:
        with self._condition:
            slot.caution.note_failure(len(batch.works))
            self._register_again(slot)

    def _note_answer(self, slot: Slot) -> None:
        with self._condition:
            if slot.caution.note_answer():
                self._register_again(slot)

    def _register_again(self, slot: Slot) -> None:
        # It may have been replaced or unloaded meanwhile.
        if self.slots.get(slot.manifest.key) is slot:
            self._register(slot)

    # ── work ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, work: Work) -> None:
        """Put one work in line. Raises ModelNotFoundError, ModelNotReadyError, EngineBusyError, EngineAwayError."""
        gone: list[Work] = []
        try:
            with self._condition:
                # Under the same lock as release: a version that is in line cannot go away.
                slot = self._check_held(work)
                if self._is_stopping:
                    raise EngineAwayError("The engine is stopping.")
                if (own := self._own(slot)) is not None:
                    own.submit(work)
                    return
                self._put_in_line(work, gone)
                self._condition.notify()
        finally:
            for each in gone:
                _refuse(each, _late_error())

    def offer(self, work: Work) -> bool:
        """Put one work behind all others, to be done while the engine has nothing better to do. False: dropped."""
        with self._condition:
            try:
                slot = self._check_held(work)
            except CaskError:
                return False
            if (own := self._own(slot)) is not None:
                return own.offer(work)
            if self._is_stopping or len(self._batcher) or not self._batcher.offer(work):
                return False
            self._condition.notify()
            return True

    def cancel(self, work: Work) -> None:
        """Nobody waits for this work any more; it will not be predicted unless it already is."""
        work.is_cancelled = True

    def status(self) -> dict[str, Any]:
        """Figures for the status frame. ``oldest_batch_seconds`` is how long the slowest has been at its batch."""
        now = self.clock()
        with self._condition:
            busy = [now - since for since in self._busy_since.values()]
            return {
                "models": [slot.to_dict() for slot in self.slots.values()],
                "waiting": len(self._batcher),
                "max_queue_size": self._batcher.max_queue_size,
                "workers": len(self._threads),
                "busy_workers": len(busy),
                "oldest_batch_seconds": round(max(busy, default=0.0), 3),
                "images_total": self._images_total,
                "batches_total": self._batches_total,
                "is_stopping": self._is_stopping,
            }

    def stuck_seconds(self) -> float:
        """For how long the worst batch has lasted beyond what it is allowed; 0 when none has."""
        now = self.clock()
        return max((now - until for until in list(self._allowed_until.values())), default=0.0)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_held(self, work: Work) -> Slot:
        slot = self.slots.get(work.model_key)
        if slot is None:
            raise ModelNotFoundError(
                "The engine does not hold %(name)s.", hint="GET /v1/models lists all.", name=work.model_key
            )
        if slot.state != "ready":
            raise _not_ready(slot)
        if work.digest and work.digest != slot.manifest.digest:
            raise _other_digest(slot)
        return slot

    def _put_in_line(self, work: Work, gone: list[Work]) -> None:
        """Work that nobody waits for any more keeps nobody out of a full queue; it is added to ``gone``."""
        try:
            self._batcher.submit([work])
        except EngineBusyError:
            gone += self._batcher.sweep(self.clock())
            if not gone:
                raise
            self._batcher.submit([work])

    def _load_all(self) -> None:
        """Small ones first. One that takes long, or hangs, holds up nobody: the next one is loaded beside it."""
        loading = []
        for slot in sorted(self.slots.values(), key=lambda slot: _weights_bytes(slot.manifest)):
            thread = threading.Thread(target=self._load, args=(slot,), name=f"loader {slot.manifest.key}", daemon=True)
            thread.start()
            thread.join(self._load_patience_seconds)
            loading.append(thread)
        until = time.monotonic() + START_PATIENCE_TIMES * self._load_patience_seconds
        for thread in loading:
            thread.join(max(0.0, until - time.monotonic()))
        # What is there now stays: later collections, after a version was unloaded, need not look at it (150 ms).
        gc.freeze()
        self.is_started.set()

    def _load(self, slot: Slot, say: Say = lambda line: None, *, is_proven: bool = False) -> None:
        with pulse.loading():
            is_loaded = self._load_now(slot, say, is_proven)
        if is_loaded:
            # Only now: an engine that is stopped as soon as it is ready would else pass for loading, for a minute.
            slot.state = "ready"
            self._tell_forms()
            log.info("model %s is ready after %.1f s", slot.manifest.key, slot.load_seconds)

    def _load_now(self, slot: Slot, say: Say, is_proven: bool) -> bool:
        started = self.clock()
        model: Model | None = None
        try:
            say("loading the weights")
            model = self._load_model(slot.manifest)
            say("warming up")
            warming_since = self.clock()
            model.warm_up()
            slot.longest_seconds[False] = self.clock() - warming_since
            say("comparing with its stored answers")
            model.golden_check()
            if is_proven:
                say("comparing with right answers")
                model.prove(say)
            # By now the runtime has made of the weights what it computes with.
            machine.forget_mapped_files()
        except CaskError as error:
            _close(model)
            self._mark_failed(slot, error.message, error.hint)
        except UNEXPECTED as error:
            _close(model)
            log.exception("loading %s failed in an unexpected way", slot.manifest.key)
            self._mark_failed(slot, f"{type(error).__name__}: {error}", "See the engine's log.")
        else:
            slot.model, slot.load_seconds = model, self.clock() - started
            slot.form = self._form_of(model)
            slot.own = self._apart(slot) if getattr(model, "is_apart", False) else None
            slot.watch.golden = {"at": round(time.time(), 3), "is_passed": True, "error": ""}
            with self._condition:
                if self.slots.get(slot.manifest.key) is slot:
                    self._register(slot)
            return True
        return False

    def _own(self, slot: Slot) -> Workers | None:
        """The threads that wait for this model alone; None where they are these, or it has none."""
        return None if slot.own is self else slot.own

    def _apart(self, slot: Slot) -> Workers:
        """As many threads as it takes calls at once, and a queue as long as ours."""
        most, calls = self._batcher.max_queue_size, getattr(slot.model, "calls", 1)
        own = Workers((), self._load_model, threads=calls, max_queue_size=most, limits=self._limits, clock=self.clock)
        own._put(slot)
        for thread in own._threads:
            thread.start()
        return own

    def _tell_forms(self) -> None:
        with self._condition:
            forms = {slot.manifest.digest: slot.form for slot in self.slots.values() if slot.state == "ready"}
        try:
            self._announce(forms)
        except OSError as error:
            # Kept answers are then not found; new ones are computed.
            log.warning("the list of model runtimes could not be stored: %s", error)

    def _mark_failed(self, slot: Slot, message: str, hint: str) -> None:
        slot.error, slot.hint, slot.state = message, hint, "failed"
        log.error("model %s cannot be served: %s %s", slot.manifest.key, message, hint)

    def _run(self, number: int) -> None:
        # A full line keeps this thread at work for hours; how long one batch may last is looked at apart.
        with pulse.heat.exempt():
            self._work(number)

    def _work(self, number: int) -> None:
        while True:
            batch = self._next_batch(number)
            if batch is None:
                return
            self._predict(batch, self._busy_with[number])
            with self._condition:
                self._busy_since.pop(number, None)
                self._busy_with.pop(number, None)
                self._allowed_until.pop(number, None)
                self._condition.notify_all()

    def _next_batch(self, number: int) -> Batch | None:
        """Wait for a batch. None when the engine stops and nothing waits."""
        while True:
            with self._condition:
                now = self.clock()
                gone = self._batcher.sweep(now)
                # A stop joins no threads.
                batch = self._batcher.take(math.inf if self._is_stopping else now) or self._take_background()
                if batch is not None:
                    # The slot as it is now: another may take its place before the model is asked.
                    slot = self.slots[batch.model_key]
                    self._busy_since[number], self._busy_with[number] = now, slot
                    self._allowed_until[number] = now + slot.allowed_seconds(batch)
                    self._batches_total += not batch.is_background
                    self._images_total += 0 if batch.is_background else len(batch.works)
                    if len(self._batcher):
                        # This thread may have been the only one that knew when the rest is due.
                        self._condition.notify_all()
                elif not gone:
                    if self._is_stopping and not len(self._batcher):
                        return None
                    wake_at = self._batcher.wake_at()
                    self._condition.wait(None if wake_at is None else max(0.0, wake_at - now))
            for work in gone:
                metrics.ENGINE_IMAGES.add(model=_name(work.model_key), outcome="late")
                _refuse(work, _late_error())
            if batch is not None:
                return batch

    def _take_background(self) -> Batch | None:
        """Only while somebody stays free for callers; an engine of one worker must be idle."""
        most_busy = max(0, len(self._threads) - 2)
        return None if self._is_stopping or len(self._busy_with) > most_busy else self._batcher.take_background()

    def _predict(self, batch: Batch, slot: Slot, *, is_again: bool = False) -> None:
        model, started = slot.model, self.clock()
        try:
            if model is None:
                raise _not_ready(slot)
            answers = model.predict([w.image for w in batch.works], [w.options for w in batch.works])
            if len(answers) != len(batch.works):
                raise ValueError(f"{len(answers)} answers for {len(batch.works)} images")
        except CaskError as error:
            self._refuse_all(batch, error)
        except UNEXPECTED as error:
            if not is_again:
                self._note_failure(slot, batch)
            if len(batch.works) > 1:
                self._predict_singly(batch, slot)
                return
            requests = {"request_id": ",".join(work.request_id for work in batch.works)}
            log.exception("predicting a batch of %d with %s failed", len(batch.works), batch.model_key, extra=requests)
            self._refuse_all(
                batch,
                CaskError(
                    "The model failed: %(reason)s.",
                    hint="Tell the operator of this service the request id.",
                    reason=type(error).__name__,
                ),
            )
        else:
            slot.note_seconds(batch, self.clock() - started)
            if any(type(answer) is CaskError for answer in answers):
                # A model with code says so: its own process has computed the batch again.
                self._note_failure(slot, batch)
            elif slot.caution.most and not is_again:
                self._note_answer(slot)
            self._answer_all(batch, answers, started, slot.form)
            if not batch.is_background:
                self._watch(slot, batch, answers)

    def _predict_singly(self, batch: Batch, slot: Slot) -> None:
        """Only the one whose image the model cannot answer shall be told so, and nobody who has gone is computed."""
        for work in batch.works:
            if work.is_cancelled or work.deadline <= self.clock():
                if not batch.is_background:
                    metrics.ENGINE_IMAGES.add(model=_name(work.model_key), outcome="late")
                _refuse(work, _late_error())
            else:
                self._predict(replace(batch, works=[work]), slot, is_again=True)

    def _refuse_all(self, batch: Batch, error: CaskError) -> None:
        if not batch.is_background:
            metrics.ENGINE_IMAGES.add(len(batch.works), model=_name(batch.model_key), outcome="failed")
        for work in batch.works:
            _refuse(work, error)

    def _watch(self, slot: Slot, batch: Batch, answers: Sequence[Answer | CaskError]) -> None:
        """Once the answers are on their way; explanations are no input of their own."""
        if slot.manifest.code is not None:
            slot.watch.summary.count(sum(not isinstance(answer, CaskError) for answer in answers))
            return
        task = tasks.BY_NAME[slot.manifest.task]
        try:
            for work, answer in zip(batch.works, answers, strict=True):
                if not isinstance(answer, CaskError) and not isinstance(work.options, ExplainOptions):
                    slot.watch.summary.note(work.image, work.size, *task.seen(answer))
        except UNEXPECTED:
            # Whatever a model answers: this thread has others to serve.
            log.exception("the drift of %s could not be recorded", batch.model_key)

    def _answer_all(self, batch: Batch, answers: Sequence[Answer | CaskError], started: float, form: str) -> None:
        predict_ms = (self.clock() - started) * 1000
        if not batch.is_background:
            _measure(batch, answers, started, predict_ms / 1000)
        for work, answer in zip(batch.works, answers, strict=True):
            if isinstance(answer, CaskError):
                _refuse(work, answer)
                continue
            queue_ms = (started - work.arrived) * 1000
            _reply(work, Reply(answer, None, queue_ms, predict_ms, len(batch.works), form))


def _measure(batch: Batch, answers: Sequence[Answer | CaskError], started: float, seconds: float) -> None:
    model, failed = _name(batch.model_key), sum(isinstance(answer, CaskError) for answer in answers)
    metrics.ENGINE_PREDICT_SECONDS.observe(seconds, model=model)
    metrics.ENGINE_BATCH_IMAGES.observe(len(batch.works), model=model)
    metrics.ENGINE_IMAGES.add(len(answers) - failed, model=model, outcome="answered")
    if failed:
        metrics.ENGINE_IMAGES.add(failed, model=model, outcome="failed")
    for work in batch.works:
        metrics.ENGINE_QUEUE_SECONDS.observe(started - work.arrived, model=model)


def _retire(slot: Slot) -> None:
    """Let a model that was replaced answer what it has, and end its process."""
    if slot.own is not None:
        slot.own.drain(RETIRE_SECONDS)
    _close(slot.model)


def _close(model: Model | None) -> None:
    """End its process, where it has one."""
    close = getattr(model, "close", None)
    if close is not None:
        close()


def _is_explanation(batch: Batch) -> bool:
    return isinstance(batch.works[0].options, ExplainOptions)


def _weights_bytes(manifest: Manifest) -> int:
    try:
        return manifest.weights_path.stat().st_size
    except OSError:
        return 0


def _name(model_key: str) -> str:
    return model_key.partition("@")[0]


def _refuse(work: Work, error: CaskError) -> None:
    _reply(work, Reply(error=error))


def _reply(work: Work, reply: Reply) -> None:
    """Whatever goes wrong with one reply, the thread lives on for the others."""
    try:
        work.reply(reply)
    except UNEXPECTED:
        log.exception("sending an answer of %s failed", work.model_key)


def _late_error() -> CaskError:
    return DeadlineExceededError(
        "The deadline passed while the image waited for the engine.",
        hint="Allow more time with X-Request-Timeout, or send less at once.",
    )


def _other_digest(slot: Slot) -> ModelNotFoundError:
    return ModelNotFoundError(
        "The engine holds %(name)s with another digest, %(digest)s.",
        hint="Try again later; if it stays so, tell the operator of this service.",
        name=slot.manifest.key,
        digest=slot.manifest.digest,
    )


def _not_ready(slot: Slot) -> ModelNotReadyError:
    if slot.state == "failed":
        return ModelNotReadyError(
            "The model %(name)s failed to load.",
            hint="Take another model, or tell the operator of this service, whose log says why.",
            retry_after_seconds=30.0,
            name=slot.manifest.key,
        )
    return ModelNotReadyError(
        "The model %(name)s is still loading.",
        hint="Send it again shortly.",
        retry_after_seconds=2.0,
        name=slot.manifest.key,
    )
