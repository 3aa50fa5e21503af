"""The highest rate that keeps a promise: by doubling, then by halving the gap, then confirmed. Knows no server."""

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
    beyond, once a lower one has passed. Raises LoadTestError where none has, or where the confirming run cannot be.
    """
    found = Search()
    unmeasured: dict[float, str] = {}

    def passes(rate: float, is_confirmation: bool = False) -> bool:
        step = Step(rate, _measure(probe, rate, is_confirmation), is_confirmation)
        if step.verdict.status == Status.INVALID:
            unmeasured[rate] = _reasons(step.verdict)
            if is_confirmation or not any(each.verdict.status == Status.PASS for each in found.steps):
                raise LoadTestError(f"{rate:.4g} requests per second {unmeasured[rate]}.")
        found.steps.append(step)
        if tell:
            tell(step)
        return step.verdict.status == Status.PASS

    low, high = _bracket(passes, start, most)
    while low and high and high / low > 1 + resolution and len(found.steps) < RATES_MOST:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if passes(middle) else (low, middle)
    found.reason = "" if low else f"not even {found.steps[-1].rate:.3g} a second kept the promise"
    # A short run may pass by luck; what is promised has passed a longer one.
    while low:
        if len(found.steps) >= RATES_MOST:
            low, found.reason = 0.0, f"no rate held in a longer run before {RATES_MOST} runs were used up"
        elif passes(low, True):
            break
        else:
            low, high = low / (1 + resolution), low
            if low < start / 100:
                low, found.reason = 0.0, f"no rate from {high:.3g} a second upwards held in a longer run"
    found.capacity_rps, found.lowest_failing_rps = low, high
    found.not_measured = unmeasured.get(high or 0.0, "")
    return found


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
