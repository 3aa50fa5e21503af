"""`make reload`: web processes one by one, ops and jobs read the settings anew, and no request is lost.

A changed certificate serves from then on. Engine, models and the rest of Apache's own part (ports, limits) stay as they
are: those need a stop and a start. HUP and USR1 to Apache's first process lead here too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app import config  # noqa: E402 - the line above makes it importable
from app.config import Settings, plugin_settings  # noqa: E402
from app.errors import CaskError  # noqa: E402
from app.host import certificates, permissions  # noqa: E402 - the line above makes it importable
from app.plugins import replacement  # noqa: E402 - the line above makes it importable
from app.plugins.manifest import Manifest  # noqa: E402 - the line above makes it importable
from app.storage import file_locks  # noqa: E402 - the line above makes it importable
from app.supervision import probe, reload_requests  # noqa: E402
from app.telemetry import shards  # noqa: E402

PERIOD_SECONDS = 0.1
# A new one is there within seconds; on a machine without a free core it takes longer.
START_SECONDS = 60.0
HANDSHAKE_SECONDS = 20.0
# Importing them takes a second or so.
CHECK_SECONDS = 120.0
# The jobs' worker reads the settings when it ends; what it has in hand is predicted, the rest waits.
SIGNALS = (("web", signal.SIGUSR1), ("ops", signal.SIGUSR1), ("jobs", signal.SIGTERM))


class ReloadError(Exception):
    """Why it ended early, in one line for the operator."""


def main() -> int:
    """Returns 2 and one line when nothing runs, something is wrong, or a process does not come back."""
    try:
        settings = config.load()
    except CaskError as error:
        print(f"FAIL: {error.message} {error.hint} Nothing was touched.".replace("  ", " "), file=sys.stderr)
        return 2
    try:
        reload(settings)
    except (ReloadError, CaskError, OSError) as error:
        print(f"FAIL: {error}", file=sys.stderr)
        return 2
    return 0


def reload(settings: Settings) -> None:
    """All of it, one reload at a time. Raises ReloadError, OSError."""
    # Files are written below STATE_DIR, which belongs to the service's user.
    permissions.become_owner(settings.state_dir)
    server_root = settings.state_dir / "run" / "httpd"
    if not _pids(settings.state_dir, "web"):
        raise ReloadError(f"nothing runs with {settings.state_dir}.")
    check_plugins(settings)
    with _alone(server_root / reload_requests.LOCK):
        is_new = is_certificate_new(settings)
        if is_new and settings.tls_certificate and settings.tls_key:
            place_certificate(settings, settings.tls_certificate, settings.tls_key)
            print(f"The certificate in {settings.tls_certificate} serves now.")
        # What is in hand is finished first.
        patience = settings.server_shutdown_seconds + START_SECONDS
        for role, number in SIGNALS:
            for pid in _pids(settings.state_dir, role):
                if not _replaced(settings.state_dir, role, pid, number, patience):
                    raise ReloadError(f"nobody has taken the place of {role} {pid}; see the error log.")
                print(f"{role} {pid} was replaced.")
        refused = [fault for plugin in replacement.hosted(settings) if (fault := _replace(settings, plugin))]
        if refused:
            raise ReloadError(" ".join(refused))


def _replace(settings: Settings, plugin: Manifest) -> str:
    """Replace the processes of an application, one by one; why not, where they serve on."""
    try:
        said = replacement.replace(settings, plugin)
    except replacement.NotReplacedError as error:
        return str(error)
    for line in said:
        print(line)
    return ""


def check_plugins(settings: Settings) -> None:
    """Whether new processes could mount the plugins, asked in one of its own. Raises ReloadError where not."""
    if settings.plugins_on_error == "skip" or not plugin_settings.folders(settings):
        return
    command = [sys.executable, "-B", "-m", "app.cli", "plugin", "check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)
    if done.returncode:
        raise ReloadError(f"{done.stderr.strip()} Nothing was touched.")


def is_certificate_new(settings: Settings) -> bool:
    """Whether another pair than that of the files serves. Raises ReloadError where theirs cannot."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if not settings.tls_enabled or certificate is None or key is None:
        return False
    if fault := certificates.pair_fault(certificate, key):
        raise ReloadError(f"{fault}. Nothing was touched.")
    pair = certificates.read(certificate, key)
    is_shown = shown_certificate(settings) == certificates.first(pair)
    if is_shown and certificates.is_serving(pair, settings.state_dir / "run" / "httpd"):
        return False
    if certificates.is_expired(certificate):
        raise ReloadError(f"{certificate} has expired. Nothing was touched.")
    return True


def place_certificate(settings: Settings, certificate: Path, key: Path) -> None:
    """Let a pair that was checked serve, and see that it does. Raises ReloadError, OSError."""
    pair = certificates.read(certificate, key)
    certificates.place(pair, settings.state_dir / "run" / "httpd")
    if shown_certificate(settings) != certificates.first(pair):
        raise ReloadError("the new certificate is not shown; see the error log.")


def shown_certificate(settings: Settings) -> bytes:
    """What a handshake shows now. Raises ReloadError where there is none."""
    try:
        return certificates.shown(probe.here(settings.listen_host), settings.https_port, HANDSHAKE_SECONDS)
    except OSError as error:
        raise ReloadError(
            f"HTTPS is not answered on port {settings.https_port} ({error}): a new port needs a restart."
        ) from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One reload after the other. Raises OSError."""
    descriptor = file_locks.take(path, is_waiting=True)
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)


def _pids(state_dir: Path, role: str) -> list[int]:
    """Living processes of a role that have begun to serve."""
    return [sign.pid for sign in shards.signs(state_dir) if sign.role == role and sign.beat]


def _replaced(state_dir: Path, role: str, pid: int, number: int, patience: float) -> bool:
    """Ask one to finish and go; wait until another one is there in its place."""
    count = len(_pids(state_dir, role))
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    end = time.monotonic() + patience
    while time.monotonic() < end:
        now = _pids(state_dir, role)
        if pid not in now and len(now) >= count:
            return True
        time.sleep(PERIOD_SECONDS)
    return False


if __name__ == "__main__":
    sys.exit(main())
