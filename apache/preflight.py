"""Look before starting: is the port free, may the service user read us? Part of ``configure.py``.

One program for all of it: each start of Python takes a tenth of a second.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from app.config import ROOT, Settings
from app.host import machine, permissions, running, sizing

PRIVILEGED_PORTS = 1024
HTTP2_APACHE = (2, 4, 69)
# mod_wsgi-express writes paths unquoted into a shell script and into Apache's configuration. Letters may be of any
# language; requirements/install.sh refuses the same.
UNSAFE = re.compile(r"[^\w./:,@%+=-]")


def reasons(settings: Settings, pid: int) -> list[str]:
    """Every reason against a start, in words; touches nothing. ``pid``: of the process that is to serve; 0 for none."""
    if reason := _running_reason(settings.state_dir, pid):
        return [reason]
    found = [
        *_path_reasons(settings),
        *_port_reasons(settings.listen_host, settings.port),
        *_reading_reasons(settings),
        *_limit_reasons(settings, pid),
        *_http2_reasons(settings),
    ]
    return [*found, *(_port_reasons(settings.listen_host, settings.https_port) if settings.tls_enabled else [])]


def _running_reason(state_dir: Path, own: int) -> str:
    """Two services may not share a folder. Empty when no other one does."""
    pid = running.server_pid(state_dir)
    # In a container, the number of the first process may be left behind by one that was killed: in this one it is ours.
    if pid is None or pid == own:
        return ""
    return f"Cask runs already with {state_dir} (process {pid}). Stop it with make stop, or choose another STATE_DIR."


def _log_reason(path: Path) -> str:
    """Why lines cannot be kept there; empty when they can. Makes nothing that was not there."""
    there = permissions.deepest_existing(path)
    if there == path:
        if not path.is_file():
            return "it is no file"
        # A full one is put aside, which changes its folder too.
        return "" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK) else "permission denied"
    if not there.is_dir():
        return f"{there} is no folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"permission denied for {there}"


def _path_reasons(settings: Settings) -> Iterator[str]:
    for name, path in (("the checkout", ROOT), ("STATE_DIR", settings.state_dir)):
        if found := UNSAFE.search(str(path)):
            yield f"the path of {name} is {str(path)!r}, and Apache's scripts cannot take {found[0]!r}. Choose another."


def _limit_reasons(settings: Settings, pid: int) -> Iterator[str]:
    """What the kernel allows each and all of our processes; a soft limit that is too low is raised for the server."""
    sizes = sizing.choose(settings)
    files, (soft, hard) = sizes.needed_files, resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        yield (
            f"needs {files} open files in a process, found a limit of {hard}. Raise it (ulimit -n {files}), or lower"
            " SERVER_MAX_CONNECTIONS and WEB_THREADS."
        )
    elif soft != resource.RLIM_INFINITY and soft < files and pid:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, hard))
    threads, most = sizes.needed_threads, machine.most_threads()
    if most is not None and most < threads:
        yield (
            f"needs {threads} processes and threads, found a limit of {most}. Raise it (pids_limit, TasksMax), or lower"
            " SERVER_MAX_CONNECTIONS and WEB_THREADS."
        )


def _port_reasons(host: str, port: int) -> Iterator[str]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            yield f"port {port} is below {PRIVILEGED_PORTS} and needs root. Choose another: PORT=8000."
        except OSError as error:
            yield f"cannot listen on {host}:{port}: {error.strerror}. Choose another port with PORT=."


def _http2_reasons(settings: Settings) -> Iterator[str]:
    """Older ones let callers take the server down by HTTP/2: CVE-2026-49975, -48913, -57941."""
    if settings.http2 == "off":
        return
    program = shutil.which("apache2") or shutil.which("httpd") or "apache2"
    said = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=20, check=False).stdout
    found = re.search(r"Apache/(\d+)\.(\d+)\.(\d+)", said)
    if found is None or tuple(map(int, found.groups())) < HTTP2_APACHE:
        wanted = ".".join(map(str, HTTP2_APACHE))
        there = found[0] if found else "none"
        yield f"HTTP2 is on, which needs Apache {wanted} or later, found {there}. Set HTTP2=off."


def _reading_reasons(settings: Settings) -> Iterator[str]:
    """What the service needs and this user, who serves, cannot have."""
    user, state = permissions.own_account().name, permissions.deepest_existing(settings.state_dir)
    if user == str(os.getuid()):
        yield f"the user {user} has no name in /etc/passwd, where Apache looks for one. In our image 10001 has."
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        yield f"the user {user} may not write {state}, where STATE_DIR is to be. Allow it: chown {user} {state}"
    if settings.log_file is not None and (why := _log_reason(settings.log_file)):
        yield f"the user {user} may not write LOG_FILE ({settings.log_file}): {why}. Choose another place, or allow it."
    for path in settings.secret_files:
        if not os.access(path, os.R_OK):
            yield f"the user {user} may not read the secret in {path}. Give it to that user: chown {user} {path}"
    if settings.tls_enabled:
        from app.host import certificates

        for path in filter(None, (settings.tls_certificate, settings.tls_key)):
            if not os.access(path, os.R_OK):
                yield (
                    f"the user {user} may not read {path}. Let it: setfacl -m u:{user}:r {path}, or put it into a group"
                    f" of that user and chmod 640 {path}"
                )
                return
        certificate, key = settings.tls_certificate, settings.tls_key
        if certificate and key and (fault := certificates.pair_fault(certificate, key)):
            yield f"{fault}. Put a certificate and its key there: TLS_CERTIFICATE, TLS_KEY."
