"""Make one JSON object of each line of standard input: what stands before the log with LOG_FORMAT=json.

``python apache/json_lines.py``, with CASK_LOG_MARK in the environment. Our own processes write JSON, Apache its fields
between tabs, each behind the mark: a word that is new at each start, so that nothing a caller sends can look like a
line of ours. What comes without it (a library, an interpreter that ends) becomes the message of a line.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from datetime import UTC, datetime

LONGEST_BYTES = 1 << 16
ACCESS, ERROR = b"access\t", b"error\t"
# As Apache writes what it logs: \xhh for a byte, \n and the like, and a backslash before itself and quotes.
ESCAPED = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)")
SHORT = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"v": b"\v", b"f": b"\f"}
# A terminal or a reader of lines would act on these; JSON itself does not mind them.
HARMLESS = {code: f"\\u{code:04x}" for code in (*range(127, 160), 0x2028, 0x2029)}
NUMBERS = ("status", "bytes_in", "bytes_out", "microseconds")


def to_json(line: bytes, mark: bytes) -> str:
    """The line as a JSON object."""
    line = line.rstrip(b"\r\n")
    is_marked = bool(mark) and line.startswith(mark)
    rest = line.removeprefix(mark) if is_marked else line
    if is_marked:
        if rest.startswith(b"{"):
            return rest.decode("utf-8", "backslashreplace")
        try:
            if rest.startswith(ACCESS):
                return _dumps(_access(rest.split(b"\t")[1:]))
            if rest.startswith(ERROR):
                return _dumps(_error(rest.split(b"\t", 5)[1:]))
        except ValueError:
            # Cut in two by another writer: a line longer than a pipe takes at once.
            pass
    # Never with the mark: who reads the log may be somebody who sends requests.
    return _dumps({"time": _moment(time.time()), "level": "info", "logger": "output", "message": _text(rest)})


def _access(fields: list[bytes]) -> dict[str, object]:
    began, pid, client, method, path, *numbers, request_id = fields
    if len(numbers) != len(NUMBERS):
        raise ValueError("other fields than an access line has")
    found: dict[str, object] = {"time": _moment(int(began) / 1000), "level": "info", "logger": "access"}
    found |= {"role": "httpd", "pid": int(pid), "client": _text(client), "method": _text(method), "path": _text(path)}
    found |= {name: _number(value) for name, value in zip(NUMBERS, numbers, strict=True)}
    return {**found, "request_id": _text(request_id)}


def _error(fields: list[bytes]) -> dict[str, object]:
    moment, level, logger, pid, message = fields
    seconds = datetime.strptime(moment.decode("ascii"), "%Y-%m-%d %H:%M:%S.%f %z").timestamp()
    found: dict[str, object] = {"time": _moment(seconds), "level": _text(level), "logger": _text(logger)}
    return {**found, "role": "httpd", "pid": int(pid), "message": _text(message)}


def _number(value: bytes) -> int:
    """Apache writes - for none."""
    return 0 if value == b"-" else int(value)


def _text(escaped: bytes) -> str:
    return ESCAPED.sub(_byte, escaped).decode("utf-8", "backslashreplace")


def _byte(found: re.Match[bytes]) -> bytes:
    what = found[1]
    return bytes([int(what[1:], 16)]) if len(what) == 3 else SHORT.get(what, what)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _dumps(line: dict[str, object]) -> str:
    return json.dumps(line, ensure_ascii=False).translate(HARMLESS)


def main() -> int:
    """Until the last one who writes to us has ended."""
    mark = os.environ.get("CASK_LOG_MARK", "").encode()
    # Ctrl-C and a stop are meant for the server; its last lines are to be told too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
        signal.signal(number, signal.SIG_IGN)
    while line := sys.stdin.buffer.readline(LONGEST_BYTES):
        if not line.strip():
            continue
        told = (to_json(line, mark) + "\n").encode("utf-8", "backslashreplace")
        try:
            while told:
                told = told[os.write(1, told) :]
        except OSError:
            # Nobody reads. Who writes to us must not wait or fail for that.
            continue
    return 0


if __name__ == "__main__":
    sys.exit(main())
