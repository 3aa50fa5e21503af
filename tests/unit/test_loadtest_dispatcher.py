"""The dispatcher starts requests at their moments, drops what finds no slot, and records how each ended."""

from __future__ import annotations

import errno
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import pytest

from loadtest import ours, request_log
from loadtest.dispatcher import Dispatcher
from loadtest.outcomes import Outcome
from loadtest.pictures import meant_for, samples
from loadtest.request_log import TIMINGS, Recorder, read_timings
from loadtest.scenarios import Caller
from loadtest.sender import Sender

SAMPLES = samples()
RESULT = {"width": 1, "height": 1, "predictions": [{"label": "cone", "score": 1.0}]}
KNOWN = {"golden": dict.fromkeys(meant_for("classify", SAMPLES), RESULT), "digest": "d", "model": "m"}
TIMING = "decode;dur=2.5, queue;dur=0.5, predict;dur=7, engine;dur=8"


@dataclass
class FakeResponse:
    """What geventhttpclient's response offers of itself."""

    status_code: int
    body: bytes

    def read(self) -> bytes:
        return self.body

    def get(self, name: str) -> str | None:
        return {"server-timing": TIMING, "x-cache": "hit"}.get(name)

    def info(self) -> dict[str, str]:
        return {}

    def release(self) -> None:
        """Nothing is held."""


@dataclass
class FakeClients:
    """A pool whose one client answers as it is told, after so many seconds."""

    status: int = 200
    seconds: float = 0.0
    error: Exception | None = None
    asked: list[str] = field(default_factory=list)

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> FakeResponse:
        self.asked.append(path)
        gevent.sleep(self.seconds)
        if self.error:
            raise self.error
        answer = {"model": {"digest": "d"}, "results": [RESULT], "request_id": headers["X-Request-Id"]}
        return FakeResponse(self.status, json.dumps(answer).encode())


def caller(name: str = "classify_raw") -> Caller:
    scenario = ours.named(name, None)
    assert scenario
    return Caller([scenario], [1], {"classify": KNOWN})


def clock() -> Callable[[], float]:
    began = time.perf_counter()
    return lambda: time.perf_counter() - began


def dispatched(
    folder: Path, clients: FakeClients, moments: list[float], slots: int = 8, **options: Any
) -> request_log.Record:
    """The record after the moments have been sent."""
    recorder, now = Recorder(folder, 0), clock()
    sender = Sender(clients, recorder, now, timeout_seconds=options.pop("timeout", 5.0))
    options.setdefault("stop_when_bad", 1.0)
    dispatcher = Dispatcher(sender, caller(), recorder, now, **options)
    dispatcher.open(np.array(moments), slots)
    recorder.close({"planned": len(moments), "stopped_early": dispatcher.stopped_early})
    return request_log.read(folder, 1)


def outcomes(record: request_log.Record) -> list[Outcome]:
    return [Outcome(each) for each in record.rows["outcome"]]


def test_requests_do_not_wait_for_each_other(tmp_path: Path) -> None:
    record = dispatched(tmp_path, FakeClients(seconds=0.2), [0.01, 0.02, 0.03])

    assert outcomes(record) == [Outcome.RIGHT] * 3
    # One after another they would be done 0.2 s apart; a machine that stands still delays all of them together.
    assert np.ptp(record.rows["done"]) < 0.2
    assert (record.rows["sent"] >= record.rows["intended"]).all()


def test_an_arrival_without_a_free_slot_is_dropped_and_not_sent(tmp_path: Path) -> None:
    clients = FakeClients(seconds=0.2)

    record = dispatched(tmp_path, clients, [0.01, 0.02, 0.03], slots=2)

    assert outcomes(record) == [Outcome.RIGHT, Outcome.RIGHT, Outcome.DROPPED]
    assert len(clients.asked) == 2


@pytest.mark.parametrize(
    ("clients", "outcome"),
    [
        (FakeClients(status=503), Outcome.REFUSED),
        (FakeClients(status=429), Outcome.REFUSED),
        (FakeClients(status=500), Outcome.FAILED),
        (FakeClients(status=302), Outcome.FAILED),
        (FakeClients(error=ConnectionResetError()), Outcome.BROKEN),
        (FakeClients(error=TimeoutError()), Outcome.TIMED_OUT),
        (FakeClients(seconds=1.0), Outcome.TIMED_OUT),
    ],
)
def test_each_end_has_its_name(tmp_path: Path, clients: FakeClients, outcome: Outcome) -> None:
    # Short only where the answer is to come too late: a busy machine may take as long for any answer.
    record = dispatched(tmp_path, clients, [0.0], timeout=0.05 if clients.seconds else 60.0)

    assert outcomes(record) == [outcome]
    assert math.isinf(request_log.response_ms(record.rows)[0])


def test_latency_is_counted_from_the_intended_start_though_it_was_sent_late(tmp_path: Path) -> None:
    record = dispatched(tmp_path, FakeClients(), [-1.0])

    assert request_log.response_ms(record.rows)[0] > 1000 > request_log.service_ms(record.rows)[0]


def test_the_servers_own_account_is_kept(tmp_path: Path) -> None:
    (row,) = dispatched(tmp_path, FakeClients(), [0.0]).rows

    assert [float(row[f"{name}_ms"]) for name in ("decode", "queue", "predict", "engine")] == [2.5, 0.5, 7, 8]
    assert math.isnan(row["app_ms"])


def test_a_header_without_times_is_no_time() -> None:
    assert all(math.isnan(value) for value in read_timings("miss, db;desc=x"))


def test_a_run_ends_early_when_most_of_it_fails(tmp_path: Path) -> None:
    record = dispatched(tmp_path, FakeClients(status=500), [number / 1000 for number in range(300)], stop_when_bad=0.5)

    assert 50 <= record.rows.size < 300
    assert record.workers[0]["stopped_early"]


def test_what_this_machine_has_no_room_for_is_counted_by_its_number_and_ends_nothing_early(tmp_path: Path) -> None:
    full = FakeClients(error=OSError(errno.EMFILE, "Too many open files"))
    record = dispatched(tmp_path, full, [number / 1000 for number in range(100)], slots=100, stop_when_bad=0.5)

    assert record.rows.size == 100
    assert [(row["code"], row["count"]) for row in record.workers[0]["refusals"]] == [("EMFILE", 100)]


def test_refusals_end_nothing_early(tmp_path: Path) -> None:
    refusing = FakeClients(status=503)
    # A slot for each: on a busy machine all may come at once, and who finds none is dropped, which ends a run.
    record = dispatched(tmp_path, refusing, [number / 1000 for number in range(100)], slots=100, stop_when_bad=0.5)

    assert record.rows.size == 100


def test_a_worker_that_does_not_close_its_record_is_lost(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 0)
    recorder.add((*[0.0] * (len(request_log.ROW) - len(TIMINGS)), ""))
    recorder.close({})
    # As if it had been killed while it wrote.
    (tmp_path / "worker-0.json").unlink()
    with (tmp_path / "rows-0.bin").open("ab") as file:
        file.write(b"half a row")

    record = request_log.read(tmp_path, 1)

    assert (record.lost_workers, record.rows.size) == (1, 1)


def test_an_example_is_kept_also_where_connections_have_taken_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    recorder = Recorder(tmp_path, 0)
    with monkeypatch.context() as full:
        full.setattr(Path, "open", none_left)
        recorder.example(Outcome.BROKEN, "load-1", 1.0, "no file left")
    recorder.close({})

    assert [row["what"] for row in request_log.examples(tmp_path)] == ["no file left"]


def test_only_the_first_examples_of_a_kind_are_kept(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 0)

    for _ in range(100):
        recorder.example(Outcome.WRONG, "load-1", 1.0, "what was wrong")
    recorder.example(Outcome.MIXED_UP, "load-1", 1.0, "another kind")
    recorder.close({})

    kept = [each["outcome"] for each in request_log.examples(tmp_path)]
    assert (kept.count("WRONG"), kept.count("MIXED_UP")) == (25, 1)


def test_callers_of_the_closed_model_think_after_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thought: list[float] = []
    monkeypatch.setattr(gevent, "sleep", thought.append)
    recorder, moment = Recorder(tmp_path, 0), [0.0]

    def now() -> float:
        moment[0] += 0.001
        return moment[0]

    sender = Sender(FakeClients(), recorder, now, timeout_seconds=5.0)
    dispatcher = Dispatcher(sender, caller(), recorder, now, stop_when_bad=1.0, seed=7)
    dispatcher._ask_again_and_again(0.0, 2.0, 0.5)
    recorder.close({})

    spans = [each for each in thought if each > 0]
    # For another span each time, of the mean that was asked for.
    assert len(set(spans)) > 100
    assert np.mean(spans) == pytest.approx(0.5, rel=0.2)


# ── Jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

JOB = {"id": "j1", "url": "/v1/jobs/j1"}
DONE = {**JOB, "state": "succeeded", "results": [{"number": 1, "model": {"digest": "d"}, **RESULT}]}


@dataclass
class FakeJobs(FakeClients):
    """Takes a job, says these states one after another, and ends with this answer."""

    states: list[str] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=lambda: DONE)

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> FakeResponse:
        self.asked.append(f"{method} {path}")
        if method == "POST":
            return FakeResponse(202, json.dumps({**JOB, "state": "queued"}).encode())
        state = self.states.pop(0) if self.states else ""
        return FakeResponse(200, json.dumps({**JOB, "state": state} if state else self.end).encode())


def sent_job(folder: Path, clients: FakeJobs, timeout: float = 5.0) -> request_log.Record:
    recorder, now = Recorder(folder, 0), clock()
    sender = Sender(clients, recorder, now, timeout_seconds=timeout)
    sender.send(caller("classify_job").next(), 0.0)
    recorder.close({})
    return request_log.read(folder, 1)


def test_a_job_is_followed_until_it_is_done_and_then_removed(tmp_path: Path) -> None:
    clients = FakeJobs(states=["queued", "running"])

    record = sent_job(tmp_path, clients)

    assert outcomes(record) == [Outcome.RIGHT]
    assert clients.asked == ["POST /v1/jobs?task=classify", *["GET /v1/jobs/j1"] * 3, "DELETE /v1/jobs/j1"]


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ({**JOB, "state": "failed"}, Outcome.FAILED),
        ({**DONE, "results": []}, Outcome.FAILED),
        ({**DONE, "id": "j2"}, Outcome.MIXED_UP),
        ({}, Outcome.FAILED),
    ],
)
def test_a_job_that_ends_otherwise_has_its_name(tmp_path: Path, end: dict[str, Any], outcome: Outcome) -> None:
    assert outcomes(sent_job(tmp_path, FakeJobs(end=end))) == [outcome]


def test_a_job_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    assert outcomes(sent_job(tmp_path, FakeJobs(states=["running"] * 1000), timeout=0.2)) == [Outcome.TIMED_OUT]


def test_where_an_answer_came_from_is_kept(tmp_path: Path) -> None:
    (row,) = dispatched(tmp_path, FakeClients(), [0.0]).rows

    assert row["cache"] == request_log.CACHE["hit"]
