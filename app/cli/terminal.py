"""How commands look: tables and JSON, failures and what to do next, questions, progress. Nobody else knows rich.

On a terminal tables are drawn and coloured; in a pipe they are plain aligned columns. A command ends with 0 when it did
what it was asked, or found it done; with 1 when it was refused; with 2 when usage or settings are wrong.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from app.errors import CaskError, SettingsError
from app.host import machine

REFUSED, WRONG_SETTINGS = 1, 2
# Words that stand alone in a cell and say how something is.
COLOURS = {
    **dict.fromkeys(("ok", "ready", "succeeded", "active", "yes"), "green"),
    **dict.fromkeys(("warn", "loading", "queued", "running", "canary", "shadow", "expired"), "yellow"),
    **dict.fromkeys(("fail", "failed", "revoked", "withdrawn"), "red"),
}
NOTHING = "-"
# What a slim image lacks.
TORCH = ("torch", "torchvision")
LEAST_WIDTH = 30

json_option = click.option("--json", "is_json", is_flag=True, help="Print JSON, for programs.")
yes_option = click.option("--yes", "-y", "is_sure", is_flag=True, help="Go on without asking.")


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Failure(click.ClickException):
    """Ends a command: what was needed and what was found, and on a line of its own what to do next."""

    def __init__(self, message: str, *, next_step: str = "", status: int = REFUSED) -> None:
        super().__init__(message)
        self.next_step = next_step
        self.exit_code = status  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        """Print it to the error output."""
        click.echo(f"{click.style('FAIL:', fg='red', bold=True)} {self.message}", file=file, err=True)
        if self.next_step:
            click.echo(f"{click.style('Next:', bold=True)} {self.next_step}", file=file, err=True)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Errors that we know by name end the command in words, without a stack trace."""
    try:
        yield
    except CaskError as error:
        status = WRONG_SETTINGS if isinstance(error, SettingsError) else REFUSED
        raise Failure(error.message, next_step=error.hint, status=status) from error
    except ModuleNotFoundError as error:
        if error.name not in TORCH:
            raise
        raise Failure(
            f"This command needs {error.name}, and this image has none: a slim one serves built models only.",
            next_step="Run it where torch is: a checkout or the whole image. Then make the slim image anew.",
        ) from error


def need_torch() -> None:
    """Return where torch is installed. Ends the command in words where it is not, before it begins in vain."""
    if not machine.has_torch():
        raise ModuleNotFoundError(name="torch")


class Command(click.Command):
    """A command whose CaskErrors are told in words."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        with failures():
            return super().invoke(ctx)


class Group(click.Group):
    """A command with commands below it, each of them a Command."""

    command_class = Command
    group_class = type


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def confirm(question: str, *, is_sure: bool) -> None:
    """Return when the person says yes, or said so with --yes. Ends the command otherwise."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise Failure(
            "This command asks before it goes on, and nobody can answer here.", next_step="Add --yes.", status=2
        )
    click.confirm(question, abort=True)


# ── what is printed ──────────────────────────────────────────────────────────────────────────────────────────────────


def print_json(value: Any) -> None:
    """One JSON value, indented."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_note(words: str) -> None:
    """A remark for the person, on the error output, so that a pipe gets the result alone."""
    click.echo(words, err=True)


def print_hanging(head: str, words: str, indent: int) -> None:
    """Words after a head that takes up ``indent`` columns; on a terminal their lines stay to the right of it."""
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns - indent - 1, LEAST_WIDTH)
        lines = textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False) or [""]
    else:
        lines = [words]
    click.echo(head + f"\n{' ' * indent}".join(lines))


def print_verdict(verdict: str, subject: str, words: str, next_step: str = "") -> None:
    """``ok    subject  words``, and below the words what to do."""
    shown = click.style(f"{verdict:<4}", fg=COLOURS.get(verdict), bold=verdict != "ok")
    indent = len(f"  {verdict:<4}  {subject}  ")
    print_hanging(f"  {shown}  {subject}  ", words, indent)
    if next_step:
        print_hanging(" " * (indent - 2) + click.style("→ ", bold=True), next_step, indent)


def print_table(
    heads: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "", has_sections: bool = False
) -> None:
    """Print rows of cells below their heads. Numbers stand to the right; None is shown as a dash.

    ``has_sections``: the first cell of each row names its section, which is printed once, above its rows.
    """
    split = [(str(row[0]), row[1:]) if has_sections else ("", row) for row in rows]
    if sys.stdout.isatty():
        _print_drawn(title, heads, split)
    else:
        _print_aligned(title, heads, split)


Split = Sequence[tuple[str, Sequence[Any]]]


def _print_drawn(title: str, heads: Sequence[str], rows: Split) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, expand=False)
    numeric = _numeric_columns(len(heads), rows)
    for i, head in enumerate(heads):
        # The first column is what people look for: it is never broken.
        table.add_column(head, no_wrap=i == 0, overflow="fold", justify="right" if i in numeric else "left")
    section = ""
    for name, cells in rows:
        if name != section:
            table.add_section()
            table.add_row(Text(name, "bold"))
            section = name
        table.add_row(*(Text(_text(cell), COLOURS.get(_text(cell), "")) for cell in cells))
    Console().print(table)


def _print_aligned(title: str, heads: Sequence[str], rows: Split) -> None:
    texts = [(name, [_text(cell) for cell in cells]) for name, cells in rows]
    widths = [max(len(cell) for cell in column) for column in zip(heads, *(row for _, row in texts), strict=True)]
    numeric = _numeric_columns(len(heads), rows)

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i in numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  " + "  ".join(padded).rstrip()

    if title:
        click.echo(f"{title}\n")
    click.echo(line(heads))
    section = ""
    for name, cells in texts:
        if name != section:
            click.echo(f"\n{name}")
            section = name
        click.echo(line(cells))


def _numeric_columns(count: int, rows: Split) -> set[int]:
    """Columns in which everything that is there is a number."""
    found = set()
    for i in range(count):
        cells = [row[i] for _, row in rows if row[i] is not None]
        if cells and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells):
            found.add(i)
    return found


def _text(cell: Any) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Advance = Callable[[], None]
Say = Callable[[str], None]


@contextlib.contextmanager
def progress(words: str, total: int, *, is_shown: bool = True) -> Iterator[Advance]:
    """A bar with time and rest on the error output, where that is a terminal; else nothing.

    Gives a function to be called after each of the ``total`` pieces.
    """
    with told_progress(words, total, is_shown=is_shown) as (_, advance):
        yield advance


@contextlib.contextmanager
def told_progress(words: str, total: int, *, is_shown: bool = True) -> Iterator[tuple[Say, Advance]]:
    """The same for work that tells what goes on: gives also what prints a line. On a terminal lines scroll above the
    bar; in a pipe they are what they are without it.
    """
    if not is_shown or not sys.stderr.isatty():
        yield click.echo, lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    console = Console(stderr=True)
    is_beside = sys.stdout.isatty()

    def say(line: str) -> None:
        if is_beside:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line)

    with Progress(*columns, console=console, transient=True, redirect_stdout=is_beside) as bar:
        task = bar.add_task(words, total=total)
        yield say, lambda: bar.advance(task)
