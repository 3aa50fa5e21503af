"""Look before starting: is the port free, may the service user read us? Prints one line a failure, exits with 2."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app import config  # noqa: E402 - the line above makes it importable

PRIVILEGED_PORTS = 1024


def main() -> int:
    """Print every reason against a start. Returns 2 when there is one."""
    settings = config.load()
    user = os.environ.get("SERVICE_USER", "") if os.getuid() == 0 else ""
    reasons = [*_port_reasons(settings.listen_host, settings.port), *_reading_reasons(user)]
    if settings.tls_enabled:
        reasons += _port_reasons(settings.listen_host, settings.https_port)
    for reason in reasons:
        print(f"FAIL: {reason}", file=sys.stderr)
    return 2 if reasons else 0


def _port_reasons(host: str, port: int) -> Iterator[str]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            yield f"port {port} is below {PRIVILEGED_PORTS} and needs root. Choose another: PORT=8000."
        except OSError as error:
            yield f"cannot listen on {host}:{port}: {error.strerror}. Choose another port with PORT=."


def _reading_reasons(user: str) -> Iterator[str]:
    """Apache gives up root; a Python or checkout below a private home would crash in a loop."""
    if not user:
        return
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        yield f"SERVICE_USER is {user!r}, and there is no such user. Make one, or choose another."
        return
    for path in {ROOT, Path(sys.executable).parent, Path(sys.executable).resolve().parent, Path(sys.base_prefix)}:
        closed = _first_closed(path, account.pw_uid, account.pw_gid)
        if closed:
            yield (
                f"the user {user} may not enter {closed}, which is on the way to {path}. Put it elsewhere,"
                f" allow it with `chmod o+x {closed}`, or set SERVICE_USER."
            )


def _first_closed(path: Path, uid: int, gid: int) -> Path | None:
    for folder in reversed([path, *path.parents]):
        stat = folder.stat()
        bit = 0o100 if stat.st_uid == uid else 0o010 if stat.st_gid == gid else 0o001
        if not stat.st_mode & bit:
            return folder
    return None


if __name__ == "__main__":
    sys.exit(main())
