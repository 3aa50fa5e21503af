"""A planted thread-safety fault in a copy of the app, answers swapped once in 500, is reported as mix-ups."""

from __future__ import annotations

from loadtest.harness import Ran
from loadtest.statuses import Status
from tests.loadtest.proofs import box, plants

RATE, SECONDS, EVERY = 60, 45, 500


def prove(rate: float = RATE, seconds: float = SECONDS, every: int = EVERY) -> bool:
    """The sound app has none; the copy has some, and the verdict is FAIL because of them."""
    print(
        f"{rate:g} requests a second for {seconds:g} s; results swapped once in {every} in a copy of the app.",
        flush=True,
    )
    rows = [["app", "verdict", "right", "wrong", "mixed up"]]
    found = []
    for name, planted in (("as it is", ""), (f"swaps once in {every}", plants.that_swaps(every))):
        ran = load(planted, rate, seconds)
        counts = [ran.figures["counts"][each] for each in ("right", "wrong", "mixed_up")]
        rows.append([name, ran.table["verdict"], *map(str, counts)])
        found.append((ran.status, *counts))
    print(box.table(rows), flush=True)
    (sound, right, *none), (status, _, wrong, mixed_up) = found
    return sound == Status.PASS and right > 0 and none == [0, 0] and status == Status.FAIL and mixed_up > wrong == 0


def load(planted: str, rate: float, seconds: float, *, is_built: bool = True) -> Ran:
    """One run against a copy of the app with these lines in it. Raises AssertionError where it counted nothing."""
    with plants.copy(planted) as root, box.serving(root, is_built=is_built) as server:
        options = ("--mix", "api", "--rate", f"{rate:g}", "--seconds", f"{seconds:g}", "--slo", "patient")
        ran = box.run(server, *options)
    assert ran.figures.get("counts"), ran.printed
    return ran
