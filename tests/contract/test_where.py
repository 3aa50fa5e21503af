"""docs/where.md: every file that it names is there, so that nobody is sent to a place that has moved."""

from __future__ import annotations

import re

from app.config import ROOT

PATH = re.compile(r"`([\w./-]+/[\w./-]*|flask\.wsgi)`")


def test_every_file_that_the_page_names_is_there() -> None:
    rows = [line for line in (ROOT / "docs" / "where.md").read_text().splitlines() if line.startswith("| ")][1:]
    named = [path for row in rows for path in PATH.findall(row)]

    assert len(rows) >= 20
    assert all(PATH.search(row) for row in rows)
    assert [path for path in named if not (ROOT / path).exists()] == []
