"""MLPerf LoadGen's Server scenario and ours against the same server, in turns: p99 within 5 % of each other.

LoadGen draws Poisson arrivals and counts from the moment at which it meant to issue a query, as we do; its own figures
are read from its summary. What asks for it is as plain as can be: threads, each query in one of its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import driver, harness, pictures
from tests.loadtest.proofs import box
from tests.servers import ROOT

RATE, SECONDS, ROUNDS = 60, 25, 11
NEAR = 0.05
CALLERS = 128
SUMMARY = "mlperf_log_summary.txt"
SHARES = {"p50": "50.00", "p90": "90.00", "p95": "95.00", "p99": "99.00"}
DRAWS = 2000
TOKEN = "LOADTEST_TOKEN"  # noqa: S105 - its name
WARM_UP = 40
PATIENCE_SECONDS = 120


def prove(rate: float = RATE, seconds: float = SECONDS, rounds: int = ROUNDS) -> bool:
    """So many rounds of either tool in turns against the real service; the medians of the rounds' p99 are compared.

    Medians, and many short rounds: whom a stall of the machine meets is chance, and a mean would tell of that.
    """
    print(f"{rounds} rounds of {seconds:g} s at {rate:g} a second with each tool, in turns.", flush=True)
    with box.serving() as server:
        return compare(server.url, box.ENV, rate, seconds, rounds, server.token) <= NEAR


def compare(url: str, env: str, rate: float, seconds: float, rounds: int, token: str = "") -> float:
    """How far the median p99 of both tools are apart, as a share; prints each round."""
    rows = [["round", *(f"{tool} {share}" for share in SHARES for tool in ("LoadGen", "ours"))]]
    found = []
    for number in range(rounds):
        theirs = _ask_loadgen(url, rate, seconds, number + 1, token)
        ours = _ask_ours(url, env, rate, seconds, number + 1, token)
        found.append([(theirs[share], ours[share]) for share in SHARES])
        rows.append([str(number + 1), *(f"{value:.1f} ms" for pair in found[-1] for value in pair)])
        print(box.table([rows[0], rows[-1]]), flush=True)
    values = np.array(found)
    for index, share in enumerate(SHARES):
        their_ms, our_ms = np.median(values[:, index, :], axis=0)
        apart = float(our_ms / their_ms - 1)
        low, high = _interval(values[:, index, :])
        both = f"LoadGen {their_ms:.1f} ms, ours {our_ms:.1f} ms"
        print(f"  {share}: {both}: {apart:+.1%} (95 %: {low:+.1%} … {high:+.1%})", flush=True)
    # The last of them is p99.
    return abs(apart)


def _interval(pairs: np.ndarray) -> tuple[float, float]:
    """Of ours over theirs, by drawing rounds again; a single round has no width."""
    rng = np.random.default_rng(1)
    drawn = np.median(pairs[rng.integers(0, len(pairs), (DRAWS, len(pairs)))], axis=1)
    low, high = np.quantile(drawn[:, 1] / drawn[:, 0] - 1, [0.025, 0.975])
    return float(low), float(high)


def _ask_ours(url: str, env: str, rate: float, seconds: float, seed: int, token: str) -> dict[str, float]:
    options = ("--rate", f"{rate:g}", "--seconds", f"{seconds:g}", "--seed", str(seed), "--slo", "patient")
    ran = harness.run(url, *options, env=env, LOADTEST_ALLOW="yes", LOADTEST_TOKEN=token)
    return {share: box.percentiles(ran)[share] for share in SHARES}


def _ask_loadgen(url: str, rate: float, seconds: float, seed: int, token: str) -> dict[str, float]:
    with box.scratch() as folder:
        words = ["--url", url, "--rate", f"{rate:g}", "--seconds", f"{seconds:g}", "--seed", str(seed)]
        command = [sys.executable, "-m", "tests.loadtest.proofs.loadgen", *words, "--folder", str(folder)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, TOKEN: token},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + PATIENCE_SECONDS,
            # As ours does, in a session of its own.
            start_new_session=True,
            preexec_fn=driver.go_first,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return read_summary((folder / SUMMARY).read_text())


def read_summary(text: str) -> dict[str, float]:
    """Percentiles in milliseconds out of LoadGen's summary."""
    return {
        name: float(re.search(rf"^{re.escape(share)} percentile latency \(ns\) *: (\d+)", text, re.M)[1]) / 1e6  # type: ignore[index]
        for name, share in SHARES.items()
    }


# ── LoadGen's side, a process of its own ─────────────────────────────────────────────────────────────────────────────


class Service:
    """What LoadGen calls its system under test: queries go to threads, which share connections."""

    def __init__(self, loadgen: Any, url: str) -> None:
        self._loadgen, self._host = loadgen, url.removeprefix("http://")
        self._pictures = [each for each in pictures.samples() if each.task == "classify"]
        self._queries: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._headers = {"Content-Type": "image/jpeg", "X-Request-Timeout": "10"}
        if os.environ.get(TOKEN):
            self._headers["X-Api-Token"] = os.environ[TOKEN]
        self._nonce = 0
        self._connections = [http.client.HTTPConnection(self._host, timeout=30) for _ in range(CALLERS)]
        self.refused = 0
        for _ in range(CALLERS):
            threading.Thread(target=self._call, daemon=True).start()

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return len(self._pictures)

    def warm_up(self, queries: int) -> None:
        """So many queries before the first that counts, as ours has a warm-up that is not judged."""
        for nonce in range(queries):
            self._ask_anew(self._connections[nonce % 4], nonce % self.count, 2**40 + nonce)

    def issue(self, queries: list[Any]) -> None:
        """LoadGen's moment has come."""
        for each in queries:
            self._queries.put((each.id, each.index))

    def _call(self) -> None:
        while True:
            id, index = self._queries.get()
            self._nonce += 1
            # The one that was used last, as a pool does: the others would idle until the server closes them.
            connection = self._connections.pop()
            self.refused += not self._ask_anew(connection, index, self._nonce)
            self._connections.append(connection)
            # In any case: LoadGen waits for every query.
            response = self._loadgen.QuerySampleResponse(id, 0, 0)
            self._loadgen.QuerySamplesComplete([response])

    def _ask_anew(self, connection: http.client.HTTPConnection, index: int, nonce: int) -> bool:
        """Ask; over a new connection where the server has closed this one, which was idle for long."""
        for _ in range(2):
            try:
                return self.ask(connection, index, nonce)
            except (OSError, http.client.HTTPException):
                connection.close()
        return False

    def ask(self, connection: http.client.HTTPConnection, index: int, nonce: int) -> bool:
        """Whether the answer holds results; the same bytes as our scenario classify_raw sends."""
        body = self._pictures[index].with_nonce(nonce)
        connection.request("POST", "/v1/classify", body, self._headers)
        answer = connection.getresponse()
        data = answer.read()
        return answer.status == 200 and bool(json.loads(data)["results"])


def main() -> int:
    """Run LoadGen once; 1 when an answer was not a right one, for then its latencies mean something else."""
    import mlperf_loadgen as loadgen

    parser = argparse.ArgumentParser(prog="python -m tests.loadtest.proofs.loadgen")
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    service = Service(loadgen, given.url)
    service.warm_up(WARM_UP)
    wanted = loadgen.TestSettings()
    wanted.scenario, wanted.mode = loadgen.TestScenario.Server, loadgen.TestMode.PerformanceOnly
    wanted.server_target_qps = given.rate
    wanted.server_target_latency_ns = 1_000_000_000
    wanted.min_duration_ms = int(given.seconds * 1000)
    wanted.min_query_count = int(given.rate * given.seconds)
    wanted.schedule_rng_seed = wanted.sample_index_rng_seed = wanted.qsl_rng_seed = given.seed
    log = loadgen.LogSettings()
    log.log_output.outdir = str(given.folder)
    log.enable_trace = False
    sut = loadgen.ConstructSUT(service.issue, lambda: None)
    qsl = loadgen.ConstructQSL(service.count, service.count, lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(sut, qsl, wanted, log)
    loadgen.DestroyQSL(qsl)
    loadgen.DestroySUT(sut)
    if service.refused:
        print(f"{service.refused} queries were not answered rightly", file=sys.stderr)
    return int(service.refused > 0)


if __name__ == "__main__":
    sys.exit(main())
