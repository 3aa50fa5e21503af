"""The proofs in small: the same programs as `make loadtest-proof`, so that they still run when somebody needs them."""

from __future__ import annotations

from loadtest import harness
from loadtest.statuses import Status
from tests.loadtest.proofs import loadgen, mix_ups, plants

# The longest waits are of the server's making, so that a busy machine hardly shows in them.
STALLS = {"slots": 256, "service_ms": 5, "stall_every": 3, "stall_seconds": 0.75}
TRIES = 3


def test_our_p99_is_that_of_mlperfs_loadgen() -> None:
    with harness.faulty_server(**STALLS) as server:
        apart = [1.0]
        # On a machine that others use, a single run of either tool may be disturbed.
        while apart[-1] > loadgen.NEAR and len(apart) <= TRIES:
            apart.append(loadgen.compare(server.url, "test", 120, 6, 1))

    assert apart[-1] <= loadgen.NEAR, apart[1:]


def test_swapped_results_of_the_real_app_are_mix_ups() -> None:
    """That the app as it is has none, tests/loadtest/test_faults.py shows."""
    ran = mix_ups.load(plants.that_swaps(10), 8, 7, is_built=False)

    counts = ran.figures["counts"]
    assert ran.status == Status.FAIL
    assert counts["mixed_up"] > counts["wrong"] == 0
