"""Callers and visitors are no operators: no hint of theirs names a setting, a command, or a file they do not have."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.config import DECLARATIONS, ROOT
from app.web.pages import raised_errors

SETTINGS = "|".join(one.name for one in DECLARATIONS.values() if "_" in one.name)
OPERATORS = re.compile(
    rf"\b(?:{SETTINGS})\b|\b(?:JOBS|RUNTIME|DEVICE|MODELS)=|\bflask \w|\bmake \w+-|docs/\w|ulimit|`df`|\bpromote\b"
)
HEARD = [
    *sorted(
        path
        for room in ("decoding", "ensembles", "inference", "jobs", "web/api", "web/middleware", "web/pages")
        for path in (ROOT / "app" / room).rglob("*.py")
    ),
    *(ROOT / "app" / name for name in ("models/routing.py",)),
    *(ROOT / "app" / "engine" / name for name in ("worker.py", "batcher.py", "client.py")),
]


def said(path: Path) -> Iterator[str]:
    """Each text in a file but docstrings and what only operators read: log lines, and why a start was refused."""
    tree = ast.parse(path.read_text())
    unsaid = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _is_for_operators(node)
        for part in ast.walk(node)
    }
    unsaid |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in unsaid:
            yield node.value


def _is_for_operators(call: ast.Call) -> bool:
    return ast.unparse(call.func).startswith(("log.", "standalone.", "ManifestError"))


@pytest.mark.parametrize("path", HEARD, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_tells_a_caller_to_act_as_an_operator(path: Path) -> None:
    assert [text for text in said(path) if OPERATORS.search(text)] == []


def test_no_sentence_of_pages_or_apache_tells_a_visitor_to_act_as_an_operator() -> None:
    table = tomllib.loads((ROOT / "apache" / "errors.toml").read_text())
    words = [
        *(each for path in raised_errors.paths() for each in raised_errors.words(path)),
        *(text for row in table.values() for text in row.values()),
    ]

    assert len(words) > 200
    assert [text for text in words if OPERATORS.search(text)] == []


def test_german_pages_of_apache_have_every_status_and_the_same_fields() -> None:
    english, german = (
        tomllib.loads((ROOT / "apache" / name).read_text()) for name in ("errors.toml", "errors.de.toml")
    )
    fields = {"title", "detail", "hint"}

    assert set(german) == {*english, "page"}
    assert {status: set(german[status]) for status in english} == dict.fromkeys(english, fields)
    assert "{request_max_bytes}" in german["413"]["detail"]


def test_description_of_the_api_names_nothing_that_only_an_operator_can_do(client: FlaskClient) -> None:
    words = set(strings(client.get("/openapi.json").json))

    assert len(words) > 500
    assert [text for text in words if OPERATORS.search(text)] == []


def strings(node: Any) -> Iterator[str]:
    """Every text in a JSON document."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from strings(each)


def test_apache_names_the_limit_of_a_body() -> None:
    table = tomllib.loads((ROOT / "apache" / "errors.toml").read_text())

    assert "{request_max_bytes}" in table["413"]["detail"]
