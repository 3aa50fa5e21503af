"""Log lines: one event is one line, whatever callers put into it."""

from __future__ import annotations

import io
import json
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.telemetry import logs, metrics
from tests import fakes


@pytest.fixture(autouse=True)
def no_request() -> Iterator[None]:
    """Afterwards, no request is being served."""
    yield
    logs.request_id.set("")


def written(tmp_path: Path, log_format: str, message: str, *args: Any, level: int = logging.INFO, **how: Any) -> str:
    stream = io.StringIO()
    logs.configure(fakes.make_settings(tmp_path, tmp_path, log_format=log_format, log_level="info"), "web", stream)
    logging.getLogger("cask.web").log(level, message, *args, **how)
    return stream.getvalue()


def test_json_line_says_when_who_and_what(tmp_path: Path) -> None:
    line = written(tmp_path, "json", "refused with %d", 413)

    found = json.loads(line)
    assert line.count("\n") == 1
    assert (found["level"], found["logger"], found["role"], found["message"]) == (
        *("info", "cask.web", "web"),
        "refused with 413",
    )
    assert found["time"].endswith("Z") and found["pid"] > 0
    assert "request_id" not in found


def test_json_line_carries_the_request_id_and_what_else_was_given(tmp_path: Path) -> None:
    logs.request_id.set("abc-123")

    found = json.loads(written(tmp_path, "json", "slow", extra={"milliseconds": 17, "path": Path("/x")}))

    assert (found["request_id"], found["milliseconds"], found["path"]) == ("abc-123", 17, "/x")


def test_stack_trace_is_a_field_of_its_json_line(tmp_path: Path) -> None:
    try:
        raise ValueError("what")
    except ValueError:
        line = written(tmp_path, "json", "failed", exc_info=sys.exc_info())

    assert line.count("\n") == 1
    assert json.loads(line)["trace"].endswith("ValueError: what")


def test_text_line_is_for_people(tmp_path: Path) -> None:
    logs.request_id.set("abc-123")

    line = written(tmp_path, "text", "model %s is ready", "demo@1", extra={"seconds": 2})

    assert line[8:] == " INFO    web    model demo@1 is ready  seconds=2  [abc-123]\n"


NASTY = "\n12:00:00 INFO forged\r\x1b[2J\x00\x85\u2028é\ud800"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_callers_cannot_forge_a_line_nor_reach_the_terminal(tmp_path: Path, log_format: str) -> None:
    line = written(tmp_path, log_format, "no such path: %s", NASTY, extra={"name_of_file": NASTY})

    assert line.endswith("\n") and len(line[:-1].splitlines()) == 1
    assert not any(ord(character) < 32 for character in line[:-1])
    assert "é" in line


def test_stack_trace_of_a_text_line_keeps_its_lines(tmp_path: Path) -> None:
    try:
        raise ValueError("what")
    except ValueError:
        line = written(tmp_path, "text", "failed", exc_info=sys.exc_info())

    assert line.splitlines()[1].startswith("Traceback")


def test_level_of_the_settings_is_kept(tmp_path: Path) -> None:
    assert written(tmp_path, "text", "detail", level=logging.DEBUG) == ""


def test_configuring_twice_writes_once(tmp_path: Path) -> None:
    written(tmp_path, "text", "first")

    assert written(tmp_path, "text", "second").count("second") == 1


def test_warnings_and_errors_are_counted(tmp_path: Path) -> None:
    def counted(level: str) -> float:
        found = metrics.LOG_LINES._series.get((("level", level),))
        return found[0][found[1]] if found else 0

    before = counted("warning"), counted("error")
    for level in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        written(tmp_path, "json", "something", level=level)

    assert (counted("warning") - before[0], counted("error") - before[1]) == (1, 2)


def log_under_apache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The log of a web process. No fixture: pytest puts other streams in place between a fixture and its test."""
    monkeypatch.setitem(sys.modules, "mod_wsgi", types.ModuleType("mod_wsgi"))
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    stream = io.StringIO()
    logs.configure(fakes.make_settings(tmp_path, tmp_path, log_format="json", log_level="info"), "web", stream)
    return stream


def test_what_is_printed_under_apache_is_a_line_of_its_own_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apache would write each as an error."""
    stream = log_under_apache(tmp_path, monkeypatch)

    print("rows:", 3, end="\n\n")
    print("half", end=" ")
    print("an old name", file=sys.stderr)

    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(each["level"], each["message"]) for each in found] == [("info", "rows: 3"), ("warning", "an old name")]


def test_a_log_that_cannot_be_written_says_so_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = log_under_apache(tmp_path, monkeypatch)
    stream.close()

    print("rows")

    assert "ValueError: I/O operation on closed file" in capfd.readouterr().err
