"""Service script: Apache starts this file in a process of its own, and again whenever that process ends."""

import gc
import os
from pathlib import Path

# As in flask.wsgi: nothing that is imported ever goes.
gc.disable()
# Before the imports: at the start of the service, the processes that callers wait for come first.
os.nice(10)

from app.jobs import folder, waiting  # noqa: E402 - the lines above are to come first


def run() -> None:
    """Work jobs off."""
    from app import config
    from app.jobs import service
    from app.telemetry import logs

    settings = config.load()
    logs.configure(settings, role="jobs")
    gc.enable()
    gc.freeze()
    service.run(settings)


# Of the apachectl that mod_wsgi-express wrote; settings are not read yet. configure.py leaves the file in it.
server_root = Path(os.environ["MOD_WSGI_SERVER_ROOT"])
if not (server_root / folder.ON_DISK).exists() or waiting.wait(server_root.parents[1]):
    run()
