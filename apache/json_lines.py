"""Make one JSON object of each line of standard input: what stands before the log with LOG_FORMAT=json.

``python apache/json_lines.py``, with CASK_LOG_MARK in the environment. Our own processes write JSON, Apache its fields
between tabs, each behind the mark: a word that is new at each start, so that nothing a caller sends can look like a
line of ours. What comes without it (a library, an interpreter that ends) becomes the message of a line.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

LONGEST_BYTES = 1 << 16
# After requests were told, the next are gathered for so long: with each line for itself, nearly all of the time would
# go into waking up. The pipe holds what comes meanwhile; what would fill more than half of it is not waited for, since
# the server's threads would then wait for us.
PAUSE_SECONDS = 0.02
PIPE_BYTES = 1 << 20
ACCESS, ERROR = b"access\t", b"error\t"
# Nearly all access lines: nothing in them is escaped, neither by Apache nor in JSON.
COUNT = rb"\t(0|[1-9]\d*)"
PLAIN = re.compile(
    rb"access\t(\d{1,12})(\d{3})"
    + COUNT
    + rb"\t([0-9A-Fa-f.:]+)\t([A-Z]+)\t([ !#-\[\]-~]+)"
    + 4 * COUNT
    + rb"\t([\w@.-]+)",
    re.ASCII,
)
PLAIN_LINE = (
    '{"time": "%s.%sZ", "level": "info", "logger": "access", "role": "httpd", "pid": %s, "client": "%s", '
    '"method": "%s", "path": "%s", "status": %s, "bytes_in": %s, "bytes_out": %s, "microseconds": %s, '
    '"request_id": "%s"}'
)
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
        if plain := PLAIN.fullmatch(rest):
            seconds, *others = plain[0][len(ACCESS) :].decode("ascii").split("\t")
            return PLAIN_LINE % (_second(int(seconds[:-3])), seconds[-3:], *others)
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


@functools.lru_cache(4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _dumps(line: dict[str, object]) -> str:
    return json.dumps(line, ensure_ascii=False).translate(HARMLESS)


def _together() -> Iterator[tuple[list[bytes], int]]:
    """The lines that are there, and their bytes: under load a reading and writing for each would cost more than it."""
    rest = b""
    while data := os.read(0, PIPE_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) >= LONGEST_BYTES:
            lines.append(rest)
            rest = b""
        yield lines, len(data)
    yield [rest], 0


def _pipe_bytes() -> int:
    """How much the pipe before us holds: as much as the kernel grants. 0: it is none."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(0, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        return fcntl.fcntl(0, fcntl.F_GETPIPE_SZ)
    except OSError:
        return 0


def main() -> int:
    """Until the last one who writes to us has ended."""
    mark = os.environ.get("CASK_LOG_MARK", "").encode()
    # Ctrl-C and a stop are meant for the server; its last lines are to be told too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
        signal.signal(number, signal.SIG_IGN)
    pipe_bytes = _pipe_bytes()
    for lines, size in _together():
        told = "".join(to_json(line, mark) + "\n" for line in lines if line.strip()).encode("utf-8", "backslashreplace")
        try:
            while told:
                told = told[os.write(1, told) :]
        except OSError:
            # Nobody reads. Who writes to us must not wait or fail for that.
            continue
        # A failure, or what a process says of itself, may be followed by the end of all.
        if 2 * size < pipe_bytes and all(line.startswith(mark + ACCESS) for line in lines):
            time.sleep(PAUSE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
