"""Log lines: readable ones for a person (text), one JSON object a line for a collector (json). A leaf."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from contextvars import ContextVar
from typing import Any, TextIO

from app import config
from app.config import Settings
from app.telemetry import metrics, printed

# Set by the request guard, read by every line written while a request is served.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# Pillow tells each chunk of each file; Flask's development server logs each request, which we do ourselves.
QUIET_LOGGERS = ("PIL", "pydot", "urllib3", "werkzeug")

# What logging puts into each record by itself; anything else was given as `extra` and belongs into the line.
PLAIN_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

# What callers send ends in messages: a line break would forge a line, an escape sequence would reach the terminal.
HARMLESS = {code: f"\\u{code:04x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)} | {10: "\\n", 13: "\\r"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a stack trace is a field of it."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role
        self._mark = config.log_mark()

    def format(self, record: logging.LogRecord) -> str:
        """Render the record. Values that JSON does not know are written as text."""
        line = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "role": self.role,
            "pid": record.process,
            "message": record.getMessage(),
            **_extras(record),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return self._mark + json.dumps(line, default=str, ensure_ascii=False).translate(HARMLESS)


class TextFormatter(logging.Formatter):
    """``17:29:00 INFO  engine  message  key=value  [request id]``."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        """Render the record for a terminal."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        extras = "".join(f"  {name}={value}" for name, value in _extras(record).items())
        mark = f"  [{request_id.get()}]" if request_id.get() else ""
        line = f"{clock} {record.levelname:<7} {self.role:<6} {record.getMessage()}{extras}{mark}".translate(HARMLESS)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class Counter(logging.Handler):
    """Counts warnings and errors, for the metrics."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Count one line."""
        metrics.LOG_LINES.add(level="error" if record.levelno >= logging.ERROR else "warning")


def configure(settings: Settings, role: str, stream: TextIO | None = None) -> None:
    """Send every line of this process to ``stream``, by default where Apache's error log goes. Can run twice.

    ``role`` names the process in each line: web, ops, engine.
    """
    handler = logging.StreamHandler(stream or _error_stream())
    handler.setFormatter(JsonFormatter(role) if settings.log_format == "json" else TextFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler, Counter()]
    root.setLevel(settings.log_level.upper())
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    if "mod_wsgi" in sys.modules and not isinstance(getattr(sys.stdout, "buffer", None), printed.Lines):
        # Apache would log all that is printed, by a plugin or a library, as an error.
        sys.stdout, sys.stderr = (printed.stream(Printed(level)) for level in (logging.INFO, logging.WARNING))


class Printed:
    """Makes a line of the log of each line that is printed: what ``printed.stream`` tells."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._here = threading.local()

    def __call__(self, line: str) -> None:
        """Log it."""
        if getattr(self._here, "is_logging", False):
            # What the log itself prints, it prints because it cannot log.
            os.write(2, f"{line}\n".encode("utf-8", "backslashreplace"))
            return
        self._here.is_logging = True
        try:
            logging.getLogger("cask.printed").log(self._level, "%s", line)
        finally:
            self._here.is_logging = False


def tell_refusal(line: str) -> None:
    """Say on stderr why the service does not start: as it is to whoever asked for a check (``CASK_CHECK=yes``) or reads
    text, as a line of the log with ``LOG_FORMAT=json``, before any process of ours writes one.
    """
    if config.log_format() == "json" and not config.is_check():
        fields = {"name": "cask.start", "levelname": "ERROR", "levelno": logging.ERROR}
        line = JsonFormatter("start").format(logging.makeLogRecord(fields | {"msg": line.removeprefix("FAIL: ")}))
    print(line, file=sys.stderr, flush=True)


def _error_stream() -> TextIO:
    """File descriptor 2. Under mod_wsgi ``sys.stderr`` would put Apache's prefix before each of our lines."""
    if "mod_wsgi" not in sys.modules:
        return sys.stderr
    return os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in PLAIN_ATTRIBUTES}
