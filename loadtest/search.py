"""The highest rate that keeps a promise: by doubling, then by halving the gap, then confirmed from both sides.

Knows no server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.checks import Verdict
from loadtest.statuses import LoadTestError, Status

RESOLUTION = 0.05
RATES_MOST = 40
INVALID_MOST = 3

Probe = Callable[[float, bool], Verdict]


@dataclass(frozen=True)
class Step:
    """One rate that was tried. ``is_confirmation``: a longer run, at an end of the gap."""

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
    hunt = _Hunt(probe, start, most, resolution, tell)
    hunt.bracket()
    # A short run may pass by luck, and fail by what else the machine did: both ends are to be seen in a longer one.
    while hunt.low:
        hunt.narrow()
        if hunt.is_used_up:
            hunt.fall_back()
            break
        if hunt.low not in hunt.kept:
            hunt.confirm_low()
        elif hunt.is_high_open:
            hunt.confirm_high()
        else:
            break
    return hunt.result()


@dataclass
class _Hunt:
    """The gap between a rate that holds and one that does not; ``kept``, ``broken``: what longer runs said."""

    probe: Probe
    start: float
    most: float
    resolution: float
    tell: Callable[[Step], None] | None
    low: float = 0.0
    high: float | None = None
    kept: set[float] = field(default_factory=set)
    broken: set[float] = field(default_factory=set)
    unmeasured: dict[float, str] = field(default_factory=dict)
    found: Search = field(default_factory=Search)

    @property
    def is_used_up(self) -> bool:
        """Whether no more runs may be made."""
        return len(self.found.steps) >= RATES_MOST

    @property
    def is_high_open(self) -> bool:
        """Whether a longer run may still show that the upper end holds."""
        return self.high is not None and self.high not in self.broken and self.high not in self.unmeasured

    def bracket(self) -> None:
        """Double until a rate fails, or halve until one passes; a server that bears nothing bears nothing."""
        rate = min(self.start, self.most)
        if self._passes(rate):
            self.low = rate
            while self.low < self.most and self._climbs(min(self.low * 2, self.most)):
                pass
            return
        while (rate := rate / 2) >= self.start / 64:
            self.high = rate * 2
            if self._passes(rate):
                self.low = rate
                return
        self.high = rate * 2
        self.found.reason = f"not even {self.found.steps[-1].rate:.3g} a second kept the promise"

    def narrow(self) -> None:
        """Halve the gap until it is within the resolution."""
        # Rounding may make a step of the resolution a little larger than it.
        while self.high and self.high / self.low > (1 + self.resolution) * (1 + 1e-9) and not self.is_used_up:
            self._climbs((self.low * self.high) ** 0.5)

    def confirm_low(self) -> None:
        """Either a longer run holds at the lower end, or the next one below is to be tried."""
        if self._passes(self.low, True):
            self.kept.add(self.low)
            return
        self.broken.add(self.low)
        self.low, self.high = self.low / (1 + self.resolution), self.low
        if self.low < self.start / 100:
            self.low, self.found.reason = 0.0, f"no rate from {self.high:.3g} a second upwards held in a longer run"

    def confirm_high(self) -> None:
        """Either a longer run fails at the upper end too, or it is the lower one, and the next above is looked for."""
        assert self.high is not None
        if not self._passes(self.high, True):
            self.broken.add(self.high)
            return
        self.kept.add(self.high)
        self.low, self.high = self.high, None
        while self.low < self.most and not self.is_used_up:
            if not self._climbs(min(self.low * (1 + self.resolution) ** 2, self.most)):
                break

    def fall_back(self) -> None:
        """Promise what a longer run has shown, where there is such a rate."""
        self.low = max(self.kept, default=0.0)
        self.found.reason = "" if self.low else f"no rate held in a longer run before {RATES_MOST} runs were used up"

    def result(self) -> Search:
        """What came of it."""
        self.found.capacity_rps, self.found.lowest_failing_rps = self.low, self.high
        self.found.not_measured = self.unmeasured.get(self.high or 0.0, "")
        return self.found

    def _climbs(self, rate: float) -> bool:
        """Whether this rate passes; it is the lower end then, and the upper one otherwise."""
        passes = self._passes(rate)
        if passes:
            self.low = rate
        else:
            self.high = rate
        return passes

    def _passes(self, rate: float, is_confirmation: bool = False) -> bool:
        step = Step(rate, _measure(self.probe, rate, is_confirmation), is_confirmation)
        if step.verdict.status == Status.INVALID:
            self.unmeasured[rate] = _reasons(step.verdict)
            if not any(each.verdict.status == Status.PASS for each in self.found.steps) or self._is_in_vain():
                raise LoadTestError(f"{rate:.4g} requests per second {self.unmeasured[rate]}.")
        self.found.steps.append(step)
        if self.tell:
            self.tell(step)
        return step.verdict.status == Status.PASS

    def _is_in_vain(self) -> bool:
        """Whether confirming runs of lower and lower rates could not be measured, and none was."""
        long = [each.verdict.status for each in self.found.steps if each.is_confirmation]
        return Status.PASS not in long and long.count(Status.INVALID) >= INVALID_MOST - 1


def _measure(probe: Probe, rate: float, is_confirmation: bool) -> Verdict:
    for _ in range(INVALID_MOST):
        verdict = probe(rate, is_confirmation)
        if verdict.status != Status.INVALID:
            break
    return verdict


def _reasons(verdict: Verdict) -> str:
    reasons = "; ".join(f"{each.name} {each.found}" for each in verdict.checks if each.status == Status.INVALID)
    return f"could not be measured, {INVALID_MOST} times: {reasons}"
