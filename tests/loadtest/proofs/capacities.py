"""What the queue predicts for one core and for two, beside what a search finds there: docs/capacity.md's figures.

On all cores the generator shares them, so what it keeps busy there is not the server's; it is measured in the same run.
"""

from __future__ import annotations

import os

from loadtest import scaling
from tests.loadtest.proofs import box, searches

SECONDS, START = 15, 60
NEAR = 0.15


def prove(
    seconds: float = SECONDS, start: float = START, mix: str = "callers", *options: str, slo: str = "default"
) -> bool:
    """Search with the server on one core and on all; each predicts the other from its cost of a request."""
    every = sorted(os.sched_getaffinity(0))
    settings = {1: frozenset(every[:1]), len(every): frozenset(every)}
    tables, left = {}, {}
    for count, cores in settings.items():
        # On one core the generator has the others; on all it shares them, as a second program on the box would.
        generators = frozenset(every) - cores or frozenset(every)
        with box.serving(cores=cores) as server, box.scratch() as folder, box.on(generators):
            tables[count] = searches.search(
                server, folder / "search", seconds, start * count, mix, "--slo", slo, *options
            )
        table = tables[count]
        generator_cores = table["generator"]["busy_cores"] or 0.0
        left[count] = count - (generator_cores if generators & cores else 0.0)
        said = f"{table['server']}; the generator kept {generator_cores} cores busy"
        print(f"  {count} core(s): bears {table['capacity_rps']}/s; {said}", flush=True)
    if reasons := {
        count: scaling.reason_against(table) for count, table in tables.items() if scaling.reason_against(table)
    }:
        # Others on this machine had them, or a setting is the limit.
        print(f"  nothing can be computed: {reasons}", flush=True)
        return False
    rows = [
        [
            "server on",
            "left by the generator",
            "measured",
            *(f"computed from {count} core(s)" for count in settings),
            "apart",
        ]
    ]
    is_right = True
    for count, found in tables.items():
        measured = found["capacity_rps"]
        computed = {other: scaling.of_card(tables[other], [left[count]])[left[count]] for other in settings}
        apart = {other: value / measured - 1 for other, value in computed.items()}
        is_right &= all(abs(each) <= NEAR for each in apart.values())
        words = [f"{value:.0f}/s" for value in computed.values()]
        said = ", ".join(f"{each:+.0%}" for each in apart.values())
        rows.append([f"{count} core(s)", f"{left[count]:.2f}", f"{measured:.0f}/s", *words, said])
    print(box.table(rows), flush=True)
    return is_right
