"""Reads access logs: ours, and the combined format of Apache and nginx; rotated, compressed or not. No sockets."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from loadtest.statuses import UsageError

GZIP = b"\x1f\x8b"
# host user [29/Nov/2026:10:00:00 +0100] "GET /path HTTP/1.1" 200 …, whatever stands before and after.
COMBINED = re.compile(
    r'\[(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\] "((?:[^"\\]|\\.)*)" (\d{3}|-)'
)
# Ours with LOG_FORMAT=text: 10:00:00 ACCESS  httpd  200 GET /path 1234us …
TEXT = re.compile(r"(\d\d):(\d\d):(\d\d) ACCESS  httpd  (\d{3}) (\S+) (\S+) \d+us ")
OTHER_TEXT = re.compile(r"\d\d:\d\d:\d\d [A-Za-z]+ +\S")
# The words do not depend on the language of this machine.
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
METHOD = re.compile(r"[A-Z]+")
PATH = re.compile(r"/[!-~]*")
HALF_DAY = timedelta(hours=12)


class Entry(NamedTuple):
    """One request as it was logged; ``at`` in seconds of the wall clock. ``status`` is 0 where it is not known."""

    at: float
    method: str
    path: str
    status: int


@dataclass
class Log:
    """The requests of some files in the order of their times, and the lines that say none."""

    entries: list[Entry] = field(default_factory=list)
    broken: int = 0
    first_broken: str = ""


def read(paths: Iterable[Path]) -> Log:
    """All requests in these files, in whatever order those are given. Raises UsageError where there is none."""
    log = Log()
    for path in paths:
        try:
            for number, line in enumerate(_lines(path), 1):
                _take(log, line, f"{path.name}:{number}")
        except (OSError, EOFError, gzip.BadGzipFile) as error:
            raise UsageError(f"REPLAY {str(path)!r} cannot be read: {error}") from None
    if len(log.entries) < 2:
        raise UsageError(
            f"REPLAY has {len(log.entries)} requests and {log.broken} lines that are none, such as {log.first_broken};"
            " expected an access log of ours, or the combined format of Apache and nginx."
        )
    log.entries = _spread(sorted(_dated(log.entries), key=lambda entry: entry.at))
    return log


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        is_packed = file.read(2) == GZIP
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if is_packed else file as lines:
            for line in lines:
                yield line.decode("utf-8", "replace").rstrip("\r\n")


def _take(log: Log, line: str, where: str) -> None:
    try:
        entry = _entry(line)
    except (ValueError, KeyError, TypeError):
        log.broken += 1
        log.first_broken = log.first_broken or f"{where}: {line[:60]!r}"
    else:
        log.entries += [entry] if entry else []


def _entry(line: str) -> Entry | None:
    """The request of a line; None for one that is of another log. Raises ValueError, KeyError, TypeError."""
    if line.startswith("{"):
        row = json.loads(line)
        if row.get("logger") != "access":
            return None
        at = datetime.fromisoformat(row["time"]).timestamp()
        return _checked(at, row["method"], row["path"], int(row["status"]))
    if found := COMBINED.search(line):
        return _combined(found)
    if found := TEXT.match(line):
        hours, minutes, seconds, status, method, path = found.groups()
        # Without a date: _dated counts the days.
        return _checked(int(hours) * 3600 + int(minutes) * 60 + int(seconds), method, path, int(status))
    if not line or OTHER_TEXT.match(line):
        return None
    raise ValueError(line)


def _combined(found: re.Match[str]) -> Entry:
    day, month, year, hours, minutes, seconds, sign, offset_hours, offset_minutes, request, status = found.groups()
    offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes)) * (-1 if sign == "-" else 1)
    moment = datetime(
        *(int(year), MONTHS.index(month) + 1, int(day), int(hours), int(minutes), min(59, int(seconds))),
        tzinfo=timezone(offset),
    )
    method, path, *_ = request.split(" ")
    return _checked(moment.astimezone(UTC).timestamp(), method, path, 0 if status == "-" else int(status))


def _checked(at: float, method: str, path: str, status: int) -> Entry:
    if not METHOD.fullmatch(method) or not PATH.fullmatch(path):
        raise ValueError(f"{method} {path}")
    return Entry(at, method, path, status)


def _dated(entries: list[Entry]) -> Iterator[Entry]:
    """Entries of a log without dates go on after midnight."""
    day, before = 0.0, entries[0].at
    for entry in entries:
        # A date makes it far more than a day.
        if entry.at < 86400 and before - entry.at > HALF_DAY.total_seconds():
            day += 86400
        before = entry.at
        yield entry._replace(at=entry.at + day)


def _spread(entries: list[Entry]) -> list[Entry]:
    """Where times are whole seconds, those of one second are spread over it: they did not come all at once."""
    if any(entry.at % 1 for entry in entries):
        return entries
    found: list[Entry] = []
    begun = 0
    for number, entry in enumerate(entries, 1):
        if number == len(entries) or entries[number].at != entry.at:
            same = entries[begun:number]
            found += [each._replace(at=each.at + place / len(same)) for place, each in enumerate(same)]
            begun = number
    return found
