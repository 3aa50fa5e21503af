"""Who may ask a whole application of others: its processes ask here, over a Unix socket, before they call it.

They have a Python of their own and know nothing of tokens and counts; the answer is a response of ours, or none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socketserver
import threading
from pathlib import Path
from typing import Any

from flask import Flask, g, request

from app.config import Settings
from app.errors import CaskError
from app.web.middleware import authentication, error_handlers, rate_limits, request_ids
from app.web.middleware.rate_limits import Rates

log = logging.getLogger("cask.web")

# Below STATE_DIR.
FILE = Path("run") / "guard.sock"
MOST_BYTES = 256 * 1024
PATIENCE_SECONDS = 5.0


class Guard:
    """Decides by the tokens and counts of the service."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._rates: dict[tuple[str, str], Rates] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Listen, for as long as this process lives."""
        path = self._settings.state_dir / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        server = _Server(str(path), _Handler)
        server.guard = self
        path.chmod(0o600)
        threading.Thread(target=server.serve_forever, name="guard", daemon=True).start()

    def refusal(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What the caller is answered instead; None where it may ask. ``asked``: what apache/application.py sends."""
        with self._app.request_context(asked["environ"]):
            request_ids.begin()
            try:
                authentication.identify()
                self._count(asked["name"], asked["limit"])
                response = authentication.demand(asked["scope"]) if asked["scope"] else None
            except CaskError as error:
                response = error_handlers.answer(error)
            if response is None:
                return None
            found = request_ids.end(rate_limits.tell(self._app.make_response(response)))
            return {
                "status": found.status,
                "headers": list(found.headers.items()),
                "body": found.get_data(as_text=True),
            }

    def _count(self, name: str, limit: str) -> None:
        if not limit:
            return
        with self._lock:
            rates = self._rates.get((name, limit))
            rates = rates or self._rates.setdefault((name, limit), self._opened(name, limit))
        token = authentication.caller()
        address = request.environ.get("REMOTE_ADDR", "")
        g.rate = rates.count_one(address, token.id if token else "")

    def _opened(self, name: str, limit: str) -> Rates:
        return rate_limits.of_route(self._app, self._settings, f"plugin {name}", (limit,))


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    guard: Guard


class _Handler(socketserver.StreamRequestHandler):
    timeout = PATIENCE_SECONDS
    server: _Server

    def handle(self) -> None:
        """One line of JSON, and one back. Without an answer the caller is refused."""
        try:
            found = self.server.guard.refusal(json.loads(self.rfile.readline(MOST_BYTES)))
        except Exception:
            log.exception("whether a caller may ask an application could not be decided")
            return
        with contextlib.suppress(OSError):
            self.wfile.write(json.dumps(found).encode() + b"\n")
