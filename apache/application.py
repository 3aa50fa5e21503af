"""A whole application of another team in its own processes: imported in a thread, watched and reported.

Loaded by ``<name>.wsgi`` in the server root, which configure.py writes, in the application's own environment: the
standard library only. A process answers at once, and says 503 while the application is not there; what breaks while it
is imported (an error, a crash, an endless loop) is noted for /status and tried again after a while.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

# So long after its start callers wait for an import; `make reload` loses none.
PATIENCE_SECONDS = 20.0
LONGEST_WAIT_SECONDS = 60.0
LAST_LINES = 12
COOKIE_PATH = re.compile(r"(;\s*path=)/?(?=\s*(?:;|$))", re.IGNORECASE)
OURS = ("<frozen importlib", "/importlib/__init__.py", "/threading.py", __file__)
Start = Callable[..., Any]


class Application:
    """The WSGI callable that Apache asks. ``target``: module:name, or module:name() for a function that makes one."""

    def __init__(self, name: str, target: str, notes: str, variables: dict[str, str]) -> None:
        os.environ.update(variables)
        self._name, self._target, self._notes = name, target, Path(notes)
        self._loaded: Any = None
        self._is_tried = threading.Event()
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._failures, self._reason = self._look_back()
        self._next = self._since + min(LONGEST_WAIT_SECONDS, 2.0**self._failures) if self._reason else 0.0
        if self._reason:
            self._note("failed")
            self._is_tried.set()
        else:
            self._begin()

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        """Answer as the application does; 503 while it is not there."""
        self._is_tried.wait(max(0.0, self._since + PATIENCE_SECONDS - time.monotonic()))
        if self._loaded is None:
            self._try_again()
            return self._refuse(environ, start_response)
        # Below which path callers find the service; Apache lets only trusted proxies say it.
        prefix = environ.get("HTTP_X_FORWARDED_PREFIX", "")
        environ["SCRIPT_NAME"] = mount = prefix + environ["SCRIPT_NAME"]

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [(key, _placed(key, value, mount)) for key, value in headers], *rest)

        answer: Iterable[bytes] = self._loaded(environ, start)
        return answer

    def _begin(self) -> None:
        self._note("loading")
        threading.Thread(target=self._import, name="import", daemon=True).start()

    def _import(self) -> None:
        module, _, name = self._target.partition(":")
        try:
            found = getattr(importlib.import_module(module), name.removesuffix("()"))
            found = found() if name.endswith("()") else found
            if not callable(found):
                raise TypeError(f"{self._target} is {found!r}; expected a WSGI application")
        except BaseException:  # noqa: BLE001 - whatever it does, its process shall answer
            self._failures += 1
            self._next = time.monotonic() + min(LONGEST_WAIT_SECONDS, 2.0**self._failures)
            trace = _theirs(traceback.format_exc())
            self._reason = "\n".join(trace.splitlines()[-LAST_LINES:])
            print(f"plugin {self._name}: {self._target} cannot be imported:\n{trace}", file=sys.stderr)
            self._note("failed")
        else:
            self._loaded, self._failures = found, 0
            self._note("serving")
        self._is_tried.set()

    def _try_again(self) -> None:
        """Another process tries, as what was imported in part stays so; now and then, and only when somebody asks."""
        with self._lock:
            if not self._is_tried.is_set() or time.monotonic() < self._next:
                return
            self._next = time.monotonic() + LONGEST_WAIT_SECONDS
            os.kill(os.getpid(), signal.SIGUSR1)

    def _look_back(self) -> tuple[int, str]:
        """How often in a row it failed, and the reason to wait with the next try: a process that ended importing."""
        failures, reason = 0, ""
        for path, note in list(_dead(self._notes)):
            failures = max(failures, note.get("failures", 0))
            if note.get("state") == "loading":
                failures, crash = failures + 1, path.with_suffix(".crash")
                lines = _theirs(crash.read_text(errors="replace")) if crash.exists() else ""
                lines = "\n".join(lines.splitlines()[:LAST_LINES])
                reason = f"its process ended while {self._target} was imported. {lines}".strip()
            for each in (path, path.with_suffix(".crash")):
                each.unlink(missing_ok=True)
        return failures, reason

    def _note(self, state: str) -> None:
        """For /status. Never raises: an application serves with a full disk too."""
        path = self._notes / f"{os.getpid()}.json"
        note = {"state": state, "reason": self._reason, "failures": self._failures, "since": time.time()}
        with contextlib.suppress(OSError):
            self._notes.mkdir(parents=True, exist_ok=True)
            if state == "loading":
                # A crash in C tells its lines here.
                self._crash = path.with_suffix(".crash").open("w")
                faulthandler.enable(self._crash)
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(note))
            fresh.replace(path)

    def _refuse(self, environ: dict[str, Any], start_response: Start) -> list[bytes]:
        is_loading = not self._is_tried.is_set()
        code = "application_loading" if is_loading else "application_failed"
        words = "is still being imported" if is_loading else "cannot be imported"
        problem = {
            "type": f"urn:cask:problem:{code}",
            "title": "The application is not there",
            "status": 503,
            "detail": f"The application at {environ.get('SCRIPT_NAME', '')} {words}.",
            "code": code,
            "hint": "Try again later; the operator of this service finds the reason in /status.",
            "request_id": environ.get("HTTP_X_REQUEST_ID", ""),
        }
        body = json.dumps(problem).encode() + b"\n"
        seconds = 2 if is_loading else max(1, round(self._next - time.monotonic()))
        headers = {"Content-Type": "application/problem+json", "Retry-After": str(seconds), "Cache-Control": "no-store"}
        start_response("503 Service Unavailable", [*headers.items(), ("Content-Length", str(len(body)))])
        return [body]


def _dead(notes: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The notes of processes that are no more."""
    for path in sorted(notes.glob("*.json")):
        try:
            os.kill(int(path.stem), 0)
        except ProcessLookupError:
            pass
        except (OSError, ValueError):
            continue
        else:
            if int(path.stem) != os.getpid():
                continue
        with contextlib.suppress(OSError, ValueError):
            yield path, json.loads(path.read_text())


def _theirs(trace: str) -> str:
    """A traceback without the frames of the importer: each frame is a line that names it and a line of code."""
    kept, is_ours = [], False
    for line in trace.strip().splitlines():
        if line.startswith("  File "):
            is_ours = any(name in line for name in OURS)
        if not is_ours or not line.startswith("  "):
            kept.append(line)
    return "\n".join(kept)


def _placed(key: str, value: str, mount: str) -> str:
    """A cookie for the whole host belongs to the application alone: others have one of its name, and want it back."""
    # A browser takes one with this prefix for the whole host or not at all.
    if key.lower() != "set-cookie" or value.startswith("__Host-"):
        return value
    return COOKIE_PATH.sub(rf"\g<1>{mount}", value)
