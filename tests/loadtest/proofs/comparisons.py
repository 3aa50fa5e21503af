"""The same build twice is no regression in at least 9 of 10 tries; a planted slowdown of 15 % in p50 is one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from loadtest import compare
from loadtest.statuses import LoadTestError, Status
from tests.loadtest.proofs import box, plants
from tests.servers import Server

# Six runs a side: of five, one that overlaps is already too many for the permutation after Holm.
TRIES, RUNS, RATE, SECONDS = 10, 6, 50, 5
SLOWER_BY = 0.15
RIGHT_LEAST = 0.9


def prove(tries: int = TRIES, rate: float = RATE, seconds: float = SECONDS, runs: int = RUNS) -> bool:
    """Each try is two servers, started anew, and runs in turns, as docs/loadtest.md tells people to take them."""
    print(f"{tries} tries of {runs} + {runs} runs in turns, {seconds:g} s each at {rate:g} a second.", flush=True)
    with plants.copy() as same, box.scratch() as folder:
        words = Counter(
            _try(same, same, folder / str(n), rate, seconds, runs, f"same, try {n + 1}") for n in range(tries)
        )
        with box.serving(same) as server:
            p50 = box.percentiles(box.run(server, *_options(rate, 4 * seconds)), "response_ms")["p50"]
        added_seconds = SLOWER_BY * p50 / 1000
        with plants.copy(plants.that_takes_longer(added_seconds)) as slower:
            name = f"p50 {p50:.1f} ms + {added_seconds * 1000:.1f} ms"
            planted = _try(same, slower, folder / "slower", rate, seconds, runs, name)
    wrong = words["REGRESSION"]
    print(f"  same build: {dict(words)}; slower: {planted}", flush=True)
    return wrong <= tries * (1 - RIGHT_LEAST) + 1e-9 and planted == "REGRESSION"


def _try(before: Path, after: Path, folder: Path, rate: float, seconds: float, runs: int, name: str) -> str:
    sides: tuple[list[Path], list[Path]] = ([], [])
    with box.serving(before) as first, box.serving(after) as second:
        for number in range(runs):
            for side, server in enumerate((first, second)):
                kept = folder / f"{number}-{side}"
                _measure(server, kept, rate, seconds)
                sides[side].append(kept)
    try:
        found = compare.compare(*[[compare.read(each) for each in side] for side in sides])
    except LoadTestError as error:
        print(f"  {name:<26} {error.status.name}: {error}", flush=True)
        return Status.INVALID.name
    word = compare.status_of(found).name
    changes = ", ".join(f"{each.metric.name.split(',')[0]} {each.change:+.1%} (p {each.p_value:.2f})" for each in found)
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
