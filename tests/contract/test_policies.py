"""Which rules apply to which address: the table in policies.txt is read by people before it changes."""

from __future__ import annotations

import ast
from pathlib import Path

from app import factory
from app.config import ROOT
from app.web import policy
from app.web.policy import Access

TABLE = Path(__file__).with_name("policies.txt")


def rows() -> list[str]:
    """Path, methods, who may call it, and its other rules."""
    found = []
    for rule, here in policy.routes(factory.routes_only()):
        methods = " ".join(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))
        found.append(f"{rule.rule:<46}{methods:<8}{here.access.value:<15}{' '.join(here.rules())}".rstrip())
    return sorted(found)


def test_policies_are_those_that_were_reviewed() -> None:
    """An address of a user's own need not stand in the table, unless it is open to anybody."""
    reviewed, found = TABLE.read_text().splitlines(), rows()

    assert [row for row in reviewed if row not in found] == []
    assert [row for row in found if row not in reviewed and row[54:].startswith(Access.PUBLIC.value)] == []


def test_no_middleware_knows_an_endpoint() -> None:
    app = factory.routes_only()
    folders = (ROOT / "app" / "web" / "middleware", ROOT / "app" / "web" / "openapi")
    found = [
        (path.name, node.value)
        for folder in folders
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in app.view_functions and "." in str(node.value)
    ]

    # The form that somebody without a session is sent to, and the sample whose name the description fills in.
    assert sorted(found) == [("authentication.py", "pages.sign_in"), ("document.py", "pages.sample")]


def test_predicting_addresses_are_found_without_flask() -> None:
    app = factory.routes_only()
    paths, pages = policy.Paths(app, policy.predicting), policy.Paths(app, policy.predicting_pages)

    assert all(path in paths for path in ("/", "/v1/detect", "/v2/models/a.b/infer", "/v2/models/a/versions/1/infer"))
    assert not any(path in paths for path in ("/upload", "/v1/jobs", "/v1/detect/", "/v2/models/a/x/infer", "//"))
    assert "/upload" in pages
    assert "/v1/detect" not in pages
