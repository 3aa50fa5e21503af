"""Service script: Apache starts this file in a process of its own, and again whenever that process ends."""

import gc

# As in flask.wsgi: nothing that is imported ever goes.
gc.disable()

from app import config  # noqa: E402 - the line above is to come first
from app.engine import service  # noqa: E402
from app.telemetry import logs  # noqa: E402

settings = config.load()
logs.configure(settings, role="engine")
gc.enable()
gc.freeze()
service.run(settings)
