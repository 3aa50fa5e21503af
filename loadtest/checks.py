"""One line of a verdict, the verdict they make together, and that as JUnit XML, which every CI reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from loadtest.statuses import Status


@dataclass(frozen=True)
class Check:
    """One line of the verdict: what was asked for, what was found, how sure that is.

    ``is_fact``: a FAIL that neither a slow generator nor a small number of requests excuses.
    ``longer``: UNDECIDED here; so many times as long a run would decide, if it goes on like this.
    """

    name: str
    status: Status
    found: str
    limit: str
    sureness: str = ""
    is_fact: bool = False
    longer: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """The whole verdict: every check, and the figures that reports and comparisons read. ``cause``: why, what next."""

    status: Status
    checks: list[Check]
    figures: dict[str, Any]
    cause: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in verdict.json; statuses by name."""
        checks = [{**asdict(each), "status": each.status.name} for each in self.checks]
        for each in checks:
            del each["longer"]
        head = {"verdict": self.status.name, "exit_status": int(self.status), "cause": self.cause}
        return {**head, "checks": checks, "figures": self.figures}


def together(checks: Sequence[Check]) -> Status:
    """The status of all checks: a fact fails, then nothing was measured, then the rest."""
    found = {each.status for each in checks}
    if any(each.status == Status.FAIL and each.is_fact for each in checks):
        return Status.FAIL
    for status in (Status.INVALID, Status.FAIL, Status.UNDECIDED):
        if status in found:
            return status
    return Status.PASS


def junit(name: str, verdict: Verdict) -> str:
    """One test suite; FAIL is a failure, INVALID and UNDECIDED are errors: nothing was proven."""
    failures = sum(each.status == Status.FAIL for each in verdict.checks)
    errors = sum(each.status in (Status.INVALID, Status.UNDECIDED) for each in verdict.checks)
    head = f'<testsuite name={quoteattr("loadtest." + name)} tests="{len(verdict.checks)}" failures="{failures}"'
    cases = "".join(_case(each) for each in verdict.checks)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head} errors="{errors}">\n{cases}</testsuite>\n'


def _case(check: Check) -> str:
    said = escape(f"{check.found}; limit {check.limit}. {check.sureness}".strip())
    opening = f'  <testcase classname="loadtest" name={quoteattr(check.name)}>'
    kind = {Status.FAIL: "failure", Status.PASS: ""}.get(check.status, "error")
    inside = (
        f"<{kind} message={quoteattr(check.status.name)}>{said}</{kind}>"
        if kind
        else f"<system-out>{said}</system-out>"
    )
    return f"{opening}{inside}</testcase>\n"
