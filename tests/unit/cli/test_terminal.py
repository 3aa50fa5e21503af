"""The house style of commands: what a person, a pipe and a program get to see."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from app.cli import terminal
from app.config import ROOT
from app.errors import ChangeRefusedError, SettingsError

HEADS = ("Model", "Images", "State")
ROWS = (("cone", 12, "ready"), ("helmet", None, "failed"))

# Work of two steps, as a program of its own.
TELLING = """
from app.cli import terminal
with terminal.told_progress("Building", 2) as (say, advance):
    for line in ("first [bold]", "second"):
        say(line)
        advance()
"""


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def test_table_in_a_pipe_is_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(HEADS, ROWS, title="Models")

    assert capsys.readouterr().out.splitlines() == [
        "Models",
        "",
        "  Model   Images  State",
        "  cone        12  ready",
        "  helmet       -  failed",
    ]


def test_table_prints_each_section_once(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("A",), (("one", 1), ("one", 2), ("two", 3)), has_sections=True)

    assert capsys.readouterr().out.split() == ["A", "one", "1", "2", "two", "3"]


def test_table_on_a_terminal_is_drawn_with_colours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)

    terminal.print_table(HEADS, ROWS, title="Models")

    drawn = capsys.readouterr().out
    assert "─" in drawn
    assert "\x1b[32mready" in drawn
    assert "\x1b[31mfailed" in drawn


def test_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)

    terminal.print_table(("Value",), (("[red]",),))

    assert "[red]" in capsys.readouterr().out


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"größe": [1, None]})

    said = capsys.readouterr().out
    assert json.loads(said) == {"größe": [1, None]}
    assert "größe" in said


@pytest.mark.parametrize(
    ("error", "status"),
    [(ChangeRefusedError("Nothing to go back to.", hint="Look."), 1), (SettingsError("PORT is 0.", hint="Look."), 2)],
)
def test_known_error_becomes_words_and_a_status(error: Exception, status: int) -> None:
    @click.command(cls=terminal.Command)
    def command() -> None:
        raise error

    result = CliRunner().invoke(command)

    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr == f"FAIL: {error}\nNext: Look.\n"


def test_commands_of_a_group_tell_failures_too() -> None:
    group = terminal.Group("group")

    @group.command()
    def fails() -> None:
        raise ChangeRefusedError("No.")

    assert CliRunner().invoke(group, ["fails"]).stderr == "FAIL: No.\n"


def test_unknown_error_keeps_its_trace() -> None:
    @click.command(cls=terminal.Command)
    def command() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(command).exception, ZeroDivisionError)


@click.command(cls=terminal.Command)
@terminal.yes_option
def asks(is_sure: bool) -> None:
    terminal.confirm("Remove it?", is_sure=is_sure)
    click.echo("removed")


def test_question_is_not_asked_of_those_who_said_yes() -> None:
    assert CliRunner().invoke(asks, ["--yes"]).output == "removed\n"


def test_question_that_nobody_can_answer_ends_the_command() -> None:
    result = CliRunner().invoke(asks)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("Next: Add --yes.\n")


def test_work_that_tells_writes_its_lines_into_a_pipe_and_a_bar_on_the_terminal_beside_it() -> None:
    """With a real terminal for the error output alone, as in `flask model build | tee log`."""
    ours, theirs = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-c", TELLING], stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, check=True, text=True
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    assert process.stdout == "first [bold]\nsecond\n"
    assert "Building" in shown and "2/2" in shown
    assert "first" not in shown


def test_work_that_tells_on_a_terminal_has_its_lines_above_the_bar() -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", TELLING], stdout=theirs, stderr=theirs, cwd=ROOT, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    # Each line stands on one of its own, whatever the bar does.
    assert re.search(r"(^|[\r\n]|\x1b\[2K)first \[bold\]\r\n", shown)
    assert "2/2" in shown


def test_work_that_tells_is_the_same_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.told_progress("Building", 2) as (say, advance):
        say("first")
        advance()

    assert capsys.readouterr() == ("first\n", "")


def test_progress_writes_nothing_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("Reading", 2) as advance:
        advance()

    assert capsys.readouterr() == ("", "")


def test_progress_shows_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)

    with terminal.progress("Reading", 2) as advance:
        advance()
        advance()

    said = capsys.readouterr()
    assert said.out == ""
    assert "Reading" in said.err and "2/2" in said.err
