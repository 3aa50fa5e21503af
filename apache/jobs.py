"""Service script: Apache starts this file in a process of its own, and again whenever that process ends."""

from app import config
from app.jobs import service
from app.telemetry import logs

settings = config.load()
logs.configure(settings, role="jobs")
service.run(settings)
