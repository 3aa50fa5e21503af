"""The verdict as JUnit XML, which every CI reads: a test case a check."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from loadtest.checks import Check, Verdict
from loadtest.statuses import Status


def render(name: str, verdict: Verdict) -> str:
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
