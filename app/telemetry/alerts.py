"""Errors that somebody should hear of now: to Sentry or a webhook. Off the request's path, bounded, told once.

An alert is a log line of level error. It is handed to a thread through a short queue; what does not fit is dropped and
counted. The same fault is told once in ALERTS_REPEAT_SECONDS by all processes together, with how often it came.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.config import Settings
from app.storage import file_locks
from app.telemetry import logs, metrics
from app.telemetry.alert import FLUSH_SECONDS, Alert, clean

log = logging.getLogger("cask.alerts")

FOLDER = "run/alerts"
# Faults are told apart by where they are logged; more than this of them share a place.
PLACES = 512
MAX_WAITING = 100
MAX_TEXT = 2000


class Once:
    """Which fault is due, over all processes: a file for each says when it was told, and how often it came since."""

    def __init__(self, folder: Path, repeat_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self.repeat_seconds = repeat_seconds
        # Of the wall: several processes compare what they wrote.
        self.clock = clock

    def take(self, fault: str, *, came: int = 1) -> int | None:
        """How often the fault came without being told, when it is due now; else None, and it is counted.

        ``came=0`` asks for what was held, without a new one; None where there is nothing to tell.
        """
        try:
            with self._open(fault) as file:
                return self._take(file, came)
        except OSError:
            # Better told twice than never.
            return 0 if came else None

    def give_back(self, fault: str) -> None:
        """It was taken, and perhaps nobody heard: whoever sees it next is to tell it."""
        with contextlib.suppress(OSError), self._open(fault) as file:
            file.truncate(0)

    @contextlib.contextmanager
    def _open(self, fault: str) -> Iterator[Any]:
        """The file of the fault, for this process alone."""
        number = int.from_bytes(hashlib.sha256(fault.encode()).digest()[:4], "big") % PLACES
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{number}.json").open("a+") as file:
            file_locks.hold(file.fileno(), is_waiting=True)
            yield file

    def _take(self, file: Any, came: int) -> int | None:
        file.seek(0)
        told, held = 0.0, 0
        with contextlib.suppress(ValueError, TypeError, KeyError):
            known = json.loads(file.read())
            told, held = float(known["told"]), int(known["held"])
        now = self.clock()
        # A clock that was set back must not hold an alert for long.
        is_due = not 0 <= now - told < self.repeat_seconds and (came or held)
        found = held if is_due else None
        file.truncate(0)
        file.write(json.dumps({"told": now, "held": 0} if is_due else {"told": told, "held": held + came}))
        return found


class Sender(logging.Handler):
    """Makes an alert of each error that is logged, for a thread behind a short queue; it starts with the first one."""

    def __init__(self, role: str, channels: Mapping[str, Callable[[Alert], None]], once: Once) -> None:
        super().__init__(logging.ERROR)
        self._role = role
        self._channels = channels
        self._once = once
        self._waiting: queue.Queue[Alert] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        # The fault that is being sent.
        self._sending = ""
        # Of faults that were told here: when to see whether they came again.
        self._again: dict[str, tuple[float, Alert]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take an error, or drop it; costs its caller microseconds. What alerts say of themselves would never end."""
        if record.name == log.name:
            return
        error = record.exc_info[1] if record.exc_info else None
        alert = Alert(
            fault=f"{self._role} {record.name} {record.pathname}:{record.lineno} {type(error).__name__}",
            text=clean(record.getMessage()[:MAX_TEXT]) + (f" [{type(error).__name__}]" if error else ""),
            logger=record.name,
            level=record.levelname.lower(),
            role=self._role,
            pid=os.getpid(),
            request_id=getattr(record, "request_id", "") or logs.request_id.get(),
            exception=error,
        )
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            self._count("dropped")
            return
        # One at a time comes here: logging holds the handler's lock.
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
            self._thread.start()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:  # type: ignore[override]
        """Wait until all is sent, at most so long. Returns whether it was."""
        with self._waiting.all_tasks_done:
            return self._waiting.all_tasks_done.wait_for(lambda: not self._waiting.unfinished_tasks, seconds)

    def end(self) -> None:
        """Send what waits, for FLUSH_SECONDS at most; what is not sent then, another process may tell at once."""
        if not self.flush(FLUSH_SECONDS) and (fault := self._sending):
            self._once.give_back(fault)

    def _run(self) -> None:
        while True:
            try:
                alert = self._waiting.get(timeout=self._pause())
            except queue.Empty:
                self._tell_again()
                continue
            try:
                self._tell(alert)
                self._tell_again()
            except Exception:
                log.warning("an alert could not be sent", exc_info=True)
            finally:
                del alert
                self._waiting.task_done()

    def _pause(self) -> float | None:
        """Seconds until a fault that was told may be told again; None: there is none."""
        now = self._once.clock()
        return min((max(0.01, due - now) for due, _ in self._again.values()), default=None)

    def _tell_again(self) -> None:
        now = self._once.clock()
        for fault, (due, alert) in list(self._again.items()):
            if due <= now:
                del self._again[fault]
                held = self._once.take(fault, came=0)
                if held:
                    self._send(replace(alert, repeats=held))

    def _tell(self, alert: Alert) -> None:
        held = self._once.take(alert.fault)
        if held is None:
            self._count("held")
        else:
            self._send(replace(alert, repeats=held))

    def _send(self, alert: Alert) -> None:
        if len(self._again) < PLACES:
            due = self._once.clock() + self._once.repeat_seconds + 0.1
            self._again[alert.fault] = due, replace(alert, exception=None)
        self._sending = alert.fault
        for channel, send in self._channels.items():
            try:
                send(alert)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are to be told
                metrics.ALERTS.add(channel=channel, outcome="failed")
                log.warning("the alert could not be sent by %s: %s", channel, type(error).__name__)
            else:
                metrics.ALERTS.add(channel=channel, outcome="sent")
        self._sending = ""

    def _count(self, outcome: str) -> None:
        for channel in self._channels:
            metrics.ALERTS.add(channel=channel, outcome=outcome)


def configure(settings: Settings, role: str) -> Sender | None:
    """Tell of this process's errors from here on; None where nobody wants to hear. Run after ``logs.configure``."""
    channels = _channels(settings)
    if not channels:
        return None
    sender = Sender(role, channels, Once(settings.state_dir / FOLDER, settings.alerts_repeat_seconds))
    logging.getLogger().addHandler(sender)
    atexit.register(sender.end)
    return sender


def _channels(settings: Settings) -> dict[str, Callable[[Alert], None]]:
    """Those that are set, each with what sends one alert, or raises; a module is imported only where it is used."""
    channels: dict[str, Callable[[Alert], None]] = {}
    if settings.sentry_dsn.get_secret_value():
        from app.telemetry.channels import sentry

        channels["sentry"] = sentry.Sentry(settings).send
    if settings.alerts_webhook_url.get_secret_value():
        from app.telemetry.channels import webhook

        channels["webhook"] = functools.partial(webhook.send, settings)
    return channels
