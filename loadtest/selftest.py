"""The self-test: a faulty server is given faults one by one, and this tool must find each."""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loadtest import harness, pictures
from loadtest.harness import Ran, arrived_at, begin, run, told
from loadtest.statuses import Status, UsageError

# On a machine that others use, a figure of time may be disturbed; so often is it measured again before it counts.
TRIES = 3
PLANTED_LEAST = 20


@dataclass(frozen=True)
class Finding:
    """What was looked for, and whether it was found."""

    name: str
    is_right: bool
    found: str
    expected: str


def stall() -> Finding:
    """A server that freezes 2 s in every 10 s under 100 a second: p95 is about 1.6 s, whatever a closed loop says."""
    with harness.faulty_server(slots=64, service_ms=5, stall_every=10, stall_seconds=2) as server:
        # A whole number of periods is judged, so that it does not matter where they begin.
        ran = run(server.url, "--rate", "100", "--seconds", "30", "--slots", "1000")
    p95 = (ran.figures.get("response_ms") or {}).get("p95") or 0.0
    return Finding("stall 2 s in 10 s: p95", 1400 <= p95 <= 1800, f"{p95:.0f} ms", "1400 … 1800 ms")


def generator_lag() -> Finding:
    """2 000 a second from one worker start on time."""
    with harness.faulty_server(slots=1000, service_ms=1) as server:
        ran = run(server.url, "--rate", "2000", "--seconds", "8", "--slots", "1000")
    lag = (ran.figures.get("lag_ms") or {}).get("p99") or 1e9
    offered = ran.figures.get("offered_rps") or 0.0
    return Finding(
        "lag p99 at 2 000/s a worker", lag < 3 and offered > 1900, f"{lag:.2f} ms at {offered:.0f}/s", "below 3 ms"
    )


def generator_cost() -> Finding:
    """One request costs little, with oracle, number and record: no more than a bare loop that does none of that."""
    with harness.faulty_server(slots=1000, service_ms=1) as server:
        bare = [_bare_cost(server.url)]
        ran = run(server.url, "--rate", "1500", "--seconds", "8", "--slots", "1000")
        bare.append(_bare_cost(server.url))
    cost = ((ran.figures.get("generator") or {}).get("cpu_us_per_request")) or 1e9
    ratio = cost / statistics.mean(bare)
    # A busy machine makes both dearer, by its caches.
    is_right = cost <= 150 or ratio <= 1
    return Finding(
        "processor time a request", is_right, f"{cost:.0f} µs, {ratio:.2f} of a bare loop", "at most 150 µs, or 1.00"
    )


def _bare_cost(url: str, count: int = 2000) -> float:
    """Microseconds of processor time a request in the standard library's client, one connection, nothing judged."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    images = [sample.data for sample in pictures.samples() if sample.task == "classify"]
    used = time.process_time()
    for number in range(count):
        headers = {"Content-Type": "image/jpeg", "X-Request-Id": f"bare-{number}"}
        connection.request("POST", "/v1/classify", images[number % len(images)], headers)
        connection.getresponse().read()
    used = time.process_time() - used
    connection.close()
    return used / count * 1e6


def search_finds_the_limit() -> Finding:
    """Four slots of 10 ms bear 400 a second; queueing keeps what can be promised a little below.

    Rates far apart, since near its limit a queue needs minutes to show what it does: one that is a little too much, one
    between it and the first, and both once more for longer. What many rates do to a search is simulated.
    """
    least = 290
    rates = ("--start", f"{least}", "--most", "421", "--resolution", "0.21")
    with (
        harness.faulty_server(slots=4, service_ms=10) as server,
        tempfile.TemporaryDirectory(prefix="cask-loadtest-") as scratch,
    ):
        options = (*rates, "--seconds", "12", "--folder", f"{scratch}/search", "--mix", "classify")
        with begin("search", *options, url=server.url) as process:
            try:
                for line in process.stdout or ():
                    if "/s  " not in line:
                        continue
                    print(f"        searching {line.strip()}", flush=True)
                    if float(line.split("/s")[0]) < least:
                        # This machine is too busy for the answer to be right any more.
                        process.terminate()
                        break
            except BaseException:
                process.terminate()
                raise
        path = Path(scratch) / "search" / "test-capacity.json"
        rate = json.loads(path.read_text())["capacity_rps"] if path.exists() else 0.0
    return Finding(
        "search on 4 slots × 10 ms", 340 <= rate <= 400, f"{rate:.0f}/s, exit {process.returncode}", "340 … 400/s"
    )


def mix_ups() -> Finding:
    """Each swapped answer is called mixed up, and none wrong."""
    return _planted("swapped", "mixed_up", "wrong", swap_every=80)


def wrong_answers() -> Finding:
    """Each answer of nobody's is called wrong, and none mixed up."""
    return _planted("answers of nobody", "wrong", "mixed_up", wrong_every=80)


def score_errors() -> Finding:
    """Each answer with a score that is off is called wrong, and none mixed up: it is no fault of threads."""
    return _planted("scores that are off", "wrong", "mixed_up", score_error_every=80)


def _planted(name: str, kind: str, other: str, **faults: object) -> Finding:
    with harness.faulty_server(slots=32, service_ms=2, **faults) as server:
        ran = run(server.url, "--rate", "400", "--seconds", "5")
        planted = told(server.url)["planted"]
    counts = ran.figures.get("counts") or {}
    # The warm-up's are in the verdict, too; counts are of what is judged.
    check: dict[str, str] = next(
        (each for each in ran.table.get("checks", ()) if each["name"].startswith(kind[:5])), {"found": "0"}
    )
    is_right = (
        ran.status == Status.FAIL and int(check["found"]) == planted >= PLANTED_LEAST and not counts.get(other, 1)
    )
    found = f"exit {ran.status}, {check['found']} of {planted} {kind.replace('_', ' ')}, {counts.get(other)} otherwise"
    return Finding(f"{name}, once in 80", is_right, found, f"exit 1, all of at least {PLANTED_LEAST}, 0 otherwise")


def healthy() -> Finding:
    """A server without faults passes."""
    with harness.faulty_server(slots=32, service_ms=5) as server:
        ran = run(server.url, "--rate", "100", "--seconds", "4", "--slo", "patient")
    return _ended("no fault", ran, Status.PASS)


def leak() -> Finding:
    """A server that keeps 100 kB of each request is found by its memory, though every answer is right and quick."""
    soak = ("--profile", "soak", "--rate", "50", "--seconds", "14", "--warm-up", "1", "--slo", "patient")
    with harness.faulty_server(slots=32, service_ms=2, leak_bytes=100_000) as server:
        ran = run(server.url, *soak)
    growth: dict[str, str] = next((each for each in ran.table.get("checks", ()) if each["name"] == "memory growth"), {})
    is_right = ran.status == Status.FAIL and growth.get("status") == "FAIL"
    return Finding(
        "memory leaks", is_right, f"exit {ran.status}, {growth.get('found', 'nothing')}", "exit 1, by memory"
    )


def no_requests() -> Finding:
    """A run without a judged request proves nothing."""
    with harness.faulty_server() as server:
        ran = run(server.url, "--rate", "0.01", "--seconds", "2")
    return _ended("no requests", ran, Status.INVALID)


def killed_worker() -> Finding:
    """A worker that is killed in mid-run takes the verdict with it."""
    with harness.faulty_server() as server, tempfile.TemporaryDirectory(prefix="cask-loadtest-") as scratch:
        folder = Path(scratch) / "run"
        found: list[Ran] = []

        def go() -> None:
            options = ("--rate", "50", "--seconds", "5", "--processes", "2", "--timeout", "1")
            found.append(run(server.url, *options, folder=folder))

        thread = threading.Thread(target=go)
        thread.start()
        _kill_worker(folder)
        thread.join()
    return _ended("killed worker", found[0], Status.INVALID)


def _kill_worker(folder: Path) -> None:
    """Kill the one that writes rows-1.bin, once it does."""
    path = folder / "rows-1.bin"
    end = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        if time.monotonic() > end:
            raise OSError("no second worker came")
        time.sleep(0.05)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(each.readlink() == path for each in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def not_listed() -> Finding:
    """A host that is not listed gets no packet."""
    with harness.faulty_server() as server, harness.faulty_server() as other:
        return _refused("host not listed", run(server.url, "--host", other.url), other.url)


def unconfirmed() -> Finding:
    """Production is not loaded without a person's word."""
    with harness.faulty_server(env="prod") as server:
        return _refused("prod, not confirmed", run(server.url, "--rate", "5", env="prod"), server.url)


def _ended(name: str, ran: Ran, status: Status) -> Finding:
    return Finding(name, ran.status == status, f"exit {ran.status}", f"exit {int(status)}")


def _refused(name: str, ran: Ran, url: str) -> Finding:
    arrived = arrived_at(url)
    is_right = (ran.status, arrived) == (Status.REFUSED, 0)
    return Finding(name, is_right, f"exit {ran.status}, {arrived} requests", "exit 4, 0")


BY_LOGIC: tuple[Callable[[], Finding], ...] = (
    not_listed,
    unconfirmed,
    no_requests,
    killed_worker,
    healthy,
    wrong_answers,
    score_errors,
    mix_ups,
    leak,
)
# These measure time, so the machine's other users show in them.
BY_TIME: tuple[Callable[[], Finding], ...] = (stall, generator_lag, generator_cost, search_finds_the_limit)


PARTS: dict[str, Callable[[], Finding]] = {check.__name__.replace("_", "-"): check for check in (*BY_LOGIC, *BY_TIME)}


def main(parts: Sequence[str] = ()) -> Status:
    """The named parts, or every one, in turn; PASS when all were found. Raises UsageError for a name that is none."""
    if unknown := set(parts) - set(PARTS):
        raise UsageError(f"No part is called {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}.")
    wrong, chosen, began = 0, list(parts or PARTS), time.monotonic()
    for number, name in enumerate(chosen, 1):
        print(f"  {number:2}/{len(chosen)}  {name}", flush=True)
        finding = _measured(PARTS[name])
        wrong += not finding.is_right
        word = "ok  " if finding.is_right else "FAIL"
        print(f"  {word}   {finding.name:<30} {finding.found:<32} expected {finding.expected}", flush=True)
    took = f"{time.monotonic() - began:.0f} s"
    print(
        f"Every fault was found; {took}." if not wrong else f"{wrong} of {len(chosen)} are not as they must be; {took}."
    )
    return Status.FAIL if wrong else Status.PASS


def _measured(check: Callable[[], Finding]) -> Finding:
    tries = TRIES if check in BY_TIME else 1
    for number in range(1, tries + 1):
        finding = check()
        if finding.is_right:
            break
        if number < tries:
            print(f"        {finding.found}; once more, {number} of {tries} times", flush=True)
    return finding
