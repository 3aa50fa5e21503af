"""axe-core in a page: which success criteria of WCAG its markup breaks, as the tool that auditors use finds them.

The script comes from the package axe-playwright-python and is evaluated by the browser's debugger, which our
Content-Security-Policy does not stop; a script element would be refused.
"""

from __future__ import annotations

import functools
import importlib.resources
from dataclasses import dataclass
from typing import Any

from selenium.webdriver import Chrome

# Levels A and AA of WCAG 2.0, 2.1 and 2.2, as axe names them.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN = "axe.run(document, {runOnly: {type: 'tag', values: %s}, resultTypes: ['violations', 'incomplete', 'passes']})"


@dataclass(frozen=True, slots=True)
class Finding:
    """One element that breaks a rule. ``where``: a selector; ``why``: axe's words."""

    rule: str
    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.where}: {self.why}"


@dataclass(frozen=True, slots=True)
class Report:
    """What axe found. ``passed``: the rules that were kept somewhere on the page."""

    violations: list[Finding]
    undecided: list[Finding]
    passed: list[str]


def examine(driver: Chrome) -> Report:
    """Run axe over the page as it is now. Raises AssertionError where the browser refuses the script."""
    _evaluate(driver, _script())
    found = _evaluate(driver, RUN % TAGS)
    return Report(
        violations=_findings(found["violations"]),
        undecided=_findings(found["incomplete"]),
        passed=[rule["id"] for rule in found["passes"]],
    )


@functools.cache
def _script() -> str:
    return (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def _evaluate(driver: Chrome, expression: str) -> Any:
    asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    answer = driver.execute_cdp_cmd("Runtime.evaluate", asked)
    assert "exceptionDetails" not in answer, answer["exceptionDetails"]
    return answer["result"].get("value")


def _findings(rules: list[dict[str, Any]]) -> list[Finding]:
    return [
        Finding(rule["id"], " ".join(map(str, node["target"])), " ".join(node["failureSummary"].split()))
        for rule in rules
        for node in rule["nodes"]
    ]
