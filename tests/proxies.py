"""nginx, Apache and HAProxy as reverse proxies for tests, with the very files of docs/proxies/, each on a free port."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import servers
from tests.servers import ROOT, Server

EXAMPLES = ROOT / "docs" / "proxies"
# As both examples write it.
BACKEND = "127.0.0.1:8000"
START_SECONDS = 60.0
MODULES = ("mpm_event", "authz_core", "alias", "headers", "proxy", "proxy_http")
MODULES_FOLDER = Path("/usr/lib/apache2/modules")

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
{example}
    }}
}}
"""
APACHE = """
ServerRoot {folder}
PidFile {folder}/pid
ErrorLog {folder}/error.log
ServerName localhost
Listen 127.0.0.1:{port}
{modules}
<VirtualHost *:{port}>
{example}
</VirtualHost>
"""


@contextlib.contextmanager
def nginx(server: Server, example: str = "nginx.conf") -> Iterator[Server]:
    """The service as it is found through nginx; skips the test where there is none."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("no nginx here: apt-get install nginx (requirements/install.sh dev does)")
    port = servers.free_port()
    with _folder() as folder:
        text = NGINX.format(folder=folder, port=port, example=_example(example, server))
        config = folder / "nginx.conf"
        config.write_text(text)
        with _running(
            [program, "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(config)], server, port
        ) as found:
            yield found


@contextlib.contextmanager
def apache(server: Server, example: str = "apache.conf") -> Iterator[Server]:
    """The service as it is found through another Apache."""
    program = shutil.which("apache2", path="/usr/sbin:/usr/bin")
    assert program, "Apache serves here, so it is there"
    port = servers.free_port()
    with _folder() as folder:
        modules = "\n".join(f"LoadModule {name}_module {MODULES_FOLDER}/mod_{name}.so" for name in MODULES)
        user = servers.service_user()
        owner = f"User {user}\nGroup {user}\n" if user else ""
        text = APACHE.format(folder=folder, port=port, modules=modules, example=_example(example, server))
        config = folder / "apache.conf"
        config.write_text(owner + text)
        with _running([program, "-f", str(config), "-DFOREGROUND"], server, port) as found:
            yield found


@contextlib.contextmanager
def haproxy_below_path(server: Server, example: str = "haproxy.cfg") -> Iterator[Server]:
    """The service as it is found through HAProxy; skips the test where there is none."""
    program, port = _haproxy(), servers.free_port()
    with _folder() as folder:
        config = folder / "haproxy.cfg"
        config.write_text(_example(example, server).replace("0.0.0.0:80", f"127.0.0.1:{port}"))
        with _running([program, "-db", "-f", str(config)], server, port) as found:
            # Until its first check has passed, all is 503.
            servers.wait_until(lambda: _serves(port), START_SECONDS, "HAProxy to find the service ready")
            yield found


def _haproxy() -> str:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("no haproxy here: apt-get install haproxy (requirements/install.sh dev does)")
    return program


@contextlib.contextmanager
def haproxy(one: Server, two: Server) -> Iterator[Server]:
    """Two instances as they are found through HAProxy; skips the test where there is none."""
    program, port = _haproxy(), servers.free_port()
    text = (EXAMPLES / "haproxy-several.cfg").read_text()
    addresses = {
        "0.0.0.0:80": f"127.0.0.1:{port}",
        "cask.example": "localhost",
        "192.0.2.11:8000": f"127.0.0.1:{one.port}",
        "192.0.2.12:8000": f"127.0.0.1:{two.port}",
    }
    for example, ours in addresses.items():
        assert example in text
        text = text.replace(example, ours)
    with _folder() as folder:
        config = folder / "haproxy.cfg"
        config.write_text(text)
        with _running([program, "-db", "-f", str(config)], one, port) as found:
            yield found


def _example(name: str, server: Server) -> str:
    text = (EXAMPLES / name).read_text()
    assert BACKEND in text
    return text.replace(BACKEND, f"127.0.0.1:{server.port}")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = servers.make_state_dir()
    user = servers.service_user()
    if user:
        shutil.chown(folder, user)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(command: list[str], server: Server, port: int) -> Iterator[Server]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        servers.wait_until(lambda: process.poll() is not None or _listens(port), START_SECONDS, " ".join(command))
        assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
        yield replace(server, url=f"http://127.0.0.1:{port}", port=port)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _serves(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", "/vision/livez", headers={"Host": "localhost"})
        return connection.getresponse().status != http.HTTPStatus.SERVICE_UNAVAILABLE
    return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
