"""The English of failures is what callers' programs and people have read so far: it changes only on purpose.

``english_errors.txt`` holds every message and hint that the code may say, ``{}`` for each value. It was written before
texts had ids, from the f-strings that were there. Whoever changes or removes one edits its line, and CHANGELOG.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from app.config import ROOT

SNAPSHOT = Path(__file__).with_name("english_errors.txt")
FOREIGN = re.compile(r"(Value|Type|Key|OS|Protocol|EOF|Connection|Timeout|Undeclared|Overflow|FileNotFound|Read)Error")
# What a failure may be given besides the values of its words.
RESERVED = ("hint", "retry_after_seconds", "upstream_status")
PLACEHOLDER = re.compile(r"%\(\w+\)([^a-zA-Z]*[a-zA-Z])|%%")


def sentences() -> Iterator[str]:
    """Message and hint of every failure that is made in app/, where they stand at that place."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func).rpartition(".")[2]
            if (name.endswith("Error") and not FOREIGN.fullmatch(name)) or name == "fitting":
                yield from _said(call)


def _said(call: ast.Call) -> Iterator[str]:
    has_values = any(each.arg not in (None, *RESERVED) for each in call.keywords)
    for value in (*call.args[:1], *(each.value for each in call.keywords if each.arg == "hint")):
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "Text":
            yield from _said(value)
        elif isinstance(value, ast.JoinedStr):
            yield "".join(_part(each) for each in value.values)
        elif isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
            yield PLACEHOLDER.sub(_place, value.value) if has_values else value.value


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.FormattedValue):
        spec = ast.unparse(part.format_spec)[2:-1] if part.format_spec else ""
        return f"{{{spec}}}" if re.fullmatch(r"[\d.]*[fg]", spec) else "{}"
    assert isinstance(part, ast.Constant)
    return str(part.value)


def _place(found: re.Match[str]) -> str:
    return "%" if found[0] == "%%" else "{}" if found[1] in "sd" else f"{{{found[1]}}}"


def test_english_words_of_failures_are_those_that_were() -> None:
    gone = set(SNAPSHOT.read_text().splitlines()) - set(sentences())

    assert gone == set(), "edit english_errors.txt where that is meant, and say it in CHANGELOG.md"
