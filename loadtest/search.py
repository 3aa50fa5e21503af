"""The highest rate that meets an SLO: by doubling, then by halving the gap, then confirmed from both sides.

A single run may fail by what else the machine did, or pass by luck. So no end of the gap rests on one run: what failed
first is tried again, both ends are seen in a longer run, and an end that does not hold opens the gap again. Knows no
server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.checks import Verdict
from loadtest.diagnosis import disturbed_by
from loadtest.statuses import LoadTestError, Status

RESOLUTION = 0.05
RUNS_MOST = 25
INVALID_MOST = 3
# A service that meets its SLO at no such share of the first rate has no capacity.
LOWEST_SHARE = 1 / 64

Probe = Callable[[float, bool], Verdict]


@dataclass(frozen=True)
class Step:
    """One rate that was tried. ``is_confirmation``: a longer run, at an end of the gap."""

    rate: float
    verdict: Verdict
    is_confirmation: bool = False

    @property
    def has_passed(self) -> bool:
        """Whether the SLO was met; an undecided run counts as not met."""
        return self.verdict.status == Status.PASS


@dataclass
class Search:
    """What was tried, and what came of it. ``capacity_rps`` is 0 when nothing was found that holds; ``reason``: why.

    ``not_measured``: why the rate above could not be measured, or who else was at work: the service may take more load.
    ``is_used_up``: no more runs could be made; the capacity is at least what is said, or unknown.
    """

    capacity_rps: float = 0.0
    lowest_failing_rps: float | None = None
    steps: list[Step] = field(default_factory=list)
    reason: str = ""
    not_measured: str = ""
    is_used_up: bool = False

    @property
    def status(self) -> Status:
        """PASS for a capacity that was confirmed from both sides, UNDECIDED when runs were used up, else FAIL."""
        if self.is_used_up:
            return Status.UNDECIDED
        return Status.PASS if self.capacity_rps else Status.FAIL


class UsedUpError(Exception):
    """No more runs may be made."""


def search(
    probe: Probe, start: float, most: float, resolution: float = RESOLUTION, tell: Callable[[Step], None] | None = None
) -> Search:
    """Find the highest rate from ``start`` to ``most`` that passes, within ``resolution`` (a share of it).

    ``probe`` sends a rate and judges it; true as its second argument asks for the longer, confirming run. A rate that
    cannot be measured is not looked beyond, once a lower one has passed. Raises LoadTestError where none has, or where
    confirming runs cannot be.
    """
    hunt = _Hunt(probe, min(start, most), most, resolution, tell)
    try:
        hunt.run()
    except UsedUpError:
        hunt.fall_back()
    return hunt.result()


@dataclass
class _Hunt:
    """The gap between a rate that holds and one that does not; ``found.steps`` is what is known of every rate.

    ``is_longer``: a longer run broke what a short one kept, so that the gap is narrowed by longer runs from then on.
    """

    probe: Probe
    start: float
    most: float
    resolution: float
    tell: Callable[[Step], None] | None
    low: float = 0.0
    high: float | None = None
    is_longer: bool = False
    unmeasured: dict[float, str] = field(default_factory=dict)
    found: Search = field(default_factory=Search)

    def run(self) -> None:
        """Bracket, narrow and confirm, until both ends have held in a longer run."""
        self.bracket()
        while self.low:
            self.narrow()
            if not self._has_held(self.low):
                self.confirm_low()
            elif self.high is not None and not self._has_broken(self.high):
                self.confirm_high()
            else:
                return

    def bracket(self) -> None:
        """Double from the first rate on, or halve where even that fails twice."""
        if self._passes(self.start) or self._passes_again(self.start):
            self.low = self.start
            self.climb()
        else:
            self.descend(self.start)

    def climb(self) -> None:
        """Double the lower end until a rate fails twice."""
        while self.low < self.most:
            rate = min(self.low * 2, self.most)
            if not self._passes(rate) and not self._passes_again(rate):
                self.high = rate
                return
            self.low, self.high = rate, None

    def descend(self, failing: float) -> None:
        """Halve until a rate passes; the last one that failed is tried again, if it was tried once only."""
        self.low, self.high = 0.0, failing
        while (rate := self.high / 2) >= self.start * LOWEST_SHARE:
            if not self._passes(rate, self.is_longer):
                self.high = rate
                continue
            self.low = rate
            if self.high < failing and self._passes_again(self.high):
                self.low, self.high = self.high, None
                self.climb()
            return
        self.found.reason = f"not even {self.found.steps[-1].rate:.3g} a second met the SLO"

    def narrow(self) -> None:
        """Halve the gap until it is within the resolution."""
        # Rounding may make a step of the resolution a little larger than it.
        while self.high and self.high / self.low > (1 + self.resolution) * (1 + 1e-9):
            rate = (self.low * self.high) ** 0.5
            if self._passes(rate, self.is_longer):
                self.low = rate
            else:
                self.high = rate

    def confirm_low(self) -> None:
        """The lower end holds in a longer run, in one of two; or the gap opens below it."""
        if self._passes(self.low, True) or self._passes_again(self.low, True):
            return
        self.is_longer = True
        broken, passed = self.low, [step.rate for step in self.found.steps if step.has_passed and step.rate < self.low]
        self.high, self.low = broken, max(passed, default=0.0)
        if not self.low:
            self.descend(broken)
        if not self.low:
            self.found.reason = f"no rate from {self.high:.3g} a second upwards held in a longer run"

    def confirm_high(self) -> None:
        """The upper end fails in a longer run, too; or it is the lower one, and doubling is resumed."""
        assert self.high is not None
        if self._passes(self.high, True):
            self.low, self.high = self.high, None
            self.climb()

    def fall_back(self) -> None:
        """Say what a longer run has shown, where there is such a rate; it is no PASS."""
        held = [step.rate for step in self.found.steps if self._has_held(step.rate)]
        self.low, self.found.is_used_up = max(held, default=0.0), True
        what = "both ends were confirmed" if self.low else "a rate held in a longer run"
        self.found.reason = f"{RUNS_MOST} runs were used up before {what}"

    def result(self) -> Search:
        """What came of it."""
        self.found.capacity_rps, self.found.lowest_failing_rps = self.low, self.high
        self.found.not_measured = self.unmeasured.get(self.high or 0.0, "") or self._disturbed(self.high)
        return self.found

    def _disturbed(self, rate: float | None) -> str:
        """Who else used the machine whenever this rate failed; empty where it failed without them, too."""
        failed = [step for step in self.found.steps if step.rate == rate and not step.has_passed]
        words = [disturbed_by(step.verdict.figures.get("machine", {})) for step in failed]
        return f"did not pass while the machine was {words[-1]}" if words and all(words) else ""

    def _has_held(self, rate: float) -> bool:
        return any(step.has_passed for step in self.found.steps if step.rate == rate and step.is_confirmation)

    def _has_broken(self, rate: float) -> bool:
        longer = [step for step in self.found.steps if step.rate == rate and step.is_confirmation]
        return rate in self.unmeasured or any(not step.has_passed for step in longer)

    def _passes_again(self, rate: float, is_confirmation: bool = False) -> bool:
        """The second try of a rate that failed; what could not be measured was tried often enough."""
        return rate not in self.unmeasured and self._passes(rate, is_confirmation)

    def _passes(self, rate: float, is_confirmation: bool = False) -> bool:
        if len(self.found.steps) >= RUNS_MOST:
            raise UsedUpError
        step = Step(rate, _measure(self.probe, rate, is_confirmation), is_confirmation)
        if step.verdict.status == Status.INVALID:
            self.unmeasured[rate] = _reasons(step.verdict)
            if not any(each.verdict.status == Status.PASS for each in self.found.steps) or self._is_in_vain():
                raise LoadTestError(f"{rate:.4g} requests per second {self.unmeasured[rate]}.")
        self.found.steps.append(step)
        if self.tell:
            self.tell(step)
        return step.has_passed

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
    reasons = "; ".join(f"{check.name} {check.found}" for check in verdict.checks if check.status == Status.INVALID)
    return f"could not be measured, {INVALID_MOST} times: {reasons}"
