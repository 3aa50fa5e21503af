"""Look before starting: are the settings right, is the port free, may the service user read us?

``python apache/preflight.py PID``: of the process that is to serve. Prints STATE_DIR when all is well; else one line a
failure on stderr, and exits with 2. One program for all of it: each start of Python takes a tenth of a second.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app import config, permissions  # noqa: E402 - the line above makes it importable
from app.config import Settings  # noqa: E402
from app.errors import SettingsError  # noqa: E402

PRIVILEGED_PORTS = 1024


def main() -> int:
    """Print every reason against a start. Returns 2 when there is one."""
    try:
        settings = config.load()
    except SettingsError as error:
        print(error.message, file=sys.stderr)
        return 2
    if reason := _running_reason(settings.state_dir):
        print(f"FAIL: {reason}", file=sys.stderr)
        return 2
    user = os.environ.get("SERVICE_USER", "") if os.getuid() == 0 else ""
    reasons = [*_port_reasons(settings.listen_host, settings.port), *_reading_reasons(user, settings)]
    if settings.tls_enabled:
        reasons += _port_reasons(settings.listen_host, settings.https_port)
    for reason in reasons:
        print(f"FAIL: {reason}", file=sys.stderr)
    if not reasons:
        print(settings.state_dir)
    return 2 if reasons else 0


def _running_reason(state_dir: Path) -> str:
    """Two services may not share a folder. Empty when no other one does."""
    try:
        pid = int((state_dir / "run" / "httpd" / "httpd.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return ""
    # A container that was killed leaves the number of its first process behind, and in the next one that is ours.
    if [str(pid)] == sys.argv[1:]:
        return ""
    return f"Cask runs already with {state_dir} (process {pid}). Stop it with make stop, or choose another STATE_DIR."


def _port_reasons(host: str, port: int) -> Iterator[str]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            yield f"port {port} is below {PRIVILEGED_PORTS} and needs root. Choose another: PORT=8000."
        except OSError as error:
            yield f"cannot listen on {host}:{port}: {error.strerror}. Choose another port with PORT=."


def _reading_reasons(user: str, settings: Settings) -> Iterator[str]:
    """Apache gives up root; a Python or checkout below a private home would crash in a loop."""
    if not user:
        return
    try:
        account = permissions.account(user)
    except KeyError:
        yield f"SERVICE_USER is {user!r}, and there is no such user. Make one, or choose another."
        return
    python, state = Path(sys.executable), permissions.deepest_existing(settings.state_dir)
    for path in {ROOT, python.parent, python.resolve().parent, Path(sys.base_prefix), state}:
        closed = account.first_closed(path)
        if closed:
            yield (
                f"the user {user} may not enter {closed}, which is on the way to {path}. Put it elsewhere,"
                f" allow it with `chmod o+x {closed}`, or set SERVICE_USER."
            )
    for path in settings.secret_files:
        if not account.may(permissions.READ, path) or account.first_closed(path.parent):
            yield f"the user {user} may not read the secret in {path}. Give it to that user: chown {user} {path}"


if __name__ == "__main__":
    sys.exit(main())
