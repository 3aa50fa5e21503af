"""A planted thread-safety fault in a copy of the app, answers swapped once in 500, is reported as mix-ups."""

from __future__ import annotations

from loadtest.statuses import Status
from tests.loadtest.proofs import box, plants

RATE, SECONDS, EVERY = 60, 45, 500


def prove(rate: float = RATE, seconds: float = SECONDS, every: int = EVERY, *, is_built: bool = True) -> bool:
    """The sound app has none; the copy has some, and the verdict is FAIL because of them."""
    print(
        f"{rate:g} requests a second for {seconds:g} s; results swapped once in {every} in a copy of the app.",
        flush=True,
    )
    rows = [["app", "verdict", "right", "wrong", "mixed up"]]
    found = []
    for name, planted in (("as it is", ""), (f"swaps once in {every}", plants.that_swaps(every))):
        with plants.copy(planted) as root, box.serving(root, is_built=is_built) as server:
            options = ("--mix", "api", "--rate", f"{rate:g}", "--seconds", f"{seconds:g}", "--slo", "patient")
            ran = box.run(server, *options)
        counts = ran.figures.get("counts") or {}
        assert counts, ran.printed
        rows.append([name, ran.table["verdict"], *(str(counts[each]) for each in ("right", "wrong", "mixed_up"))])
        found.append((ran.status, counts["right"], counts["wrong"], counts["mixed_up"]))
    print(box.table(rows), flush=True)
    (sound, right, *none), (status, _, wrong, mixed_up) = found
    # An eager model on a machine that others use misses limits of time; its answers are right all the same.
    is_sound = none == [0, 0] and right > 0 and (sound == Status.PASS or not is_built)
    return is_sound and status == Status.FAIL and mixed_up > 0 and wrong == 0
