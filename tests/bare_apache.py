"""Apache with our module of arrivals and nothing else of ours, on a free port."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import servers

START_SECONDS = 60.0
# Ours, beside the Python that runs us.
MODULES = Path(sys.prefix) / "lib" / "cask"
COMMON = """
Define MODULES /usr/lib/apache2/modules
<IfFile "/usr/lib64/httpd/modules/mod_alias.so">
    Define MODULES /usr/lib64/httpd/modules
</IfFile>
<IfModule !mpm_event_module>
    LoadModule mpm_event_module ${{MODULES}}/mod_mpm_event.so
</IfModule>
LoadModule authz_core_module ${{MODULES}}/mod_authz_core.so
LoadModule remoteip_module ${{MODULES}}/mod_remoteip.so
LoadModule arrivals_module {modules}/mod_arrivals.so
ServerName localhost
DefaultRuntimeDir {home}
PidFile {home}/pid
ErrorLog {home}/log
Listen {port}
ListenBacklog 4096
DocumentRoot {home}/files
"""


@dataclass(frozen=True)
class BareApache:
    """It runs in the foreground, as the service user."""

    port: int
    home: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(configuration: str, home: Path | None = None) -> Iterator[BareApache]:
    """With ``COMMON`` and this; ``{home}`` in it is a folder, in which there are ``files``. It is removed."""
    home, port = home or servers.make_state_dir(), servers.free_port()
    (home / "files").mkdir(exist_ok=True)
    (home / "httpd.conf").write_text(
        COMMON.format(modules=MODULES, home=home, port=port) + configuration.replace("{home}", str(home))
    )
    user = servers.service_user() or None
    if user:
        subprocess.run(["chown", "-R", user, home], check=True)
    command = [shutil.which("apache2") or "httpd", "-f", str(home / "httpd.conf"), "-DFOREGROUND"]
    with (home / "start.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, user=user)

    def is_up() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return process.poll() is not None

    try:
        servers.wait_until(is_up, START_SECONDS, "Apache")
        assert process.poll() is None, (home / "start.log").read_text()
        yield BareApache(port, home, process)
    finally:
        process.terminate()
        process.wait(START_SECONDS)
        shutil.rmtree(home)
