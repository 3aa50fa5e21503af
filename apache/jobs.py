"""Service script: Apache starts this file in a process of its own, and again whenever that process ends."""

import gc
import os

# As in flask.wsgi: nothing that is imported ever goes.
gc.disable()
# Before the imports: at the start of the service, the processes that callers wait for come first.
os.nice(10)

from app import config  # noqa: E402 - the lines above are to come first
from app.jobs import service  # noqa: E402
from app.telemetry import logs  # noqa: E402

settings = config.load()
logs.configure(settings, role="jobs")
gc.enable()
gc.freeze()
service.run(settings)
