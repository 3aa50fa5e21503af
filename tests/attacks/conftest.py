"""The table of all attacks, printed at the end of the run, and groups with a limit of memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.attacks.attack import FIGURES
from tests.attacks.memory_groups import MemoryGroup, NoMemoryGroupError, memory_group

HEAD = ("attack", "requests", "answered", "livez", "worst s", "MB", "recovery s")


def pytest_sessionstart() -> None:
    """Each run has a table of its own."""
    FIGURES.unlink(missing_ok=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, 80 columns wide."""
    if not FIGURES.exists():
        return
    terminalreporter.section("attacks, as honest callers saw them")
    terminalreporter.write_line(_line(HEAD))
    for line in FIGURES.read_text().splitlines():
        row = json.loads(line)
        cells = (row["attack"], row["requests"], f"{row['answered']:.1%}", f"{row['live']:.1%}")
        terminalreporter.write_line(
            _line((*cells, f"{row['worst_seconds']:.2f}", row["peak_bytes"] >> 20, f"{row['recovery_seconds']:.1f}"))
        )


def _line(cells: tuple[object, ...]) -> str:
    name, *figures = cells
    widths = (8, 9, 7, 8, 6, 11)
    return f"{name!s:<31.31}" + "".join(f"{cell!s:>{width}}" for cell, width in zip(figures, widths, strict=True))


@pytest.fixture
def limited_memory() -> Iterator[Callable[[int], MemoryGroup]]:
    """Makes a group with so many bytes; the test is left out, with the reason, where none can be made."""
    with ExitStack() as stack:

        def make(limit_bytes: int) -> MemoryGroup:
            try:
                return stack.enter_context(memory_group(limit_bytes))
            except NoMemoryGroupError as error:
                pytest.skip(str(error))

        yield make
