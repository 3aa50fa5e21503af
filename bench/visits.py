"""One visit: a contender started fresh, asked in every way that is to be measured, and stopped. Yields samples."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from app.auth.tokens import TokenStore
from bench import load, memory, requests
from bench.contenders import Contender, Running, running
from bench.load import Judge, Lane, Record, Run
from bench.requests import Request
from bench.statistics import Sample, percentile

START_SECONDS = 90.0
START_PERIOD_SECONDS = 0.02
WARM_SECONDS = 1.5
WARM_CALLERS = 8
OVERLOAD_FACTOR = 4.0
CAPACITY_CALLERS = 32
# Ten times the places of our one web process on two cores (app/host/sizing.py).
HAMMER_CALLERS = 880
HEALTH_RATE = 20.0
RECOVERY_RATE = 10.0
RECOVERY_SECONDS = 30.0
# Recovered: an answer comes as fast as three times that of a lone caller, or within this.
RECOVERED_WITHIN_MS = 100.0
RECOVERED_FACTOR = 3.0
ROUTE_CALLERS = 64
# So few that each is asked many times, and has been asked before the clock runs.
KEPT_PICTURES = 20
SHOWN_FROM_MS = 0.05
# Long enough for whoever gives memory back when nobody asks.
REST_SECONDS = 4.0
# What a machine that is otherwise left alone spends on itself; more than that, and somebody else is at work.
QUIET_CORES = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a visit measures: callers of the closed loop, seconds for each, and which further parts.

    ``attempts``: how often to measure again while something else uses the machine.
    """

    callers: tuple[int, ...]
    seconds: float
    parts: frozenset[str]
    attempts: int = 1


@dataclass(frozen=True)
class Pictures:
    """What is sent, and the reference's label of each."""

    images: Sequence[bytes]
    labels: Sequence[str]


@dataclass(frozen=True)
class Attempt:
    """One closed loop. ``spent_seconds``: processor time of the server by process; ``others_cores``: of the rest.

    ``switches``: how often the server's threads gave a core to another.
    """

    run: Run
    spent_seconds: dict[str, float]
    others_cores: float
    switches: int


class VisitFailedError(Exception):
    """A contender did not start, or gave no right answer."""


class Visit:
    """Collects the samples of one contender in one round."""

    def __init__(self, contender: Contender, plan: Plan, pictures: Pictures, round_number: int, say: Say) -> None:
        self.contender = contender
        self.plan = plan
        self.samples: list[Sample] = []
        self._pictures = pictures
        self._round = round_number
        self._say = say
        self._values: dict[str, float] = {}
        self._right = self._wrong = 0

    def run(self) -> list[Sample]:
        """Start, measure, stop. Raises VisitFailedError."""
        with running(self.contender) as server:
            self._wait_first_answer(server)
            if self.contender.predict_path:
                self._measure_predictions(server)
            if "routes" in self.plan.parts:
                self._measure_routes(server)
        return self.samples

    # ── parts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wait_first_answer(self, server: Running) -> None:
        """Ask until an answer is right, as whoever waits for a new server would."""
        make = self._requests if self.contender.predict_path else self._plain_requests
        asked = make()
        while time.perf_counter() - server.began < START_SECONDS:
            if load.once(server.port, next(asked), self._judge).outcome == "right":
                self._keep("start_s", time.perf_counter() - server.began, "first right answer after {:.2f} s")
                return
            if server.process.poll() is not None:
                raise VisitFailedError(f"it ended with {server.process.returncode}; it wrote:\n{server.log_end()}")
            time.sleep(START_PERIOD_SECONDS)
        raise VisitFailedError(f"no right answer within {START_SECONDS:g} s; it wrote:\n{server.log_end()}")

    def _measure_predictions(self, server: Running) -> None:
        load.closed(server.port, self._requests(), self._judge, WARM_CALLERS, WARM_SECONDS)
        if "throughput" in self.plan.parts:
            for callers in self.plan.callers:
                self._measure_throughput(server, callers)
            self._keep("memory_mb", memory.tree_pss_mb(server.pid), "memory {:.0f} MB (PSS)")
            time.sleep(REST_SECONDS)
            self._keep("rest_memory_mb", memory.tree_pss_mb(server.pid), "memory after the rush {:.0f} MB (PSS)")
        if self._right + self._wrong:
            self._keep("agreement_percent", 100 * self._right / (self._right + self._wrong), "agreement {:.2f} %")
        if "overload" in self.plan.parts:
            self._measure_overload(server)
        if "hammer" in self.plan.parts:
            self._measure_hammer(server)
        if "cache" in self.plan.parts and self.contender.kind == "ours":
            self._measure_cache(server)

    def _measure_throughput(self, server: Running, callers: int) -> None:
        attempts = [self._attempt(server, callers)]
        while attempts[-1].others_cores > QUIET_CORES and len(attempts) < self.plan.attempts:
            self._say(f"{callers} callers: others used {attempts[-1].others_cores:.2f} cores; once more")
            attempts.append(self._attempt(server, callers))
        best = min(attempts, key=lambda each: each.others_cores)
        run = best.run
        self._keep(f"others_cores_{callers}", best.others_cores)
        self._keep_processor(best, run.rate("right") + run.rate("wrong"), callers)
        self._right += run.count("right")
        self._wrong += run.count("wrong")
        # A wrong label is a matter of agreement; the work was done all the same.
        answered = run.latencies_ms("right") + run.latencies_ms("wrong")
        self._keep(f"throughput_{callers}_per_s", len(answered) / run.seconds, f"{callers} callers: {{:.1f}} images/s")
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            self._keep(f"{name}_{callers}_ms", percentile(answered, share))
        self._keep(f"generator_cores_{callers}", run.own_cores)
        self._keep(f"unanswered_{callers}", sum(run.count(each) for each in ("refused", "failed", "reset", "late")))

    def _attempt(self, server: Running, callers: int) -> Attempt:
        """Measure once, and see what else ran on this machine meanwhile."""
        before, busy, own = memory.tree_cpu_seconds(server.pid), memory.busy_seconds(), time.process_time()
        switches, began = memory.tree_switches(server.pid), time.perf_counter()
        run = load.closed(server.port, self._requests(), self._judge, callers, self.plan.seconds)
        elapsed = time.perf_counter() - began
        after = memory.tree_cpu_seconds(server.pid)
        spent = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
        others = memory.busy_seconds() - busy - sum(spent.values()) - (time.process_time() - own)
        return Attempt(run, spent, max(0.0, others) / elapsed, memory.tree_switches(server.pid) - switches)

    def _keep_processor(self, attempt: Attempt, rate: float, callers: int) -> None:
        """Processor time and switches of the server for one image; what a faster path would have to save."""
        images = rate * (self.plan.seconds + load.WARM_SECONDS)
        if images:
            each_ms = {name: 1000 * seconds / images for name, seconds in attempt.spent_seconds.items()}
            self._keep(f"processor_{callers}_ms", sum(each_ms.values()))
            self._keep(
                f"switches_{callers}", attempt.switches / images, f"{callers} callers: {{:.0f}} switches an image"
            )
            parts = [f"{name} {ms:.2f}" for name, ms in each_ms.items() if ms >= SHOWN_FROM_MS]
            self._say(f"{callers} callers: processor ms an image: {', '.join(parts)}")

    def _measure_cache(self, server: Running) -> None:
        """A lone caller whose pictures nobody has sent, and one whose pictures were all sent before."""
        missed = load.closed(server.port, self._requests(), self._judge, 1, self.plan.seconds)
        known = list(itertools.islice(self._requests(), KEPT_PICTURES))
        # Each at least once before the clock runs: the load's own warming up is not measured.
        load.closed(server.port, itertools.cycle(known), self._judge, 1, WARM_SECONDS)
        hit = load.closed(server.port, itertools.cycle(known), self._judge, 1, self.plan.seconds)
        miss_ms, hit_ms = (
            percentile(run.latencies_ms("right") + run.latencies_ms("wrong"), 0.5) for run in (missed, hit)
        )
        self._keep("cache_miss_p50_ms", miss_ms, "computed: median {:.2f} ms")
        self._keep("cache_hit_p50_ms", hit_ms, "kept: median {:.2f} ms")
        self._keep("cache_hit_ratio", hit_ms / miss_ms, "kept / computed: {:.3f}")

    def _measure_routes(self, server: Running) -> None:
        token = _token(server) if self.contender.kind == "guarded" else ""
        for name in ("plain", "flask", "health", "static"):
            path = getattr(self.contender, f"{name}_path")
            if not path:
                continue
            if "{job}" in path:
                path = path.format(job=_job(server, token, self._pictures.images[0]))
            asked = requests.get_requests(path, token if name == "flask" else "")
            run = load.closed(server.port, asked, self._judge, ROUTE_CALLERS, self.plan.seconds)
            self._keep(f"{name}_per_s", run.rate(), f"{path}: {{:.0f}} requests/s")
            self._keep(f"{name}_p99_ms", percentile(run.latencies_ms(), 0.99))
            self._keep(f"{name}_resets", run.count("reset"))
            self._keep(f"{name}_generator_cores", run.own_cores)

    # ── overload ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _measure_overload(self, server: Running) -> None:
        capacity = self._capacity(server)
        before_mb = memory.tree_pss_mb(server.pid)
        seconds = max(self.plan.seconds, 5.0)
        lanes = [
            Lane("load", OVERLOAD_FACTOR * capacity, seconds, self._requests(keep_alive=False), self._judge),
            Lane("health", HEALTH_RATE, seconds, self._health_requests(), self._judge, is_regular=True),
            self._recovery_lane(seconds),
        ]
        limit_ms = max(RECOVERED_WITHIN_MS, RECOVERED_FACTOR * self._values.get("p50_1_ms", 0.0))
        run = load.open_loop(server.port, lanes, is_done=lambda records, end: _recovery(records, end, limit_ms) > 0)
        self._keep_overload(run, capacity, limit_ms)
        self._keep("overload_memory_growth_mb", memory.tree_pss_mb(server.pid) - before_mb)

    def _measure_hammer(self, server: Running) -> None:
        """Callers that ask on at once whenever they are refused, by kept connections and by new ones."""
        capacity = self._capacity(server)
        for how, keep_alive in (("kept", True), ("new", False)):
            asked = self._requests(keep_alive=keep_alive)
            seconds = max(self.plan.seconds, 5.0)
            run = load.closed(server.port, asked, self._judge, HAMMER_CALLERS, seconds, heeds_refusals=False)
            goodput = 100 * (run.rate("right") + run.rate("wrong")) / capacity
            self._keep(f"hammer_{how}_goodput_percent", goodput, f"hammered, {how}: goodput {{:.0f}} % of capacity")
            self._keep(f"hammer_{how}_refused_per_s", run.rate("refused"), f"hammered, {how}: {{:.0f}} refusals/s")
            self._keep(f"hammer_{how}_reset", run.count("reset"))
            self._keep(f"hammer_{how}_generator_cores", run.own_cores)

    def _capacity(self, server: Running) -> float:
        """Images a second with 32 callers, measured already or now."""
        if f"throughput_{CAPACITY_CALLERS}_per_s" not in self._values:
            self._measure_throughput(server, CAPACITY_CALLERS)
        return self._values[f"throughput_{CAPACITY_CALLERS}_per_s"]

    def _recovery_lane(self, start: float) -> Lane:
        asked = self._requests(keep_alive=False)
        return Lane("recovery", RECOVERY_RATE, RECOVERY_SECONDS, asked, self._judge, start, is_regular=True)

    def _keep_overload(self, run: Run, capacity: float, limit_ms: float) -> None:
        answered = run.latencies_ms("right") + run.latencies_ms("wrong")
        in_time = [each for each in run.records if each.lane == "load" and each.outcome in ("right", "wrong")]
        end = max((each.intended for each in run.records if each.lane == "load"), default=0.0)
        # Answers that come after the load has ended are no goodput of the time under load; nor is the beginning, when
        # nothing can have been answered yet. The closed loop, which capacity comes from, is read in the same way.
        begin = end - run.seconds + load.WARM_SECONDS
        goodput = sum(1 for each in in_time if begin <= each.finished <= end) / (end - begin)
        self._keep("overload_goodput_percent", 100 * goodput / capacity, "overload: goodput {:.0f} % of capacity")
        self._keep("overload_p99_ms", percentile(answered, 0.99), "overload: p99 of answers {:.0f} ms")
        refused = run.latencies_ms("refused")
        self._keep("overload_refusal_p50_ms", percentile(refused, 0.5), "overload: refusal after {:.1f} ms")
        self._keep("overload_refusal_p99_ms", percentile(refused, 0.99))
        for outcome in ("refused", "failed", "reset", "late"):
            self._keep(f"overload_{outcome}", run.count(outcome))
        health = [each.latency_ms for each in run.records if each.lane == "health"]
        self._keep("overload_health_p99_ms", percentile(health, 0.99), "overload: health p99 {:.0f} ms")
        unhealthy = sum(run.count(each, "health") for each in ("refused", "failed", "reset", "late"))
        self._keep("overload_health_failed", unhealthy)
        recovered = _recovery(run.records, end, limit_ms)
        self._keep("overload_recovery_s", recovered or RECOVERY_SECONDS, "overload: recovered after {:.1f} s")
        self._keep("overload_generator_cores", run.own_cores)

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self, measure: str, value: float, words: str = "") -> None:
        self._values[measure] = value
        self.samples.append(Sample(self.contender.name, measure, self._round, value))
        if words:
            self._say(words.format(value))

    @property
    def _judge(self) -> Judge:
        return self.contender.label_of

    def _requests(self, *, keep_alive: bool = True) -> Iterator[Request]:
        images, labels = self._pictures.images, self._pictures.labels
        return requests.picture_requests(
            self.contender.predict_path, self.contender.form, images, labels, keep_alive=keep_alive
        )

    def _plain_requests(self) -> Iterator[Request]:
        return requests.get_requests(self.contender.plain_path, keep_alive=False)

    def _health_requests(self) -> Iterator[Request]:
        return requests.get_requests(self.contender.health_path, keep_alive=False)


def _token(server: Running) -> str:
    """One that may ask our service for predictions."""
    store = TokenStore(server.folder / "state")
    try:
        return store.create("bench")[1]
    finally:
        store.close()


def _job(server: Running, token: str, image: bytes) -> str:
    """The id of a job of one image that has ended. Raises VisitFailedError."""
    end = time.perf_counter() + START_SECONDS
    told = {"X-Api-Token": token, "Content-Type": "image/jpeg"}
    made = _ask(server, "POST", "/v1/jobs?task=classify", told, image)
    while time.perf_counter() < end:
        found = _ask(server, "GET", f"/v1/jobs/{made.get('id')}", told) if "id" in made else {}
        if found.get("state") == "succeeded":
            return str(made["id"])
        time.sleep(START_PERIOD_SECONDS)
        if "id" not in made:
            # The model is not there yet.
            made = _ask(server, "POST", "/v1/jobs?task=classify", told, image)
    raise VisitFailedError(f"no job succeeded within {START_SECONDS:g} s; the last answer: {made}")


def _ask(server: Running, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> dict[str, Any]:
    line = HTTPConnection("127.0.0.1", server.port, timeout=START_SECONDS)
    try:
        line.request(method, path, body, headers)
        found: dict[str, Any] = json.loads(line.getresponse().read())
        return found
    finally:
        line.close()


def wait_for_quiet(seconds: float, say: Say) -> None:
    """Wait until nothing else uses the machine, at most so long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        before = memory.busy_seconds()
        time.sleep(1.0)
        others = memory.busy_seconds() - before
        if others <= QUIET_CORES:
            return
        say(f"others use {others:.2f} cores; waiting")
        time.sleep(2.0)


def _recovery(records: Sequence[Record], end: float, limit_ms: float) -> float:
    """Seconds from the end of the load to the first answer that is fast again; 0 when there was none yet."""
    fast = (
        each.finished - end
        for each in records
        if each.lane == "recovery" and each.outcome in ("right", "wrong") and each.latency_ms <= limit_ms
    )
    return min(fast, default=0.0)
