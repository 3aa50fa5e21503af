"""``make dev``: the app without Apache, anew after each save of a plugin.

This process has imported Cask and listens; each save forks one that imports the plugins and answers, so a save costs
neither the import of Cask nor a refused connection. Where the new one does not start, the one before goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from flask import Flask
from werkzeug.debug import DebuggedApplication
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from app import config
from app.config import ROOT, Settings
from app.errors import CaskError, PluginError
from app.factory import create_app
from app.plugins import mounting, request_watch
from app.storage import saves
from app.storage.saves import Stamp
from app.supervision import standalone

# Templates are read by every request, and files of static/ too.
READ_AT_A_START = frozenset({".py", ".toml", ".mo", ".txt"})
# So long requests that had begun may take once a save has been taken, or once all ends.
FINISH_SECONDS = 2.0
# How often a server looks whether it is to end.
PERIOD_SECONDS = 0.05


class Development:
    """The listening socket, and the process that answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
        self._socket = socket.create_server((settings.listen_host, settings.port), family=family)
        self._fork = multiprocessing.get_context("fork")
        self._serving: ForkProcess | None = None
        # Whether the last one had every plugin.
        self._is_whole = False

    def watch(self) -> None:
        """Answer, and anew after each save of a plugin; starts this process anew after one of Cask itself."""
        ours, theirs = _ours(), self._theirs()
        self._start("first start", time.monotonic())
        while True:
            time.sleep(saves.PERIOD_SECONDS)
            saved = time.monotonic() - saves.PERIOD_SECONDS
            if (now := self._theirs()) != theirs:
                now = saves.settled(self._theirs, now)
                self._start(", ".join(saves.changed(theirs, now)[:3]), saved)
                theirs = now
            elif _ours() != ours:
                self.close()
                os.execv(sys.executable, [sys.executable, "-m", "app.plugins.development"])  # noqa: S606 - no shell

    def close(self) -> None:
        """End what answers."""
        self._socket.close()
        if self._serving is not None:
            _end(self._serving)

    def _theirs(self) -> Stamp:
        return saves.stamp(self._settings.plugins_dir, lambda path: path.suffix in READ_AT_A_START)

    def _start(self, why: str, saved: float) -> None:
        ready, told = self._fork.Pipe(duplex=False)
        process = self._fork.Process(
            target=_serve, args=(self._socket, told, self._settings), kwargs={"is_whole": self._is_whole}, daemon=True
        )
        process.start()
        told.close()
        try:
            self._is_whole = ready.recv()
        except EOFError:
            goes_on = "The last good one goes on answering." if self._serving else "Nothing answers yet."
            print(f"fail  {why}: it does not start. {goes_on} Mend it and save.", file=sys.stderr)
            return
        before, self._serving = self._serving, process
        if before is not None:
            _end(before)
        print(f"ok    {why}: it answers, {time.monotonic() - saved:.2f} s after the save", file=sys.stderr)


def main() -> int:
    """Serve until told to end. Returns 2 when settings are wrong or the address is taken."""
    settings = config.load()
    if settings.is_deployed:
        print(f"This is for development, and ENV is {settings.env!r}.\nNext: make serve", file=sys.stderr)
        return 2
    try:
        development = Development(settings)
    except OSError as error:
        print(f"{settings.listen_host}:{settings.port}: {error.strerror}. Give another: PORT=8001", file=sys.stderr)
        return 2
    standalone.handle_signals()
    with contextlib.closing(development), contextlib.suppress(KeyboardInterrupt):
        development.watch()
    return 0


def _serve(listening: socket.socket, told: Connection, settings: Settings, *, is_whole: bool) -> None:
    # Where it dies by a signal, the next one reports a crash.
    standalone.handle_signals()
    # breakpoint() in a view stops in the terminal.
    with contextlib.suppress(OSError):
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process is there
    standalone.end_with_parent()
    # Python takes a compiled file for current by its source's size and second: two saves in one second would be one.
    sys.dont_write_bytecode = True
    try:
        app, is_whole = _app(settings, is_whole=is_whole)
    except CaskError as error:
        print(error.message, file=sys.stderr)
        return
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        traceback.print_exc()
        return
    patterns = [pattern for plugin in app.extensions[mounting.EXTENSION] for pattern in plugin.patterns]
    shown = DebuggedApplication(request_watch.told(app, patterns), evalex=True)
    host, port = listening.getsockname()[:2]
    server = ThreadedWSGIServer(host, port, shown, Lines, fd=listening.fileno())
    # Who asked before a save gets an answer: the server ends between two requests, and waits for its threads.
    server.daemon_threads = False
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
    told.send(is_whole)
    told.close()
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        server.serve_forever(PERIOD_SECONDS)
    # A fork of multiprocessing leaves them out.
    atexit._run_exitfuncs()


def _app(settings: Settings, *, is_whole: bool) -> tuple[Flask, bool]:
    """The app, and whether all plugins are in it. Raises PluginError where one is broken and was not before."""
    try:
        return create_app(settings.model_copy(update={"plugins_on_error": "stop"})), True
    except PluginError:
        if is_whole or settings.plugins_on_error == "stop":
            raise
        return create_app(settings), False


class Lines(WSGIRequestHandler):
    """Says each request in a line, as ``flask run`` does."""

    def log(self, type: str, message: str, *args: object) -> None:
        """To the terminal; the log's own format is that of the settings."""
        print(f"{self.address_string()} {message % args}", file=sys.stderr)


def _ours() -> Stamp:
    found: Stamp = {}
    for folder in ("app", "cask"):
        found |= saves.stamp(ROOT / folder, lambda path: path.suffix == ".py")
    return found


def _end(process: ForkProcess) -> None:
    process.terminate()
    process.join(FINISH_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


if __name__ == "__main__":
    sys.exit(main())
