"""nginx in front of uWSGI as Flask's documentation shows it: ``python -m bench.peers.nginx_uwsgi PORT FOLDER``.

Starts both, and stops both when it is told to. Static files come from nginx, the route from Flask.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from bench import environment

CORES = os.cpu_count() or 1
CONFIGURATION = """
daemon off;
worker_processes {cores};
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    types {{ text/css css; image/svg+xml svg; text/javascript js; }}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /static/ {{ alias {static}/; }}
        location / {{
            uwsgi_pass unix:{folder}/uwsgi.sock;
            uwsgi_param QUERY_STRING $query_string;
            uwsgi_param REQUEST_METHOD $request_method;
            uwsgi_param CONTENT_TYPE $content_type;
            uwsgi_param CONTENT_LENGTH $content_length;
            uwsgi_param REQUEST_URI $request_uri;
            uwsgi_param PATH_INFO $document_uri;
            uwsgi_param SERVER_PROTOCOL $server_protocol;
            uwsgi_param REMOTE_ADDR $remote_addr;
            uwsgi_param SERVER_PORT $server_port;
            uwsgi_param SERVER_NAME $server_name;
        }}
    }}
}}
"""


def main() -> None:
    """Serve until SIGTERM."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    configuration = folder / "nginx.conf"
    user = "user www-data;" if os.getuid() == 0 else ""
    configuration.write_text(
        CONFIGURATION.format(
            cores=CORES, folder=folder, port=port, user=user, static=environment.ROOT / "app" / "static"
        )
    )
    is_told = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: is_told.set())
    variables = os.environ | {"LD_LIBRARY_PATH": environment.tools_libraries()}
    nginx = [str(environment.tool("nginx")), "-c", str(configuration), "-e", "stderr"]
    children = [subprocess.Popen(command, env=variables) for command in (_uwsgi(folder), nginx)]
    is_told.wait()
    for child, sign in zip(children, (signal.SIGTERM, signal.SIGQUIT), strict=True):
        child.send_signal(sign)
    for child in children:
        child.wait()


def _uwsgi(folder: Path) -> list[str]:
    plugin = environment.uwsgi_plugin()
    return [
        str(environment.tool("uwsgi-core")),
        f"--plugins-dir={plugin.parent}",
        f"--plugin={plugin.stem.removesuffix('_plugin')}",
        f"--virtualenv={environment.FOLDER}",
        f"--socket={folder}/uwsgi.sock",
        "--chmod-socket=666",
        "--master",
        f"--processes={CORES}",
        "--listen=128",
        "--die-on-term",
        "--need-app",
        "--disable-logging",
        "--module=bench.peers.plain_app:app",
    ]


if __name__ == "__main__":
    main()
