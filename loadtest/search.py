"""The highest rate that keeps a promise: by doubling, then by halving the gap, then confirmed from both sides.

Knows no server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.statuses import LoadTestError, Status
from loadtest.verdict import Verdict

RESOLUTION = 0.05
RATES_MOST = 40
INVALID_MOST = 3

Probe = Callable[[float, bool], Verdict]


@dataclass(frozen=True)
class Step:
    """One rate that was tried. ``is_confirmation``: the longer run at the end."""

    rate: float
    verdict: Verdict
    is_confirmation: bool = False


@dataclass
class Search:
    """What was tried, and what came of it. ``capacity_rps`` is 0 when nothing was found that holds; ``reason``: why.

    ``not_measured``: why the rate above could not be measured, where it could not: the service may bear more.
    """

    capacity_rps: float = 0.0
    lowest_failing_rps: float | None = None
    steps: list[Step] = field(default_factory=list)
    reason: str = ""
    not_measured: str = ""


def search(
    probe: Probe, start: float, most: float, resolution: float = RESOLUTION, tell: Callable[[Step], None] | None = None
) -> Search:
    """Find the highest rate from ``start`` to ``most`` that passes, within ``resolution`` (a share of it).

    ``probe`` sends a rate and judges it; true as its second argument asks for the longer, confirming run. Only PASS
    counts as keeping the promise: what cannot be decided is not promised. A rate that cannot be measured is not looked
    beyond, once a lower one has passed. Raises LoadTestError where none has, or where confirming runs cannot be.
    """
    found = Search()
    unmeasured: dict[float, str] = {}

    def passes(rate: float, is_confirmation: bool = False) -> bool:
        step = Step(rate, _measure(probe, rate, is_confirmation), is_confirmation)
        if step.verdict.status == Status.INVALID:
            unmeasured[rate] = _reasons(step.verdict)
            if not any(each.verdict.status == Status.PASS for each in found.steps) or _is_in_vain(found):
                raise LoadTestError(f"{rate:.4g} requests per second {unmeasured[rate]}.")
        found.steps.append(step)
        if tell:
            tell(step)
        return step.verdict.status == Status.PASS

    low, high = _bracket(passes, start, most)
    found.reason = "" if low else f"not even {found.steps[-1].rate:.3g} a second kept the promise"
    # A short run may pass by luck, and fail by what else the machine did: both ends have been seen in a longer one.
    kept, broken = set[float](), set[float]()
    while low:
        low, high = _narrow(passes, found, low, high, resolution)
        if len(found.steps) >= RATES_MOST:
            low = max(kept, default=0.0)
            found.reason = "" if low else f"no rate held in a longer run before {RATES_MOST} runs were used up"
            break
        if low not in kept:
            if passes(low, True):
                kept.add(low)
                continue
            broken.add(low)
            low, high = low / (1 + resolution), low
            if low < start / 100:
                low, found.reason = 0.0, f"no rate from {high:.3g} a second upwards held in a longer run"
        elif high and high not in broken and high not in unmeasured:
            if not passes(high, True):
                broken.add(high)
                continue
            kept.add(high)
            low, high = _climb(passes, found, high, most, resolution)
        else:
            break
    found.capacity_rps, found.lowest_failing_rps = low, high
    found.not_measured = unmeasured.get(high or 0.0, "")
    return found


def _is_in_vain(found: Search) -> bool:
    """Whether confirming runs of lower and lower rates could not be measured, and none was."""
    long = [each.verdict.status for each in found.steps if each.is_confirmation]
    return Status.PASS not in long and long.count(Status.INVALID) >= INVALID_MOST - 1


def _narrow(
    passes: Callable[[float], bool], found: Search, low: float, high: float | None, resolution: float
) -> tuple[float, float | None]:
    while high and high / low > (1 + resolution) * (1 + 1e-9) and len(found.steps) < RATES_MOST:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low, high


def _climb(
    passes: Callable[[float], bool], found: Search, low: float, most: float, resolution: float
) -> tuple[float, float | None]:
    """From a rate that held after all to the next that does not, in steps of twice the resolution."""
    while low < most and len(found.steps) < RATES_MOST:
        following = min(low * (1 + resolution) ** 2, most)
        if not passes(following):
            return low, following
        low = following
    return low, None


def _bracket(passes: Callable[[float], bool], start: float, most: float) -> tuple[float, float | None]:
    rate = min(start, most)
    if not passes(rate):
        # Down, until it holds; a server that bears nothing bears nothing.
        while (rate := rate / 2) >= start / 64:
            if passes(rate):
                return rate, rate * 2
        return 0.0, rate * 2
    while rate < most:
        following = min(rate * 2, most)
        if not passes(following):
            return rate, following
        rate = following
    return rate, None


def _measure(probe: Probe, rate: float, is_confirmation: bool) -> Verdict:
    for _ in range(INVALID_MOST):
        verdict = probe(rate, is_confirmation)
        if verdict.status != Status.INVALID:
            break
    return verdict


def _reasons(verdict: Verdict) -> str:
    reasons = "; ".join(f"{each.name} {each.found}" for each in verdict.checks if each.status == Status.INVALID)
    return f"could not be measured, {INVALID_MOST} times: {reasons}"
