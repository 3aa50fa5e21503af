"""The same build twice is no regression in at least 9 of 10 tries; a planted slowdown of 15 % in p50 is one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from loadtest import compare
from loadtest.statuses import LoadTestError, Status
from tests.loadtest.proofs import box, plants
from tests.servers import Server

# As many pairs as a comparison by pairs needs.
TRIES, RUNS, RATE, SECONDS = 10, compare.PAIRS_LEAST, 40, 5
SLOWER_BY = 0.15
RIGHT_LEAST = 0.9


def prove(tries: int = TRIES, rate: float = RATE, seconds: float = SECONDS, runs: int = RUNS) -> bool:
    """Each try is two servers, started anew, and runs in turns, as docs/loadtest.md tells people to take them."""
    print(f"{tries} tries of {runs} + {runs} runs in turns, {seconds:g} s each at {rate:g} a second.", flush=True)
    with plants.copy() as same, box.scratch() as folder:
        with box.serving(same) as server:
            _measure(server, folder / "warm", rate, seconds)
            p50_ms = box.percentiles(box.run(server, *_options(rate, 4 * seconds)))["p50"]
        # Of the p50 just now: a machine that becomes quicker makes it a larger share, and the change says so.
        added_ms = SLOWER_BY * p50_ms
        with plants.copy(plants.that_takes_longer(added_ms / 1000)) as slower:
            name = f"p50 {p50_ms:.1f} + {added_ms:.2f} ms"
            planted = _try(same, slower, folder / "slower", rate, seconds, runs, name)
        words = Counter(
            _try(same, same, folder / str(n), rate, seconds, runs, f"same, try {n + 1}") for n in range(tries)
        )
    wrong = words["REGRESSION"]
    print(f"  same build: {dict(words)}; slower: {planted}", flush=True)
    return wrong <= tries * (1 - RIGHT_LEAST) + 1e-9 and planted == "REGRESSION"


def _try(before: Path, after: Path, folder: Path, rate: float, seconds: float, runs: int, name: str) -> str:
    sides: tuple[list[Path], list[Path]] = ([], [])
    with box.serving(before) as first, box.serving(after) as second:
        turn = list(enumerate((first, second)))
        # What is started first has been warm for longer.
        for _, server in turn:
            _measure(server, folder / f"warm-{server.port}", rate, seconds)
        for number in range(runs):
            # Old, new, new, old: who comes second in a pair has no advantage of it.
            for side, server in turn if number % 2 == 0 else reversed(turn):
                kept = folder / f"{number}-{side}"
                _measure(server, kept, rate, seconds)
                sides[side].append(kept)
    try:
        found = compare.compare(*[[compare.read(each) for each in side] for side in sides])
    except LoadTestError as error:
        print(f"  {name:<26} {error.status.name}: {error}", flush=True)
        return Status.INVALID.name
    word = compare.status_of(found).name
    changes = ", ".join(
        f"{each.metric.name.split(',')[0]} {each.change:+.1%} (p {each.p_value:.2f}, visible {each.visible:.1%})"
        for each in found
    )
    print(f"  {name:<26} {word:<10} {changes}", flush=True)
    return word


def _options(rate: float, seconds: float) -> tuple[str, ...]:
    # Patient: what is compared are runs, whatever the promise.
    return (
        "--mix",
        "classify",
        "--rate",
        f"{rate:g}",
        "--seconds",
        f"{seconds:g}",
        "--warm-up",
        "1",
        "--slo",
        "patient",
    )


def _measure(server: Server, folder: Path, rate: float, seconds: float) -> None:
    ran = box.run(server, *_options(rate, seconds), folder=folder)
    assert ran.table, ran.printed
