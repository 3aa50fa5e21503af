"""A search finds a rate whose confirming run passes and whose rate + 15 % fails; two of them within 10 %."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from loadtest import selftest
from tests.loadtest.proofs import box
from tests.servers import Server

SECONDS, START = 15, 60
MORE, NEAR = 1.15, 0.10
# Finer than by default: two steps of 5 % would be apart by more than is allowed.
RESOLUTION = 0.03
WARM_UP_SECONDS = 10


def prove(
    seconds: float = SECONDS, start: float = START, mix: str = "callers", *options: str, slo: str = "relaxed"
) -> bool:
    """Two searches on one server; each rate is confirmed, fails when 15 % are added, and is the other's within 10 %.

    They take turns, rate by rate, as the tool lets two do that want the same target: what a shared machine does to the
    one it does to the other. The server has one core and the generator the others, as from another machine: where both
    share them, a rate that is too much for the server is too much for the generator too, and nothing is measured there.
    The promise is relaxed: of the default's one failure in a thousand, a single stall of a shared machine makes ten.
    """
    every = frozenset(os.sched_getaffinity(0))
    servers_core = frozenset([min(every)])
    options = ("--slo", slo, "--resolution", f"{RESOLUTION:g}", *options)
    with box.serving(cores=servers_core) as server, box.scratch() as folder, box.on(every - servers_core or every):
        # The first pictures after a start are slow ones.
        box.run(server, "--mix", mix, "--rate", f"{start:g}", "--seconds", f"{WARM_UP_SECONDS}")
        tables = search_in_turns(2, server, folder, seconds, start, mix, *options)
        rows = [["search", "bears", "processor time of a request", "confirming run", "+15 %", "verdict there"]]
        rows += [_row(server, table, ("--mix", mix, "--seconds", f"{seconds * 2:g}", "--slo", slo)) for table in tables]
    for number in (1, 2):
        rows[number][0] = str(number)
    print(box.table(rows), flush=True)
    rates = [table["capacity_rps"] for table in tables]
    apart = max(rates) / min(rates) - 1
    print(f"  apart by {apart:.1%}; expected at most {NEAR:.0%}", flush=True)
    return all((row[3], row[5]) == ("PASS", "FAIL") for row in rows[1:]) and apart <= NEAR


def _row(server: Server, table: dict[str, Any], options: tuple[str, ...]) -> list[str]:
    """What one search found, and the verdict at 15 % more. Raises AssertionError where it found nothing."""
    rate = table["capacity_rps"]
    assert rate, f"nothing found: {table['reason']}"
    confirmed = any(
        step["is_confirmation"] and step["verdict"] == "PASS" and abs(step["rate"] - rate) < 0.1
        for step in table["steps"]
    )
    more = box.run(server, "--rate", f"{rate * MORE:.1f}", *options)
    # Where the machine itself became quicker or slower in between, this says so.
    told = table["server"].get("cpu_ms_per_request")
    cost = f"{told:.1f} ms" if told else "not told"
    found, passed = f"{rate:.1f}/s", "PASS" if confirmed else "none"
    return ["", found, cost, passed, f"{rate * MORE:.1f}/s", more.table.get("verdict", "none")]


def search(server: Server, folder: Path, seconds: float, start: float, mix: str, *options: str) -> dict[str, Any]:
    """One search with the tool; its capacity table. Raises AssertionError with what it printed where it found none."""
    return search_in_turns(1, server, folder, seconds, start, mix, *options)[0]


def search_in_turns(
    count: int, server: Server, folder: Path, seconds: float, start: float, mix: str, *options: str
) -> list[dict[str, Any]]:
    """So many searches at once on one target, which take turns; the capacity table of each."""
    words = ["search", "--mix", mix, "--start", f"{start:g}", "--seconds", f"{seconds:g}", *options, "--folder"]
    folders = [folder / f"search-{number}" for number in range(1, count + 1)]
    with contextlib.ExitStack() as ends:
        begun = []
        for each in folders:
            begun.append(
                ends.enter_context(
                    selftest.begin(*words, str(each), url=server.url, env=box.ENV, **box.allowing(server))
                )
            )
            # Who ends this ends them, and with them the load.
            ends.callback(begun[-1].terminate)
        printed = ["".join(each.communicate()) for each in begun]
    paths = [each / f"{box.ENV}-capacity.json" for each in folders]
    for path, words_said in zip(paths, printed, strict=True):
        assert path.exists(), words_said
    return [dict(json.loads(path.read_text())) for path in paths]
