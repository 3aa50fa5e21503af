"""`python -m tests.loadtest.proofs PART …`: run the proofs that are named, each with its own word at the end."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable

from tests.loadtest.proofs import loadgen, mix_ups

# In the order of their length; minutes on two cores.
PARTS: dict[str, tuple[int, Callable[[], bool], Callable[[], bool]]] = {
    "mix-ups": (2, mix_ups.prove, lambda: mix_ups.prove(30, 8, 25)),
    "loadgen": (12, loadgen.prove, lambda: loadgen.prove(20, 8, 1)),
}


def main() -> int:
    """0 when all that were asked for hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.loadtest.proofs", description=__doc__)
    about = ", ".join(f"{name} ({minutes} min)" for name, (minutes, *_) in PARTS.items())
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{about}; all of them when none is named")
    parser.add_argument("--short", action="store_true", help="small and quick, to see that it runs; proves nothing")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    # Who ends it ends the service that it has started too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = []
    for name in given.parts or PARTS:
        _, prove, prove_short = PARTS[name]
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        holds = (prove_short if given.short else prove)()
        print(f"{'HOLDS' if holds else 'DOES NOT HOLD'}: {name}, {time.monotonic() - began:.0f} s", flush=True)
        if not holds:
            failed.append(name)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
