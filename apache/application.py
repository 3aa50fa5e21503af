"""A whole application of another team in its own processes: imported in a thread, watched and reported.

Loaded by ``<name>.wsgi`` in the server root, which configure.py writes, in the application's own environment: the
standard library only. A process answers at once, and says 503 while the application is not there; what breaks while it
is imported (an error, a crash, an endless loop) is noted for /status and tried again after a while.
"""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import functools
import importlib
import importlib.util
import json
import os
import re
import signal
import socket
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
# So long may it take to learn whether a caller may ask.
GUARD_SECONDS = 5.0
# Of what Apache says of a request: what is no text of the caller's.
LEFT_OUT = frozenset({"wsgi.input", "wsgi.errors"})
COOKIE_PATH = re.compile(r"(;\s*path=)/?(?=\s*(?:;|$))", re.IGNORECASE)
LEVELS = ("debug", "info", "warning", "error")
# What a terminal or a reader of lines would act on.
HARMLESS = {code: f"\\u{code:04x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
OURS = ("<frozen importlib", "/importlib/__init__.py", "/threading.py", __file__)
Start = Callable[..., Any]


class Application:
    """The WSGI callable that Apache asks. ``target``: module:name, or module:name() for a function that makes one."""

    def __init__(
        self, name: str, target: str, notes: str, variables: dict[str, str], callers: dict[str, str], log_level: str
    ) -> None:
        os.environ.update(variables)
        replace_streams(name, log_level)
        self._callers = callers
        self._name, self._target, self._notes = name, target, Path(notes)
        self._loaded: Any = None
        self._whole_answers = _ours("web/whole_answers.py").WholeAnswers(self._answer)
        self._is_way_out_told = False
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
        if self._callers and environ["REQUEST_METHOD"] != "OPTIONS":
            refusal = self._refusal(environ)
            if refusal:
                start_response(refusal["status"], [(key, value) for key, value in refusal["headers"]])
                return [refusal["body"].encode()]
        # Below which path callers find the service; Apache lets only trusted proxies say it.
        prefix = environ.get("HTTP_X_FORWARDED_PREFIX", "")
        environ["SCRIPT_NAME"] = mount = prefix + environ["SCRIPT_NAME"]
        if prefix:
            # ProxyFix of werkzeug puts it in the place of SCRIPT_NAME, and would forget the mount.
            environ["HTTP_X_FORWARDED_PREFIX"] = mount

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            self._tell_of_way_out(headers, mount)
            return start_response(status, [(key, _placed(key, value, mount)) for key, value in headers], *rest)

        answer: Iterable[bytes] = self._whole_answers(environ, start)
        return answer

    def _answer(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._loaded(environ, start_response)
        return answer

    def _tell_of_way_out(self, headers: list[tuple[str, str]], mount: str) -> None:
        """Once: a redirect to a path that it wrote by hand leads to Cask, or to nothing."""
        if self._is_way_out_told:
            return
        for key, value in headers:
            if key.lower() == "location" and value.startswith("/") and not f"{value}/".startswith(f"{mount}/"):
                self._is_way_out_told = True
                words = f"it redirects to {value}, which is outside of {mount}; write url_for(…) in its place"
                say(self._name, "warning", f"plugin {self._name}: {words}.")

    def _refusal(self, environ: dict[str, Any]) -> dict[str, Any] | None:
        """What Cask answers the caller instead: it needs a token, or has asked too often. None where it may ask."""
        shown = {key: value for key, value in environ.items() if isinstance(value, str) and key not in LEFT_OUT}
        path = environ["SCRIPT_NAME"] + environ.get("PATH_INFO", "")
        shown |= {"SCRIPT_NAME": environ.get("HTTP_X_FORWARDED_PREFIX", ""), "PATH_INFO": path}
        line = json.dumps({"name": self._name, "environ": shown, **self._callers}).encode() + b"\n"
        until = time.monotonic() + GUARD_SECONDS
        while True:
            with contextlib.suppress(OSError, ValueError):
                return _asked(self._callers["socket"], line, max(0.1, until - time.monotonic()))
            # The process that decides may be starting.
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        words, hint = "Whether you may ask this application cannot be decided now.", "Send it again a little later."
        return _problem("application_unguarded", "The application cannot be asked now", words, hint, 2, environ)

    def _begin(self) -> None:
        self._note("loading")
        threading.Thread(target=self._import, name="import", daemon=True).start()

    def _import(self) -> None:
        module, _, name = self._target.partition(":")
        try:
            place_instance()
            found = named(importlib.import_module(module), name)
            if not callable(found):
                raise TypeError(f"{self._target} is {found!r}; expected a WSGI application")
        except BaseException:  # noqa: BLE001 - whatever it does, its process shall answer
            self._failures += 1
            self._next = time.monotonic() + min(LONGEST_WAIT_SECONDS, 2.0**self._failures)
            trace = _theirs(traceback.format_exc())
            self._reason = "\n".join(trace.splitlines()[-LAST_LINES:])
            for line in (f"plugin {self._name}: {self._target} cannot be imported:", *trace.splitlines()):
                say(self._name, "error", line)
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
        words = f"The application at {environ.get('SCRIPT_NAME', '')} {words}."
        hint = "Try again later; the operator of this service finds the reason in /status."
        seconds = 2 if is_loading else max(1, round(self._next - time.monotonic()))
        found = _problem(code, "The application is not there", words, hint, seconds, environ)
        start_response(found["status"], found["headers"])
        return [found["body"].encode()]


def replace_streams(name: str, log_level: str) -> None:
    """What the application prints is a line of the log: of level info, and warning where it goes to sys.stderr.

    ``log_level``: the least that the log takes. ``wsgi.errors`` stays Apache's, of level error: Flask writes its
    failures there.
    """
    module = _ours("telemetry/printed.py")
    least = LEVELS.index(log_level) if log_level in LEVELS else 0
    sys.stdout, sys.stderr = (
        module.stream(functools.partial(say, name, level) if LEVELS.index(level) >= least else str)
        for level in ("info", "warning")
    )


def _ours(path: str) -> Any:
    """A module of Cask that wants the standard library alone. By its path: its packages are not to be found here."""
    place = Path(__file__).parent.parent / "app" / path
    spec = importlib.util.spec_from_file_location(f"cask_{place.stem}", place)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def say(name: str, level: str, line: str) -> None:
    """One line of the log, in the form of all of them (app/telemetry/logs.py)."""
    mark, now = os.environ.get("CASK_LOG_MARK", ""), time.time()
    if mark:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        fields = {"time": moment, "level": level, "logger": "cask.printed", "role": f"plugin-{name}"}
        line = mark + json.dumps({**fields, "pid": os.getpid(), "message": line}, ensure_ascii=False)
    else:
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        line = f"{clock} {level.upper():<7} {name:<6} {line}"
    with contextlib.suppress(OSError):
        os.write(2, f"{line.translate(HARMLESS)}\n".encode("utf-8", "backslashreplace"))


def place_instance() -> None:
    """Let Flask's instance folder be in the application's own folder below STATE_DIR, where it may write.

    Unless its people brought one, or named another.
    """
    if Path("instance").is_dir():
        return
    try:
        from flask import Flask
    except ImportError:
        return
    place = Path(os.environ["APPLICATION_STATE"], "instance")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    Flask.auto_find_instance_path = lambda self: str(place)  # type: ignore[method-assign]


def named(module: Any, text: str) -> Any:
    """What a name in a module is, or what a call of it with plain values returns, such as create_app('production')."""
    wanted = ast.parse(text, mode="eval").body
    if not isinstance(wanted, ast.Call):
        return getattr(module, text)
    values = [ast.literal_eval(each) for each in wanted.args]
    named = {each.arg: ast.literal_eval(each.value) for each in wanted.keywords if each.arg}
    return getattr(module, ast.unparse(wanted.func))(*values, **named)


def _asked(path: str, line: bytes, seconds: float) -> dict[str, Any] | None:
    """The guard's answer (app/web/ops/guard.py). Raises OSError, ValueError."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(seconds)
        asked.connect(path)
        asked.sendall(line)
        with asked.makefile("rb") as answer:
            found: dict[str, Any] | None = json.loads(answer.readline())
    return found


def _problem(code: str, title: str, words: str, hint: str, seconds: int, environ: dict[str, Any]) -> dict[str, Any]:
    """A document of 503 as all of Cask are, and its headers."""
    kind, request_id = f"urn:cask:problem:{code}", environ.get("HTTP_X_REQUEST_ID", "")
    problem = {"type": kind, "title": title, "status": 503, "detail": words, "code": code, "hint": hint}
    body = json.dumps({**problem, "request_id": request_id}) + "\n"
    headers = {"Content-Type": "application/problem+json", "Retry-After": str(seconds), "Cache-Control": "no-store"}
    headers["Content-Length"] = str(len(body))
    return {"status": "503 Service Unavailable", "headers": list(headers.items()), "body": body}


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
