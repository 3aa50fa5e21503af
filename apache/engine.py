"""Service script: Apache starts this file in a process of its own, and again whenever that process ends."""

import logging
import os

from app import config
from app.engine import service
from app.telemetry import logs

settings = config.load()
logs.configure(settings, role="engine")
service.run(settings)
# Not by Python's own way out: libraries in C keep threads, and one that holds a lock at that moment holds up the stop.
logging.shutdown()
os._exit(0)
