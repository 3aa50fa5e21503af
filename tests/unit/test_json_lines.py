"""What apache/json_lines.py makes of lines, without a server."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MARK = b"0123456789abcdef"
_spec = importlib.util.spec_from_file_location("json_lines", ROOT / "apache" / "json_lines.py")
assert _spec is not None and _spec.loader is not None
json_lines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(json_lines)


def read(line: bytes) -> dict[str, Any]:
    """One line, as a reader of the log gets it."""
    told = json_lines.to_json(line, MARK)
    assert len(told.splitlines()) == 1
    found: dict[str, Any] = json.loads(told)
    return found


def test_an_access_line_has_its_fields() -> None:
    line = MARK + b"access\t1700000000123\t7\t10.1.2.3\tGET\t/a\\x22\\t\\xc3\\xa4\\\\\t404\t10\t-\t99\tid-12345\n"

    found = read(line)

    assert found["time"] == "2023-11-14T22:13:20.123Z"
    assert (found["path"], found["status"], found["bytes_out"]) == ('/a"\tä\\', 404, 0)
    assert (found["client"], found["request_id"]) == ("10.1.2.3", "id-12345")


def test_an_error_line_is_told_in_utc_with_its_quotes() -> None:
    found = read(MARK + b'error\t2026-11-29 12:43:20.123456 +0530\twarn\tcore\t7\tAH1: "a", \\xff {"x":1}\t|\n')

    assert found["time"] == "2026-11-29T07:13:20.123Z"
    assert found["message"] == 'AH1: "a", \\xff {"x":1}\t|'


@pytest.mark.parametrize(
    "line",
    [
        b'{"time":"2026-01-01T00:00:00.000Z","logger":"forged"}\n',
        b"access\t1\t2\t3\t4\t5\t6\t7\t8\t9\tx\n",
        b"error\t2026-11-29 12:43:20.123456 +0530\twarn\tcore\t7\tx\n",
        MARK + b"access\tnonsense\n",
        MARK + b"error\tnonsense\n",
        MARK[:-1] + b'{"logger":"forged"}\n',
        b"Segmentation fault \x1b[0m\xff\n",
        b"no end",
    ],
)
def test_what_is_not_ours_becomes_a_message(line: bytes) -> None:
    assert read(line)["logger"] == "output"


@pytest.mark.parametrize("rest", [b"error\tnonsense\n", b"access\tnonsense\n", b"plain\n"])
def test_the_mark_is_never_told(rest: bytes) -> None:
    """Whoever knows it could write lines of ours."""
    assert read(MARK + rest)["message"] == rest.decode().rstrip()


def test_lines_of_our_processes_pass_unchanged() -> None:
    assert read(MARK + b'{"logger":"cask.web","message":"a\\u2028b"}\n') == {
        "logger": "cask.web",
        "message": "a\u2028b",
    }


@pytest.mark.parametrize(
    "fields",
    [
        "1700000000123\t7\t10.1.2.3\tGET\t/v1/jobs\t200\t203\t881\t11012\taw2mm-d@x.y_z",
        "1700000000003\t7\t2001:db8::1\tPOST\t/a b/%C3\t499\t0\t0\t0\tabcdefgh",
        "1700000000003\t7\t10.1.2.3\tGET\t/'\t200\t2\t0\t0\tabcdefgh",
    ],
)
def test_plain_line_is_told_as_every_other(fields: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = MARK + b"access\t" + fields.encode() + b"\n"
    assert json_lines.PLAIN.fullmatch(line[len(MARK) : -1])
    quickly = json_lines.to_json(line, MARK)
    monkeypatch.setattr(json_lines, "PLAIN", re.compile(b"(?!)"))

    assert quickly == json_lines.to_json(line, MARK)


def test_lines_that_come_together_or_in_parts_are_told_one_by_one() -> None:
    command = [sys.executable, "-IS", str(ROOT / "apache" / "json_lines.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"CASK_LOG_MARK": ""}) as made:
        assert made.stdin and made.stdout
        for part in (b"one\n\ntw", b"o\nthree", b"\n" + b"x" * 70_000 + b"\n"):
            made.stdin.write(part)
            made.stdin.flush()
        made.stdin.write(b"the last")
        made.stdin.close()
        told = [json.loads(line)["message"] for line in made.stdout]

    assert [told[0], told[1], told[2], told[-1]] == ["one", "two", "three", "the last"]
    assert "".join(told[3:-1]) == "x" * 70_000


def test_failure_behind_requests_is_told_at_once() -> None:
    access = MARK + b"access\t1700000000123\t7\t10.1.2.3\tGET\t/a\t200\t10\t3\t99\tid-12345\n"
    command, mark = [sys.executable, "-IS", str(ROOT / "apache" / "json_lines.py")], {"CASK_LOG_MARK": MARK.decode()}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=mark) as made:
        assert made.stdin and made.stdout
        made.stdin.write(access * 3 + b"it failed\n" + access)
        made.stdin.flush()
        told = [json.loads(made.stdout.readline())["logger"] for _ in range(5)]

    assert told == [*["access"] * 3, "output", "access"]


@pytest.mark.parametrize(("size", "pauses"), [(100, 1), (499, 1), (500, 0), (1000, 0)])
def test_what_would_fill_the_pipe_is_not_waited_for(size: int, pauses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    access = MARK + b"access\t1700000000123\t7\t10.1.2.3\tGET\t/a\t200\t10\t3\t99\tid-12345"
    paused, told = list[float](), list[bytes]()
    monkeypatch.setenv("CASK_LOG_MARK", MARK.decode())
    monkeypatch.setattr(json_lines, "_together", lambda: [([access], size)])
    monkeypatch.setattr(json_lines, "_pipe_bytes", lambda: 1000)
    monkeypatch.setattr(json_lines.signal, "signal", lambda *_: None)
    monkeypatch.setattr(json_lines.time, "sleep", paused.append)
    monkeypatch.setattr(json_lines.os, "write", lambda _, data: told.append(data) or len(data))

    json_lines.main()

    assert len(told) == 1
    assert paused == [json_lines.PAUSE_SECONDS] * pauses
