"""A search finds a rate whose confirming run passes and whose rate + 15 % fails; twice in a row within 10 %."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from loadtest import selftest
from loadtest.statuses import Status
from tests.loadtest.proofs import box
from tests.servers import Server

SECONDS, START = 15, 60
MORE, NEAR = 1.15, 0.10


def prove(
    seconds: float = SECONDS, start: float = START, mix: str = "callers", *options: str, slo: str = "relaxed"
) -> bool:
    """Two searches on one server; each rate is confirmed, fails when 15 % are added, and is the other's within 10 %.

    The server has one core and the generator the others, as from another machine: where both share them, a rate that is
    too much for the server is too much for the generator too, and nothing is measured there. The promise is relaxed:
    of the default's one failure in a thousand, a single stall of a shared machine makes ten.
    """
    every = frozenset(os.sched_getaffinity(0))
    servers_core = frozenset([min(every)])
    rows = [["search", "bears", "processor time of a request", "confirming run", "+15 %", "verdict there"]]
    rates, is_right = [], True
    with box.serving(cores=servers_core) as server, box.scratch() as folder, box.on(every - servers_core or every):
        for number in (1, 2):
            table = search(server, folder / f"search-{number}", seconds, start, mix, "--slo", slo, *options)
            rate = table["capacity_rps"]
            assert rate, f"nothing found: {table['reason']}"
            confirmed = any(
                step["is_confirmation"] and step["verdict"] == "PASS" and abs(step["rate"] - rate) < 0.1
                for step in table["steps"]
            )
            wanted = ("--mix", mix, "--rate", f"{rate * MORE:.1f}", "--seconds", f"{seconds * 2:g}", "--slo", slo)
            more = box.run(server, *wanted)
            word = more.table.get("verdict", "none")
            # Where the machine itself became quicker or slower in between, this says so.
            told = table["server"].get("cpu_ms_per_request")
            cost = f"{told:.1f} ms" if told else "not told"
            rows.append(
                [str(number), f"{rate:.1f}/s", cost, "PASS" if confirmed else "none", f"{rate * MORE:.1f}/s", word]
            )
            print(box.table(rows[:1] + rows[-1:]), flush=True)
            rates.append(rate)
            is_right &= confirmed and more.status == Status.FAIL
    apart = max(rates) / min(rates) - 1
    print(f"  apart by {apart:.1%}; expected at most {NEAR:.0%}", flush=True)
    return is_right and apart <= NEAR


def search(server: Server, folder: Path, seconds: float, start: float, mix: str, *options: str) -> dict[str, Any]:
    """One search with the tool; its capacity table. Raises AssertionError with what it printed where it found none."""
    words = ["search", "--mix", mix, "--start", f"{start:g}", "--seconds", f"{seconds:g}", "--folder", str(folder)]
    done = selftest.command(*words, *options, url=server.url, env=box.ENV, **box.allowing(server))
    path = folder / f"{box.ENV}-capacity.json"
    assert path.exists(), done.stdout + done.stderr
    return dict(json.loads(path.read_text()))
