"""Service script: Apache starts this file in a process of its own, and again whenever that process ends."""

from app import config
from app.engine import service
from app.telemetry import logs

settings = config.load()
logs.configure(settings, role="engine")
service.run(settings)
