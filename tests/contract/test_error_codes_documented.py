"""Every code that a caller or operator can meet has its entry in docs/errors.md, and no entry is without its code."""

from __future__ import annotations

import re
import tomllib

import pytest

from app.config import DECLARATIONS, ROOT
from app.web.middleware.error_handlers import HTTP_FAILURES
from tests.contract.test_error_shape import error_classes

DOCUMENT = (ROOT / "docs" / "errors.md").read_text()
ENTRIES = {
    part.partition("\n")[0]: part.partition("\n")[2].partition("\n## ")[0] for part in DOCUMENT.split("\n### ")[1:]
}
# What a caller can mend: code, then answer, cause and what to do.
ROWS = {name: cells for name, *cells in re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|(.*)\|$", DOCUMENT, re.MULTILINE)}
APACHE = tomllib.loads((ROOT / "apache" / "errors.toml").read_text())
QUESTIONS = ("Logged as", "Cause", "Outcome", "Action")


def codes() -> dict[str, set[int]]:
    """Every code and the statuses it comes with."""
    found: dict[str, set[int]] = {}
    for kind in error_classes():
        found.setdefault(kind.code, set()).add(kind.status)
    for status, (code, *_) in HTTP_FAILURES.items():
        found.setdefault(code, set()).add(status)
    for status, words in APACHE.items():
        found.setdefault(words["code"], set()).add(int(status[:3]))
    # What answers for an application of others, in a process without our classes.
    for code in re.findall(r'"(application_\w+)"', (ROOT / "apache" / "application.py").read_text()):
        found.setdefault(code, set()).add(503)
    return found


def test_every_code_has_an_entry_and_every_entry_a_code() -> None:
    assert {*ENTRIES, *ROWS} == set(codes())
    assert not ENTRIES.keys() & ROWS.keys()


@pytest.mark.parametrize("code", ENTRIES)
def test_entry_answers_the_questions_in_order(code: str) -> None:
    """How it is logged only where the line says more than code and detail."""
    asked = re.findall(r"^\*\*(.+?)\*\* \S", ENTRIES[code], re.MULTILINE)

    assert tuple(asked) in (QUESTIONS, QUESTIONS[1:])


@pytest.mark.parametrize("code", [*ENTRIES, *ROWS])
def test_status_in_an_entry_is_one_that_the_code_comes_with(code: str) -> None:
    named = {int(status) for status in re.findall(r"\b([45]\d\d)\b", _outcome(code))}

    assert named <= codes()[code] | ({503} if code in ("model_load_failed", "golden_check_failed") else set())


@pytest.mark.parametrize("code", [code for code, statuses in codes().items() if len(statuses) > 1])
def test_code_of_several_statuses_is_one_on_purpose(code: str) -> None:
    assert code == "web_away"


@pytest.mark.parametrize("status", APACHE)
def test_apache_and_the_app_say_the_same_where_both_can(status: str) -> None:
    words = APACHE[status]
    kinds = {kind.code: kind.title for kind in error_classes()} | {c: title for c, title, *_ in HTTP_FAILURES.values()}

    assert kinds.get(words["code"], words["title"]) == words["title"]
    assert set(words) == {"code", "title", "detail", "hint"}


def test_settings_that_the_document_names_exist() -> None:
    names = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", DOCUMENT))

    assert names <= {one.name for one in DECLARATIONS.values()}


def _outcome(code: str) -> str:
    return ROWS[code][0] if code in ROWS else ENTRIES[code].partition("**Outcome**")[2].partition("\n")[0]
